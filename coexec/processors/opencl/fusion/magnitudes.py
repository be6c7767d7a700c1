"""Magnitudes of one tensor each, and their sum, become the magnitude of all of them."""

from __future__ import annotations

from dataclasses import replace

from coexec.core.types import Region, RegionNode
from coexec.ops.magnitude import MAGNITUDE
from coexec.ops.opdef import COEXEC
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.elementwise import name_of, provenance_of
from coexec.processors.opencl.fusion.groups import readers_of

IDENTIFIER = f"{COEXEC}::{MAGNITUDE}"


def join_magnitudes(region: Region, _facts: DeviceFacts) -> Region:
    """``region`` with sums of magnitudes as one node each, in the sums' places."""
    readers = readers_of(region)
    single = {
        node.outputs[0]: node
        for node in region.nodes
        if node.call.identifier == IDENTIFIER
        and node.outputs[0] not in region.outputs
        and len(readers.get(node.outputs[0], ())) == 1
    }
    made: dict[int, RegionNode] = {}
    gone: set[str] = set()
    for index, node in enumerate(region.nodes):
        if node.call.identifier != "Sum" or not all(name in single for name in node.inputs):
            continue
        parts = [single[name] for name in node.inputs]
        made[index] = _joined(parts, node)
        gone |= set(node.inputs)
    nodes = (made.get(i, n) for i, n in enumerate(region.nodes) if n.outputs[0] not in gone)
    return replace(region, nodes=tuple(nodes)) if made else region


def _joined(parts: list[RegionNode], total: RegionNode) -> RegionNode:
    nodes = [*parts, total]
    call = replace(
        parts[0].call,
        name=name_of(nodes),
        inputs=tuple(kind for part in parts for kind in part.call.inputs),
        outputs=total.call.outputs,
        constants={},
    )
    names = tuple(name for part in parts for name in part.inputs)
    return RegionNode(call, names, total.outputs, provenance_of(nodes))
