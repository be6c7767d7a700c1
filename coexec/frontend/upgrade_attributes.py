"""Old operator forms whose attributes became operands."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.frontend.rewrite import Emitter, graph_of, put_input
from coexec.frontend.schema import label


def axes(node: ir.Node, emit: Emitter) -> None:
    """Squeeze, Unsqueeze (13) and Reduce* (13, 18): attribute ``axes`` -> operand 1."""
    _lift_ints(node, emit, "axes", 1)


def slice_(node: ir.Node, emit: Emitter) -> None:
    """Slice (10): ``starts``, ``ends``, ``axes`` -> operands 1 to 3."""
    for index, name in enumerate(("starts", "ends", "axes"), start=1):
        _lift_ints(node, emit, name, index)


def split(node: ir.Node, emit: Emitter) -> None:
    """Split (13): attribute ``split`` -> operand 1."""
    _lift_ints(node, emit, "split", 1)


def split_evenly(node: ir.Node, _emit: Emitter) -> None:
    """Split (18): without sizes, the number of equal parts must be said."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def pad(node: ir.Node, emit: Emitter) -> None:
    """Pad (11): ``pads`` and ``value`` -> operands 1 and 2."""
    _lift_ints(node, emit, "pads", 1)
    value = node.attributes.pop("value", None)
    if value is not None and value.as_float() != 0.0:
        put_input(node, 2, emit.constant(value.as_float(), _element(node)))


def clip(node: ir.Node, emit: Emitter) -> None:
    """Clip (11): ``min`` and ``max`` -> operands 1 and 2, in the data's element type."""
    for index, name in enumerate(("min", "max"), start=1):
        bound = node.attributes.pop(name, None)
        if bound is not None:
            put_input(node, index, emit.constant(bound.as_float(), _element(node)))


def top_k(node: ir.Node, emit: Emitter) -> None:
    """TopK (10): ``k`` -> operand 1."""
    put_input(node, 1, emit.ints([node.attributes.pop("k").as_int()]))


def dropout(node: ir.Node, emit: Emitter) -> None:
    """Dropout (12): ``ratio`` -> operand 1; before 10 the mask had the data's type."""
    ratio = node.attributes.pop("ratio", None)
    if ratio is not None:
        put_input(node, 1, emit.constant(ratio.as_float(), np.float32))
    if len(node.outputs) < 2 or not node.outputs[1].name:
        return
    mask = node.outputs[1]
    if isinstance(mask.type, ir.TensorType) and mask.type.dtype != ir.DataType.BOOL:
        _cast_output(node, mask)


def grid_sample(node: ir.Node, _emit: Emitter) -> None:
    """GridSample (20): modes are named for any number of axes."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() in ("bilinear", "bicubic"):
        node.attributes["mode"] = ir.AttrString("mode", mode.as_string().removeprefix("bi"))


def dft(node: ir.Node, emit: Emitter) -> None:
    """DFT (20): the axis, 1 by default before, is operand 2."""
    axis = node.attributes.pop("axis", None)
    put_input(node, 2, emit.constant(1 if axis is None else axis.as_int(), np.int64))


def _cast_output(node: ir.Node, mask: ir.Value) -> None:
    """Readers of ``mask``, and the graph if it is an output, get it in the type they know."""
    assert isinstance(mask.type, ir.TensorType)
    reads, graph = list(mask.uses()), graph_of(node)
    cast = ir.node("Cast", [mask], {"to": mask.type.dtype.value}, name=f"{node.name}/Cast")
    known = cast.outputs[0]
    known.name, known.type, known.shape = mask.name, mask.type, mask.shape
    mask.name, mask.type = f"{mask.name}_bool", ir.TensorType(ir.DataType.BOOL)
    graph.insert_after(node, cast)
    for reader, index in reads:
        reader.replace_input_with(index, known)
    for index, output in enumerate(graph.outputs):
        if output is mask:
            graph.outputs[index] = known


def _lift_ints(node: ir.Node, emit: Emitter, name: str, index: int) -> None:
    attribute = node.attributes.pop(name, None)
    if attribute is not None:
        put_input(node, index, emit.ints(attribute.as_ints()))


def _element(node: ir.Node) -> np.dtype[np.generic]:
    """Element type of operand 0."""
    data = node.inputs[0]
    if data is None or not isinstance(data.type, ir.TensorType):
        raise ModelError(
            f"{label(node)}: the element type of its input is not known; save the model with "
            "types (onnx.shape_inference.infer_shapes)"
        )
    return np.dtype(data.type.dtype.numpy())
