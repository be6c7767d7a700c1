"""Old operator forms that mean something else than the modern operator of that name."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.frontend.rewrite import Emitter, put_input, replace_value
from coexec.frontend.schema import label
from coexec.ops.node import constant_of


def softmax(node: ir.Node, emit: Emitter) -> None:
    """Softmax, LogSoftmax, Hardmax (13): over all axes from ``axis`` (default 1) on at once.

    Flattened to a matrix, normalised along its rows and shaped back; for the last axis alone
    that is the modern operator itself.
    """
    attribute = node.attributes.pop("axis", None)
    axis = 1 if attribute is None else attribute.as_int()
    data, result = node.inputs[0], node.outputs[0]
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    rank = data.shape.rank() if data is not None and data.shape is not None else None
    if axis == -1 or axis + 1 == rank:
        return
    matrix = emit.op("Flatten", [data], {"axis": axis})
    flat = emit.op(node.op_type, [matrix], {"axis": -1})
    replace_node(node, emit.op("Reshape", [flat, emit.op("Shape", [data])]), result)


def batch_normalization(node: ir.Node, _emit: Emitter) -> None:
    """BatchNormalization (14): more than one output meant training; saved statistics are gone."""
    saved = [value for value in node.outputs[3:] if value.uses() or value.is_graph_output()]
    if saved:
        raise ModelError(
            f"{label(node)}: reads {saved[0].name!r}, a saved statistic of opset 9 that each "
            "framework defined its own way; newer ONNX has none"
        )
    training = any(value.name for value in node.outputs[1:])
    node.resize_outputs(min(len(node.outputs), 3))
    if training:
        node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)


def group_normalization(node: ir.Node, emit: Emitter) -> None:
    """GroupNormalization (21): scale and bias per group -> per channel."""
    groups = node.attributes["num_groups"].as_int()
    channels = emit.op("Shape", [node.inputs[0]], {"start": 1, "end": 2})
    repeats = emit.op("Div", [channels, emit.ints([groups])])
    shape = emit.op("Concat", [emit.ints([groups]), repeats], {"axis": 0})
    for index in (1, 2):
        column = emit.op("Unsqueeze", [node.inputs[index], emit.ints([1])])
        spread = emit.op("Expand", [column, shape])
        put_input(node, index, emit.op("Reshape", [spread, emit.ints([-1])]))


def upsample(node: ir.Node, emit: Emitter) -> None:
    """Upsample (until 9) -> Resize."""
    node.op_type = "Resize"
    resize(node, emit)


def resize(node: ir.Node, emit: Emitter) -> None:
    """Resize (11): operands (X, scales) -> (X, roi, scales), ``x_original = x_resized / scale``.

    Nearest rounded down along axes that grow and up along those that shrink (as ONNX's cases for
    opset 10 and ONNX Runtime have it); where both may happen that takes two steps.
    """
    scales = node.inputs[1]
    put_input(node, 1, None)
    put_input(node, 2, scales)
    mode = node.attributes.get("mode")
    nearest = mode is None or mode.as_string() == "nearest"
    known = None if scales is None else constant_of(scales)
    shrinks = nearest and (known is None or bool((known < 1).any()))
    if shrinks and (known is None or (known > 1).any()):
        one = emit.constant([1.0], np.float32)
        grown = [node.inputs[0], None, emit.op("Max", [scales, one])]
        put_input(node, 0, emit.op("Resize", grown, _asymmetric("floor")))
        put_input(node, 2, emit.op("Min", [scales, one]))
    for name, text in _asymmetric("ceil" if shrinks else "floor").items():
        if name != "mode":
            node.attributes[name] = ir.AttrString(name, text)


def _asymmetric(rounding: str) -> dict[str, str]:
    return {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": rounding,
    }


def resize_empty_operands(node: ir.Node, _emit: Emitter) -> None:
    """Resize (13): an empty tensor stood for an absent roi, scales or sizes."""
    for index, value in enumerate(node.inputs[1:], start=1):
        array = None if value is None else constant_of(value)
        if array is not None and array.size == 0:
            put_input(node, index, None)


def scatter(node: ir.Node, _emit: Emitter) -> None:
    """Scatter (until 10) is ScatterElements."""
    node.op_type = "ScatterElements"


def replace_node(node: ir.Node, new: ir.Value, old: ir.Value) -> None:
    """``new`` takes the place of ``old``, the only output of ``node``."""
    replace_value(old, new, node)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
