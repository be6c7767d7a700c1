"""Batch normalisation over parts of a batch that are there one after the other.

The statistics of the whole batch are known from the forward pass: what is normalised again needs
nothing else. The gradient needs two sums over the batch first. With mean m, variance v, epsilon e,
n elements per channel, and the sums S of dy and A of dy (x - m):

    dx = scale / sqrt(v + e) * (dy - S / n - (x - m) A / (n (v + e)))

Source: Ioffe and Szegedy, "Batch Normalization", 2015 (arXiv 1502.03167), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, TensorType
from coexec.ops.batch_norm import EPSILON, is_training
from coexec.ops.builder import SOURCE, GraphBuilder
from coexec.ops.node import call_of, type_of
from coexec.ops.opdef import COEXEC
from coexec.passes.kept import phase_of

NORMALISATION, GRADIENT = "BatchNormalization", "BatchNormalizationGrad"
MOMENTUM = 0.9
"""What ONNX takes where a node says nothing."""


def is_normalisation(node: ir.Node) -> bool:
    """Whether a node normalises by the statistics of its batch."""
    return node.op_type == NORMALISATION and not node.domain and is_training(call_of(node))


def is_gradient(node: ir.Node) -> bool:
    """Whether a node is the gradient of one that does."""
    return node.op_type == GRADIENT and node.domain == COEXEC


def statistics_of(gradient: ir.Node) -> ir.Node | None:
    """The normalisation of the same tensor, all of whose results have names."""
    x = gradient.inputs[0]
    assert x is not None  # an operand of every gradient
    readers = (node for node, position in x.uses() if position == 0 and is_normalisation(node))
    return next((node for node in readers if has_statistics(node)), None)


def has_statistics(normalisation: ir.Node) -> bool:
    """Whether all results of a normalisation are in use, so that it may tell its statistics."""
    outputs = normalisation.outputs
    return len(outputs) == 3 and all(value.name for value in outputs)


@dataclass(frozen=True)
class _Sums:
    """Of a gradient, as columns: mean, S / n, A / (n (v + e)), scale / sqrt(v + e)."""

    mean: ir.Value
    plain: ir.Value
    along: ir.Value
    factor: ir.Value


class DividedNorms:
    """Emits the nodes of normalisations in parts."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self.statistics: dict[ir.Node, tuple[ir.Value, ir.Value]] = {}
        self._sums: dict[ir.Node, _Sums] = {}

    def expose(self, node: ir.Node) -> None:
        """Let a normalisation tell its mean and variance; running ones are made of them."""
        kind = type_of(node.outputs[1])
        keep = float(call_of(node).attribute("momentum", MOMENTUM))
        old = node.inputs[3:5]
        self.builder.phase = phase_of(node)
        self.builder.source = str(node.metadata_props.get(SOURCE) or node.name)
        for index, blank in enumerate((np.zeros, np.ones)):
            node.replace_input_with(3 + index, self._vector(blank(kind.shape), kind))
        node.attributes["momentum"] = ir.AttrFloat32("momentum", 0.0)
        for value, before in zip(node.outputs[1:], old, strict=True):
            assert before is not None  # one of the five operands
            readers = [(reader, position) for reader, position in value.uses()]
            kept = self._op("Mul", before, self._number(keep, kind))
            added = self._op("Mul", value, self._number(float(1 - np.float32(keep)), kind))
            self._take_over(value, self._op("Add", kept, added), readers)
        self.statistics[node] = (node.outputs[1], node.outputs[2])

    def _take_over(
        self, value: ir.Value, new: ir.Value, readers: list[tuple[ir.Node, int]]
    ) -> None:
        """``new`` is what a result of the normalisation was, with its name."""
        for reader, position in readers:
            reader.replace_input_with(position, new)
        value.name, new.name = f"{value.name}#batch", value.name
        outputs = value.graph.outputs if value.graph is not None else []
        for index, output in enumerate(list(outputs)):
            if output is value:
                outputs[index] = new

    def normalised(self, node: ir.Node, x: ir.Value) -> ir.Value:
        """A part of the result of ``node`` of a part of its operand."""
        mean, variance = self.statistics[node]
        epsilon = float(call_of(node).attribute("epsilon", EPSILON))
        operands = [x, node.inputs[1], node.inputs[2], mean, variance]
        return self.builder.op(NORMALISATION, operands, {"epsilon": epsilon})

    def sums(self, node: ir.Node, x: ir.Value, dy: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Sums of dy and of dy (x - m) over a part, per channel."""
        mean, _ = self._known(node)
        kind = type_of(x)
        axes = self.builder.constant(
            np.array([0, *range(2, kind.rank)], np.int64), np.dtype(np.int64)
        )
        self._mark(node)
        away = self._op("Mul", dy, self._op("Sub", x, self._column(mean, kind.rank)))
        plain = self.builder.op("ReduceSum", [dy, axes], {"keepdims": 0})
        return plain, self.builder.op("ReduceSum", [away, axes], {"keepdims": 0})

    def finish(self, node: ir.Node, plain: ir.Value, along: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Gradients of scale and bias from the sums over all parts."""
        mean, variance = self._known(node)
        call = call_of(node)
        rank, kind = call.input(0).rank, type_of(variance)
        count = call.input(0).size // call.input(1).size
        scale = node.inputs[1]
        assert scale is not None  # an operand of every gradient
        spread = self._op(
            "Add", variance, self._number(float(call.attribute("epsilon", EPSILON)), kind)
        )
        root = self._op("Sqrt", spread)
        share = self._number(1 / count, kind)
        steep = self._op("Div", self._op("Mul", along, share), spread)
        columns = (mean, self._op("Mul", plain, share), steep, self._op("Div", scale, root))
        self._sums[node] = _Sums(*(self._column(vector, rank) for vector in columns))
        return self._op("Div", along, root), plain

    def gradient(self, node: ir.Node, x: ir.Value, dy: ir.Value) -> ir.Value:
        """A part of dx, once the sums are there."""
        by = self._sums[node]
        tilt = self._op("Mul", self._op("Sub", x, by.mean), by.along)
        return self._op("Mul", self._op("Sub", self._op("Sub", dy, by.plain), tilt), by.factor)

    def _known(self, gradient: ir.Node) -> tuple[ir.Value, ir.Value]:
        node = next(n for n in self.statistics if n.inputs[0] is gradient.inputs[0])
        return self.statistics[node]

    def _mark(self, node: ir.Node) -> None:
        self.builder.phase = phase_of(node)
        self.builder.source = str(node.metadata_props.get(SOURCE) or node.name)

    def _op(self, op_type: str, *operands: ir.Value) -> ir.Value:
        return self.builder.op(op_type, operands)

    def _column(self, vector: ir.Value, rank: int) -> ir.Value:
        """A vector as (C, 1, ...): it meets the channels of a tensor of ``rank`` axes."""
        shape = np.array([-1, *(1,) * (rank - 2)], np.int64)
        return self._op("Reshape", vector, self.builder.constant(shape, np.dtype(np.int64)))

    def _number(self, number: float, kind: TensorType) -> ir.Value:
        return self.builder.constant(number, kind.dtype)

    def _vector(self, numbers: Array, kind: TensorType) -> ir.Value:
        return self.builder.constant(numbers, kind.dtype)
