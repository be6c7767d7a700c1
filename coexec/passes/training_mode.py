"""Training form of operators that behave differently in training.

BatchNormalization, Dropout, and all that draws random numbers.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.builder import GraphBuilder
from coexec.ops.node import call_of, constant_of, set_type, type_of
from coexec.ops.opdef import COEXEC
from coexec.ops.random_numbers import DRAWING, draw_nodes, seed_number


def training_mode(model: ir.Model, seed: int, *, new_statistics: bool = True) -> None:
    """Switch ``model`` (specialised) to training form in place.

    BatchNormalization gets ``training_mode`` and its running statistics as outputs, if it is to
    take ``new_statistics``; otherwise it stays as it is. Dropout becomes a mask drawn from (seed,
    node, step), so that every step has another mask and a resumed training repeats the very same
    ones, and so do other random numbers; ``step`` becomes a graph input if there is any.
    """
    builder = GraphBuilder(model.graph, "forward")
    for number, node in enumerate(list(model.graph)):
        if node.domain:
            continue
        if node.op_type == "BatchNormalization" and new_statistics:
            _train_batch_norm(node, builder)
        elif node.op_type == "Dropout":
            _train_dropout(node, builder, seed + number)
        elif node.op_type in DRAWING:
            _train_drawing(node, builder, seed)
    model.graph.sort()


def _train_batch_norm(node: ir.Node, builder: GraphBuilder) -> None:
    if len(node.outputs) >= 3:
        return
    node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
    node.resize_outputs(3)
    for position in (1, 2):
        statistic = node.inputs[position + 2]
        assert statistic is not None
        node.outputs[position].name = builder.name(f"{node.name}:{position}")
        set_type(node.outputs[position], type_of(statistic))


def _train_dropout(node: ir.Node, builder: GraphBuilder, seed: int) -> None:
    """y = mask * x / (1 - ratio)."""
    call = call_of(node)
    given = constant_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    ratio = float(given) if given is not None else 0.5
    data = node.inputs[0]
    assert data is not None
    kind = type_of(data)
    builder.source = node.name or "Dropout"
    attributes = {
        "shape": kind.shape,
        "ratio": ratio,
        "seed": int(call.attribute("seed", 0)) + seed,
    }
    keep = builder.op("BernoulliMask", [builder.step_counter()], attributes, domain=COEXEC)
    scale = builder.constant(1.0 / (1.0 - ratio) if ratio < 1 else 0.0, kind.dtype)
    zero = builder.constant(0, kind.dtype)
    kept = builder.op("Where", [keep, builder.op("Mul", [data, scale]), zero])
    replacements = [kept, keep][: len(node.outputs)]
    ir.convenience.replace_nodes_and_values(
        builder.graph, node, [node], [], node.outputs, replacements
    )


def _train_drawing(node: ir.Node, builder: GraphBuilder, seed: int) -> None:
    """The key is the node's seed and the training's, the counter the step."""
    call = call_of(node)
    operand = node.inputs[0] if node.inputs else None
    builder.source = node.name or node.op_type
    key = ((seed % 2**31) << 32) + seed_number(call)
    drawn = draw_nodes(builder, call, operand, builder.step_counter(), key)
    ir.convenience.replace_nodes_and_values(builder.graph, node, [node], [], node.outputs, [drawn])
