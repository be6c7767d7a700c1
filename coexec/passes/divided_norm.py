"""Batch normalisation over parts of a batch that are there one after the other.

The statistics of the whole batch are known from the forward pass: what is normalised again needs
nothing else. The gradient needs two sums over the batch first, of all parts. The operators are
those of a batch whose parts are on several processors (:mod:`coexec.ops.batch_norm_shares`).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, TensorType
from coexec.ops.batch_norm import EPSILON, MOMENTUM, is_training
from coexec.ops.builder import SOURCE, GraphBuilder
from coexec.ops.node import call_of, type_of
from coexec.ops.opdef import COEXEC
from coexec.passes.kept import phase_of

NORMALISATION, GRADIENT = "BatchNormalization", "BatchNormalizationGrad"


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


class DividedNorms:
    """Emits the nodes of normalisations in parts."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self.statistics: dict[ir.Node, tuple[ir.Value, ir.Value]] = {}
        self._sums: dict[ir.Node, tuple[ir.Value, ir.Value]] = {}

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

    def sums(self, node: ir.Node, x: ir.Value, dy: ir.Value) -> tuple[ir.Value, ...]:
        """Sums of dy (x - m) and of dy over a part, per channel."""
        mean, _ = self._known(node)
        self._mark(node)
        return self.builder.ops("BatchNormalizationSums", [x, mean, dy], outputs=2, domain=COEXEC)

    def finish(self, node: ir.Node, along: ir.Value, plain: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Gradients of scale and bias from the sums over all parts."""
        _, variance = self._known(node)
        epsilon = float(call_of(node).attribute("epsilon", EPSILON))
        spread = self._op("Add", variance, self._number(epsilon, type_of(variance)))
        self._sums[node] = (along, plain)
        return self._op("Div", along, self._op("Sqrt", spread)), plain

    def gradient(self, node: ir.Node, x: ir.Value, dy: ir.Value) -> ir.Value:
        """A part of dx, once the sums are there."""
        call = call_of(node)
        how = {
            "count": call.input(0).size // call.input(1).size,
            "epsilon": float(call.attribute("epsilon", EPSILON)),
        }
        operands = [x, node.inputs[1], dy, *self._known(node), *self._sums[node]]
        return self.builder.op("BatchNormalizationFlow", operands, how, domain=COEXEC)

    def _known(self, gradient: ir.Node) -> tuple[ir.Value, ir.Value]:
        node = next(n for n in self.statistics if n.inputs[0] is gradient.inputs[0])
        return self.statistics[node]

    def _mark(self, node: ir.Node) -> None:
        self.builder.phase = phase_of(node)
        self.builder.source = str(node.metadata_props.get(SOURCE) or node.name)

    def _op(self, op_type: str, *operands: ir.Value) -> ir.Value:
        return self.builder.op(op_type, operands)

    def _number(self, number: float, kind: TensorType) -> ir.Value:
        return self.builder.constant(number, kind.dtype)

    def _vector(self, numbers: Array, kind: TensorType) -> ir.Value:
        return self.builder.constant(numbers, kind.dtype)
