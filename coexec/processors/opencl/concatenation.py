"""Concatenations whose operands are made where the result lies, so that nothing is copied.

Where all axes in front of the joined one have extent 1 (one image whose channels are joined), the
operands of a Concat are runs of its result, one behind the other. An operand that a kernel of the
region makes can lie there from the start; a result may be an operand of the next one, as in densely
connected networks (the memory that Pleiss et al., "Memory-Efficient Implementation of DenseNets",
2017, arXiv 1707.06990, share). Operands that several regions make lie where :attr:`Region.joined`
says, if all of them do.
"""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import Part, Region, RegionNode
from coexec.ops.pieces import runs_of_concat
from coexec.processors.opencl.fusion.operators import definition


def parts_of_results(region: Region, alignment: int) -> dict[str, Part]:
    """Operands that lie in results of Concat, by name: all operands of a node, or none.

    A place of their own keep outputs of the region, tensors that views or several nodes would
    need elsewhere, and operands whose place would not be a multiple of ``alignment`` (bytes).
    """
    free = _movable(region) - _fitting(region, alignment).keys()
    parts: dict[str, Part] = {}
    for node in region.nodes:
        if node.call.identifier == "Concat" and node.outputs[0] in free:
            found = _runs(node, alignment)
            if found.keys() <= free and not found.keys() & parts.keys():
                parts.update(found)
    return parts


def parts_across(region: Region, alignment: int) -> dict[str, Part]:
    """Tensors of the region that lie where several regions join them, by name.

    A result of Concat only if all its operands do; none where places are no multiples of
    ``alignment`` (bytes).
    """
    wanted = _fitting(region, alignment)
    placed = {name: part for name, part in wanted.items() if _waits_there(name, part, region)}
    for node in region.nodes:
        copied = joined(node, wanted) and not placed.keys() >= set(node.inputs)
        if not copied and not definition(node.call).view:
            placed.update((name, wanted[name]) for name in node.outputs if name in wanted)
    return placed


def _fitting(region: Region, alignment: int) -> dict[str, Part]:
    """What regions are to join where all parts begin at multiples of ``alignment`` (bytes)."""
    uneven = {part.whole for part in region.joined.values() if part.offset % alignment}
    return {name: part for name, part in region.joined.items() if part.whole not in uneven}


def _waits_there(name: str, part: Part, region: Region) -> bool:
    """Whether an earlier region left a tensor in its place."""
    here, whole = region.kept.get(name), region.kept.get(part.whole)
    return bool(here and whole and here.offset == whole.offset + part.offset)


def joined(node: RegionNode, parts: Mapping[str, Part]) -> bool:
    """Whether a node's result is there as soon as its operands are."""
    if node.call.identifier != "Concat":
        return False
    offsets, result = runs_of_concat(node.call), place_of(node.outputs[0], parts)
    return bool(offsets) and all(
        place_of(name, parts) == Part(result.whole, result.offset + offset)
        for name, offset in zip(node.inputs, offsets, strict=True)
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
    offsets = runs_of_concat(node.call)
    if len(set(node.inputs)) != len(offsets) or any(offset % alignment for offset in offsets):
        return {}
    return {
        name: Part(node.outputs[0], offset)
        for name, offset in zip(node.inputs, offsets, strict=True)
    }
