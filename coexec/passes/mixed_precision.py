"""Compute in float16 where that is safe, keep parameters, statistics, sums and losses in float32.

Source: Micikevicius et al., "Mixed precision training", ICLR 2018 (arXiv 1710.03740). Products and
convolutions get float16 operands; what only passes values on, and what adds up in float32 by itself
(softmax, normalisations), follows its operands; everything else (losses, reductions) stays in
float32. Differentiated after this pass, a cast turns gradients back, so that the optimizer sees
float32 alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.core.types import TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import call_of, constant_of, is_parameter, set_type, type_of
from coexec.ops.table import OPERATORS

SINGLE, HALF = np.dtype(np.float32), np.dtype(np.float16)
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Worth float16 whatever their operands come in; kernels add up in float32."""

FOLLOWERS = frozenset(
    {
        *("Add", "Sub", "Mul", "Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Gelu", "Swish"),
        *("Softmax", "LayerNormalization", "RMSNormalization"),
        *("HardSwish", "HardSigmoid", "MaxPool", "AveragePool", "GlobalAveragePool", "Where"),
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Concat"),
        *("Split", "Slice", "Pad", "Expand", "BatchNormalization"),
    }
)
"""In float16 if all they read is: values stay in their range, or are close to it."""

ONLY_FIRST = frozenset({"BatchNormalization"})
"""Of these the first operand alone: scale, bias and statistics are parameters."""


def mixed_precision(model: ir.Model) -> int:
    """Put casts around what computes in float16; in place. Returns the number of such nodes.

    ``model`` is specialised and in training form; graph inputs and outputs keep their types.
    """
    return _Mixed(model.graph).run()


class _Mixed:
    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.builder = GraphBuilder(graph, "forward")
        self.halves: dict[ir.Value, ir.Value] = {}

    def run(self) -> int:
        chosen = 0
        for node in list(self.graph):
            positions = self._positions(node)
            if positions:
                self._convert(node, positions)
                chosen += 1
        self.graph.sort()
        return chosen

    def _positions(self, node: ir.Node) -> list[int]:
        """Operands of a node to hand over in float16; none where it stays as it is."""
        if node.domain or node.op_type not in PRODUCTS | FOLLOWERS:
            return []
        operands = [
            (position, value)
            for position, value in enumerate(node.inputs)
            if value is not None and type_of(value).dtype == SINGLE
        ]
        if node.op_type in ONLY_FIRST:
            operands = operands[:1]
        follows = node.op_type in FOLLOWERS
        if follows and not any(value in self.halves for _, value in operands):
            return []
        if follows and not all(self._is_half_or_constant(value) for _, value in operands):
            return []
        return [position for position, _ in operands]

    def _is_half_or_constant(self, value: ir.Value) -> bool:
        return value in self.halves or constant_of(value) is not None

    def _convert(self, node: ir.Node, positions: list[int]) -> None:
        self.builder.source = node.name or node.op_type
        for position in positions:
            value = node.inputs[position]
            assert value is not None
            node.replace_input_with(position, self._half(value))
        call = call_of(node)
        kinds = OPERATORS[call.identifier].typed(call).outputs
        for value, kind in zip(list(node.outputs), kinds, strict=False):
            if kind is not None and kind.dtype == HALF and value.name:
                self._widen(value, kind)

    def _half(self, value: ir.Value) -> ir.Value:
        """``value`` in float16, cast once."""
        if value not in self.halves:
            constant = constant_of(value)
            if constant is not None and not is_parameter(value):
                self.halves[value] = self.builder.constant(constant, HALF)
            else:
                to = int(ir.DataType.FLOAT16)
                self.halves[value] = self.builder.op("Cast", [value], {"to": to})
        return self.halves[value]

    def _widen(self, value: ir.Value, kind: TensorType) -> None:
        """Readers of a result that is float16 now get it in float32, under its name."""
        readers = list(value.uses())
        set_type(value, kind)
        wide = self.builder.op("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        for node, position in readers:
            node.replace_input_with(position, wide)
        for position, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[position] = wide
        wide.name, value.name = value.name, self.builder.name(f"{value.name}#half")
        self.halves[wide] = value
