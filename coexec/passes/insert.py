"""Nodes next to others, in their phase and for the same layer; a node in place of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from coexec.ops.builder import SOURCE, GraphBuilder
from coexec.ops.opdef import COEXEC
from coexec.passes.kept import FORWARD, phase_of


@dataclass(frozen=True)
class New:
    """A node that is not yet in a graph."""

    op_type: str
    inputs: Sequence[ir.Value | None]
    attributes: Mapping[str, Any] | None = None
    outputs: int = 1
    domain: str = COEXEC


class Inserter:
    """Emits nodes next to others, in their phase and for the same layer."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.builder = GraphBuilder(graph, FORWARD)

    def behind(self, anchor: ir.Node, new: New) -> tuple[ir.Value, ...]:
        """Outputs of a node right behind ``anchor``."""
        made = self._emit(anchor, new)
        self.graph.insert_after(anchor, self._taken_out(made))
        return made

    def before(self, anchor: ir.Node, new: New) -> tuple[ir.Value, ...]:
        """Outputs of a node right before ``anchor``."""
        made = self._emit(anchor, new)
        self.graph.insert_before(anchor, self._taken_out(made))
        return made

    def _emit(self, anchor: ir.Node, new: New) -> tuple[ir.Value, ...]:
        self.builder.phase = phase_of(anchor)
        self.builder.source = str(anchor.metadata_props.get(SOURCE) or anchor.name)
        return self.builder.ops(
            new.op_type, new.inputs, new.attributes, outputs=new.outputs, domain=new.domain
        )

    def _taken_out(self, values: Sequence[ir.Value]) -> ir.Node:
        """The node that was appended, without a place."""
        node = values[0].producer()
        assert node is not None
        self.graph.remove(node)
        return node


def replace_node(graph: ir.Graph, node: ir.Node, values: Sequence[ir.Value]) -> None:
    """Let readers of a node's outputs read ``values``, and take the node out.

    A graph output keeps its name.
    """
    for old, new in zip(node.outputs, values, strict=True):
        if old.is_graph_output():
            new.name, old.name = old.name, f"{old.name}#replaced"
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
