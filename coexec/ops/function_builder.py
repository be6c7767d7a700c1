"""Writes the body of an operator: an ONNX function of simpler operators for one typed call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.ops.opdef import COEXEC

OLDEST_OPSET = 21


class FunctionBuilder:
    """Appends nodes like a ``GradientScope`` and ends in an ``ir.Function``.

    The function has one input per operand of the call (absent ones unused) and one output per
    output of the call. Attributes are baked in: the function is meant for this call alone.
    """

    def __init__(self, call: OpCall) -> None:
        self.call = call
        self.inputs = tuple(ir.Value(name=f"input_{i}") for i in range(len(call.inputs)))
        self._nodes: list[ir.Node] = []

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """Append a node with one output."""
        return self.ops(op_type, inputs, attributes, outputs=1, domain=domain)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """Append a node with several outputs."""
        node = ir.node(
            op_type, list(inputs), dict(attributes or {}), domain=domain, num_outputs=outputs
        )
        for i, value in enumerate(node.outputs):
            value.name = f"{op_type.lower()}_{len(self._nodes)}_{i}"
        self._nodes.append(node)
        return tuple(node.outputs)

    def constant(self, value: Any, dtype: np.dtype[Any] | str) -> ir.Value:
        """A ``Constant`` node holding an array or a number."""
        tensor = ir.tensor(np.asarray(value).astype(np.dtype(dtype)))
        return self.op("Constant", [], {"value": tensor})

    def shape(self, sizes: Sequence[int]) -> ir.Value:
        """A constant int64 vector: a shape, axes, repeats."""
        return self.constant(np.asarray(sizes, np.int64).reshape(-1), "int64")

    def function(self, outputs: Sequence[ir.Value]) -> ir.Function:
        """The function that returns ``outputs``."""
        opset = max(self.call.version, OLDEST_OPSET)
        graph = ir.Graph(
            self.inputs,
            list(outputs),
            nodes=self._nodes,
            opset_imports={"": opset, COEXEC: 1},
            name=self.call.op_type,
        )
        return ir.Function(self.call.domain, self.call.op_type, "", graph=graph, attributes=())
