"""Fold batch normalisation in inference form into the convolution or product in front of it.

onnxscript's rule for it neither looks at ``training_mode`` nor keeps a node's name, which profiles
and plans show.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall
from coexec.ops.batch_norm import EPSILON, is_training
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import call_of, constant_of

FOLDABLE = frozenset({"Conv", "ConvTranspose", "Gemm"})


def fold_batch_norm(model: ir.Model) -> int:
    """Scale weights and move the rest into the bias: Conv + BatchNormalization -> Conv; in place.

    Folds where weights and statistics are constants and nothing else reads the value in between.
    Returns how many were folded. Results differ by rounding only.
    """
    builder = GraphBuilder(model.graph, "forward")
    norms = [n for n in model.graph if n.op_type == "BatchNormalization" and not n.domain]
    return sum(_fold(norm, builder) for norm in norms)


def _fold(norm: ir.Node, builder: GraphBuilder) -> bool:
    producer = _producer(norm)
    if producer is None or is_training(call_of(norm)):
        return False
    parameters = [_constant(value) for value in norm.inputs[1:]]
    operands = [value for value in producer.inputs[1:3] if value is not None]
    weights = [_constant(value) for value in operands]
    if any(array is None for array in (*parameters, *weights)) or not _per_channel(weights[1:]):
        return False
    scale, shift, mean, variance = (np.asarray(array, np.float64) for array in parameters)
    factor = scale / np.sqrt(variance + call_of(norm).attribute("epsilon", EPSILON))
    call = call_of(producer)
    weight = np.asarray(weights[0])
    bias = _bias(call, weights, len(mean))
    folded = (_scaled(call, weight, factor), (bias - mean) * factor + shift)
    for position, array in enumerate(folded, start=1):
        name = f"{producer.name}.folded.{'weight' if position == 1 else 'bias'}"
        _set_input(producer, position, builder.initializer(name, array.astype(weight.dtype)))
    if "beta" in producer.attributes:
        producer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    _take_over(norm, producer)
    return True


def _producer(norm: ir.Node) -> ir.Node | None:
    """The node whose result nothing but ``norm`` reads, if it can take the normalisation over."""
    value = norm.inputs[0]
    node = value.producer() if value is not None else None
    if value is None or node is None or node.domain or node.op_type not in FOLDABLE:
        return None
    alone = len(tuple(value.uses())) == 1 and not value.is_graph_output()
    return node if alone and len([v for v in norm.outputs if v.name]) == 1 else None


def _constant(value: ir.Value | None) -> Array | None:
    """Value of a constant; ``None`` for anything that a run may change."""
    return None if value is None or value.is_graph_input() else constant_of(value)


def _per_channel(bias: list[Array | None]) -> bool:
    """Whether a bias, if there is one, is the same for every row of a product."""
    return all(array is not None and (array.ndim < 2 or len(array) == 1) for array in bias)


def _bias(call: OpCall, weights: list[Array | None], channels: int) -> Array:
    """The producer's own bias for each channel."""
    if len(weights) < 2:
        return np.zeros(channels)
    scaled = np.asarray(weights[1], np.float64) * float(call.attribute("beta", 1.0))
    return np.broadcast_to(scaled.reshape(-1), (channels,))


def _scaled(call: OpCall, weight: Array, factor: Array) -> Array:
    """Weights times one factor per output channel."""
    if call.op_type == "Gemm":
        return weight * (factor[:, None] if call.attribute("transB", 0) else factor)
    if call.op_type == "Conv":
        return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    # ConvTranspose: (in_channels, out_channels / groups, ...); groups divide the first axis.
    groups = int(call.attribute("group", 1))
    each = weight.reshape(groups, -1, *weight.shape[1:])
    return (each * factor.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))).reshape(weight.shape)


def _set_input(node: ir.Node, position: int, value: ir.Value) -> None:
    if position >= len(node.inputs):
        node.resize_inputs(position + 1)
    node.replace_input_with(position, value)


def _take_over(norm: ir.Node, producer: ir.Node) -> None:
    """The producer's result stands where the norm's stood, under its name."""
    old, new = norm.outputs[0], producer.outputs[0]
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph = norm.graph
    assert graph is not None
    graph.remove(norm, safe=True)
    new.name = name
