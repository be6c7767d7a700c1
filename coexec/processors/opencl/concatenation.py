"""Concatenations whose operands are made where the result lies, so that nothing is copied.

Where all axes in front of the joined one have extent 1 (one image whose channels are joined), the
operands of a Concat are runs of its result, one behind the other. An operand that a kernel of the
region makes can lie there from the start; a result may be an operand of the next one, as in densely
connected networks (the memory that Pleiss et al., "Memory-Efficient Implementation of DenseNets",
2017, arXiv 1707.06990, share).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from coexec.core.types import Region, RegionNode
from coexec.ops.pieces import concat_axis
from coexec.processors.opencl.fusion.operators import definition


@dataclass(frozen=True)
class Part:
    """A tensor that lies in ``whole``, ``offset`` bytes behind its start."""

    whole: str
    offset: int


def parts_of_results(region: Region, alignment: int) -> dict[str, Part]:
    """Operands that lie in results of Concat, by name: all operands of a node, or none.

    A place of their own keep outputs of the region, tensors that views or several nodes would
    need elsewhere, and operands whose place would not be a multiple of ``alignment`` (bytes).
    """
    free = _movable(region)
    parts: dict[str, Part] = {}
    for node in region.nodes:
        if node.call.identifier == "Concat" and node.outputs[0] in free:
            found = _runs(node, alignment)
            if found.keys() <= free and not found.keys() & parts.keys():
                parts.update(found)
    return parts


def joined(node: RegionNode, parts: Mapping[str, Part]) -> bool:
    """Whether a node's result is there as soon as its operands are."""
    return node.call.identifier == "Concat" and any(
        name in parts and parts[name].whole == node.outputs[0] for name in node.inputs
    )


def place_of(name: str, parts: Mapping[str, Part]) -> Part:
    """The largest tensor that a tensor lies in, maybe itself, and where."""
    offset = 0
    while name in parts:
        offset += parts[name].offset
        name = parts[name].whole
    return Part(name, offset)


def _movable(region: Region) -> frozenset[str]:
    """Tensors that kernels of the region make, and that nobody sees outside, even as views."""
    made: set[str] = set()
    viewed: dict[str, str] = {}
    for node in region.nodes:
        if definition(node.call).view:
            source = node.inputs[0]
            viewed[node.outputs[0]] = viewed.get(source, source)
        else:
            made.update(filter(None, node.outputs))
    seen = {viewed.get(name, name) for name in region.outputs}
    return frozenset(made - seen - region.aliases.keys())


def _runs(node: RegionNode, alignment: int) -> dict[str, Part]:
    """Operands as runs of a Concat's result; none where they are not runs, or one comes twice."""
    result, axis = node.call.output(0), concat_axis(node.call)
    sizes = [kind.nbytes for kind in node.call.inputs if kind is not None]
    offsets = [*accumulate(sizes[:-1], initial=0)]
    apart = prod(result.shape[:axis]) != 1 or len(set(node.inputs)) != len(sizes)
    if apart or min(sizes) == 0 or any(offset % alignment for offset in offsets):
        return {}
    return {
        name: Part(node.outputs[0], offset)
        for name, offset in zip(node.inputs, offsets, strict=True)
    }
