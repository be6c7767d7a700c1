"""Elementwise nodes that the kernel before them computes on its way out, where they cost nothing.

What such a kernel has in a register it changes by a few instructions: a node measured alone reads
and writes memory instead. Only nodes of one tensor are so: what others read besides (a sum of two)
takes its time in any kernel.
"""

from __future__ import annotations

from coexec.core.types import OpCall, Region, RegionNode
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.epilogue import FINISHING
from coexec.processors.opencl.fusion.fuse import fuse


def taken_in(region: Region, facts: DeviceFacts) -> dict[str, OpCall | None]:
    """Nodes of ``region``, by name, that cost nothing where all of it is compiled as a whole."""
    made = {name for node in region.nodes for name in node.outputs}
    written = {name for node in fuse(region, facts).nodes for name in node.outputs}
    unwritten = made - written
    return {
        node.call.name: None
        for node in region.nodes
        if node.call.identifier in FINISHING and _only_tensor(node, region) in unwritten
    }


def _only_tensor(node: RegionNode, region: Region) -> str:
    """The operand of a node that has one beside numbers, like its result; else nothing."""
    result = region.types[node.outputs[0]]
    tensors = [name for name in node.inputs if name and region.types[name].size > 1]
    alike = len(tensors) == 1 and region.types[tensors[0]] == result
    return tensors[0] if alike else ""
