"""A node of a graph as processors see it: its call, names, and what it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coexec.core.types import RegionNode
from coexec.ops.builder import PHASE, SOURCE
from coexec.ops.node import call_of


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


def _names(values: Sequence[ir.Value | None]) -> tuple[str, ...]:
    names = ["" if value is None else str(value.name) for value in values]
    while names and not names[-1]:
        names.pop()
    return tuple(names)
