"""Function bodies: an operator of domain ``coexec`` written in standard ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.ops.opdef import COEXEC

OPSET = 21
"""Opset that function bodies are written in."""


class BodyBuilder:
    """Collects the nodes of a function body; values have no types, as ONNX functions want."""

    def __init__(self, call: OpCall, names: Sequence[str]) -> None:
        self.call = call
        self.inputs = [ir.Value(name=name) for name in names]
        self.nodes: list[ir.Node] = []

    def op(
        self,
        op_type: str,
        operands: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Append a standard node and return its only output."""
        node = ir.node(op_type, operands, attributes, num_outputs=1, version=OPSET)
        node.outputs[0].name = f"t{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, value: Any, dtype: np.dtype[Any] | type[np.generic] | str) -> ir.Value:
        """A ``Constant`` node of a fixed element type."""
        return self.op("Constant", [], {"value": ir.tensor(np.asarray(value, dtype))})

    def function(self, outputs: Sequence[ir.Value]) -> ir.Function:
        """The finished body under the call's own name."""
        graph = ir.Graph(self.inputs, outputs, nodes=self.nodes, opset_imports={"": OPSET})
        return ir.Function(COEXEC, self.call.op_type, graph=graph, attributes={})
