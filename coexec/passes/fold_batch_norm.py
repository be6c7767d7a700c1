"""Fold batch normalisation in inference form into the convolution or product in front of it.

onnxscript's rule for it neither looks at ``training_mode`` nor keeps a node's name, which profiles
and plans show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array
from coexec.ops.batch_norm import EPSILON
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import attributes_of, constant_of

FOLDABLE = frozenset({"Conv", "ConvTranspose", "Gemm"})


def fold_batch_norm(model: ir.Model) -> int:
    """Scale weights and move the rest into the bias: Conv + BatchNormalization -> Conv; in place.

    Folds where weights and statistics are constants and nothing else reads the value in between.
    Returns how many were folded. Results differ by rounding only. Shapes may be open.
    """
    builder = GraphBuilder(model.graph, "forward")
    norms = [n for n in model.graph if n.op_type == "BatchNormalization" and not n.domain]
    return sum(_fold(norm, builder) for norm in norms)


def _fold(norm: ir.Node, builder: GraphBuilder) -> bool:
    producer = only_producer(norm.inputs[0])
    if (
        producer is None
        or attributes_of(norm).get("training_mode", 0)
        or len([v for v in norm.outputs if v.name]) != 1
    ):
        return False
    parameters = [constant(value) for value in norm.inputs[1:]]
    if any(array is None for array in parameters):
        return False
    scale, shift, mean, variance = (np.asarray(array, np.float64) for array in parameters)
    factor = scale / np.sqrt(variance + attributes_of(norm).get("epsilon", EPSILON))
    return absorb(norm, producer, factor, shift - mean * factor, builder)


def absorb(
    node: ir.Node, producer: ir.Node, factor: Array, shift: Array, builder: GraphBuilder
) -> bool:
    """Replace ``node``, which makes ``factor`` * h + ``shift`` of its producer's result h.

    Both (channels,), float64. Returns whether the producer's weights are constants that can take
    them in; nothing is changed otherwise.
    """
    operands = [value for value in producer.inputs[1:3] if value is not None]
    weights = [constant(value) for value in operands]
    if producer.op_type not in FOLDABLE or producer.domain:
        return False
    if any(array is None for array in weights) or not _per_channel(weights[1:]):
        return False
    attributes = attributes_of(producer)
    weight = np.asarray(weights[0])
    bias = _bias(attributes, weights, len(factor))
    folded = (_scaled(producer.op_type, attributes, weight, factor), bias * factor + shift)
    for position, array in enumerate(folded, start=1):
        name = f"{producer.name}.folded.{'weight' if position == 1 else 'bias'}"
        set_input(producer, position, builder.initializer(name, array.astype(weight.dtype)))
    if "beta" in producer.attributes:
        producer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    take_over(node, producer)
    return True


def only_producer(value: ir.Value | None) -> ir.Node | None:
    """The node that makes a value which one operand alone reads."""
    node = value.producer() if value is not None else None
    if value is None or node is None:
        return None
    return node if len(tuple(value.uses())) == 1 and not value.is_graph_output() else None


def constant(value: ir.Value | None) -> Array | None:
    """Value of a constant; ``None`` for anything that a run may change."""
    return None if value is None or value.is_graph_input() else constant_of(value)


def _per_channel(bias: list[Array | None]) -> bool:
    """Whether a bias, if there is one, is the same for every row of a product."""
    return all(array is not None and (array.ndim < 2 or len(array) == 1) for array in bias)


def _bias(attributes: Mapping[str, Any], weights: list[Array | None], channels: int) -> Array:
    """The producer's own bias for each channel."""
    if len(weights) < 2:
        return np.zeros(channels)
    scaled = np.asarray(weights[1], np.float64) * float(attributes.get("beta", 1.0))
    return np.broadcast_to(scaled.reshape(-1), (channels,))


def _scaled(op_type: str, attributes: Mapping[str, Any], weight: Array, factor: Array) -> Array:
    """Weights times one factor per output channel."""
    if op_type == "Gemm":
        return weight * (factor[:, None] if attributes.get("transB", 0) else factor)
    if op_type == "Conv":
        return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    # ConvTranspose: (in_channels, out_channels / groups, ...); groups divide the first axis.
    groups = int(attributes.get("group", 1))
    each = weight.reshape(groups, -1, *weight.shape[1:])
    return (each * factor.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))).reshape(weight.shape)


def set_input(node: ir.Node, position: int, value: ir.Value) -> None:
    """Operand ``position``, also where a node has had none there."""
    if position >= len(node.inputs):
        node.resize_inputs(position + 1)
    node.replace_input_with(position, value)


def take_over(node: ir.Node, producer: ir.Node) -> None:
    """The producer's result stands where the node's stood, under its name."""
    old, new = node.outputs[0], producer.outputs[0]
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph = node.graph
    assert graph is not None
    graph.remove(node, safe=True)
    new.name = name
