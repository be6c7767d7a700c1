"""Order nodes: topologically, optimizer nodes last: states are updated after every reader."""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.builder import PHASE


def schedule(graph: ir.Graph) -> None:
    """Sort ``graph`` in place; the order within a phase stays as it was wherever legal.

    What reads an optimizer node's result comes late too, whatever its phase: copies that other
    passes put in front of outputs have none.
    """
    graph.sort()
    late: dict[ir.Node, None] = {}
    for node in graph:
        operands = {value.producer() for value in node.inputs if value is not None}
        if node.metadata_props.get(PHASE) == "optimizer" or not late.keys().isdisjoint(operands):
            late[node] = None
    graph.remove(late)
    graph.extend(late)
