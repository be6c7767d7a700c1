"""Order nodes: topologically, optimizer nodes last: states are updated after every reader."""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.builder import PHASE


def schedule(graph: ir.Graph) -> None:
    """Sort ``graph`` in place; the order within a phase stays as it was wherever legal."""
    graph.sort()
    nodes = list(graph)
    late = [node for node in nodes if node.metadata_props.get(PHASE) == "optimizer"]
    if not late:
        return
    graph.remove(late)
    graph.extend(late)
