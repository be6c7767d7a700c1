"""Steps of recurrent layers give what their gradient needs: else it computes them once more."""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.node import call_of, set_type
from coexec.ops.opdef import COEXEC
from coexec.ops.recurrent_steps import SAVED, STATES
from coexec.ops.table import OPERATORS


def keep_gates(graph: ir.Graph) -> None:
    """Add the outputs that training reads to all steps of recurrent layers; in place."""
    for node in graph:
        cell = node.op_type.removesuffix("Steps")
        if node.domain != COEXEC or cell == node.op_type or cell not in SAVED:
            continue
        node.resize_outputs(1 + STATES[cell] + SAVED[cell])
        for value in node.outputs:
            value.name = value.name or f"{node.name}:{value.index()}"
        call = call_of(node)
        for value, kind in zip(node.outputs, OPERATORS[call.identifier].infer(call), strict=True):
            set_type(value, kind)
