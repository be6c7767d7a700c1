"""Nodes of a graph as processors see them: their calls, names, and what they belong to."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coexec.core.types import Region, RegionNode
from coexec.ops.builder import PHASE, SOURCE
from coexec.ops.node import call_of, constant_of, type_of


def region_node(node: ir.Node) -> RegionNode:
    """The node with its phase and the node of the model that it belongs to."""
    provenance = {
        "phase": node.metadata_props.get(PHASE, ""),
        "source": node.metadata_props.get(SOURCE) or str(node.name),
    }
    return RegionNode(
        call_of(node),
        _names(node.inputs),
        _names([value if value.name else None for value in node.outputs]),
        provenance,
    )


def region_of(graph: ir.Graph) -> Region:
    """A whole graph (static types, execution order) as one region."""
    nodes = tuple(map(region_node, graph))
    used = [value for node in graph for value in node.inputs if value is not None]
    values = {str(v.name): v for v in (*used, *(v for node in graph for v in node.outputs))}
    constants = {name: c for name, v in values.items() if (c := constant_of(v)) is not None}
    return Region(
        nodes,
        tuple(str(value.name) for value in graph.inputs if str(value.name) not in constants),
        tuple(str(value.name) for value in graph.outputs),
        {name: type_of(value) for name, value in values.items() if name},
        constants,
    )


def _names(values: Sequence[ir.Value | None]) -> tuple[str, ...]:
    names = ["" if value is None else str(value.name) for value in values]
    while names and not names[-1]:
        names.pop()
    return tuple(names)
