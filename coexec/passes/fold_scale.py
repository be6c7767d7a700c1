"""Fold products and sums with a constant for each channel into what stands in front of them.

Networks that came from Caffe have them behind every batch normalisation: its scale and shift.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array
from coexec.ops.batch_norm import is_training
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import call_of, type_of
from coexec.passes.fold_batch_norm import absorb, constant, only_producer, set_input, take_over

FOLDED = ("Mul", "Add")
NORM = "BatchNormalization"


def fold_scale(model: ir.Model) -> int:
    """Scale weights, or the parameters of a batch normalisation in inference form; in place.

    Folds where everything but the data is constant and nothing else reads the value in between.
    Returns how many nodes were folded. Results differ by rounding only.
    """
    builder = GraphBuilder(model.graph, "forward")
    nodes = [node for node in model.graph if node.op_type in FOLDED and not node.domain]
    return sum(_fold(node, builder) for node in nodes)


def _fold(node: ir.Node, builder: GraphBuilder) -> bool:
    operands = list(node.inputs)
    place = next((i for i, value in enumerate(operands) if constant(value) is not None), None)
    if place is None:
        return False
    data = operands[1 - place]
    producer = only_producer(data)
    if data is None or producer is None:
        return False
    each = _by_channel(np.asarray(constant(operands[place])), type_of(data).shape)
    if each is None:
        return False
    ones, zeros = np.ones_like(each), np.zeros_like(each)
    factor, shift = (each, zeros) if node.op_type == "Mul" else (ones, each)
    if producer.op_type == NORM and not producer.domain:
        return _into_norm(node, producer, factor, shift, builder)
    return absorb(node, producer, factor, shift, builder)


def _by_channel(array: Array, shape: tuple[int, ...]) -> Array | None:
    """A constant operand as (channels,), float64; ``None`` where it is more than that."""
    if len(shape) < 2 or array.ndim > len(shape):
        return None
    aligned = (1,) * (len(shape) - array.ndim) + array.shape
    if aligned[1] not in (1, shape[1]) or any(n != 1 for i, n in enumerate(aligned) if i != 1):
        return None
    return np.array(np.broadcast_to(array.reshape(-1), (shape[1],)), np.float64)


def _into_norm(
    node: ir.Node, norm: ir.Node, factor: Array, shift: Array, builder: GraphBuilder
) -> bool:
    parameters = [constant(value) for value in norm.inputs[1:3]]
    outputs = [value for value in norm.outputs if value.name]
    if is_training(call_of(norm)) or len(outputs) != 1 or any(p is None for p in parameters):
        return False
    scale, bias = (np.asarray(array) for array in parameters)
    folded = {"scale": scale * factor, "bias": bias * factor + shift}
    for position, (name, array) in enumerate(folded.items(), start=1):
        value = builder.initializer(f"{norm.name}.folded.{name}", array.astype(scale.dtype))
        set_input(norm, position, value)
    take_over(node, norm)
    return True
