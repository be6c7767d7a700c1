"""Tensors that leave the device beside its kernels: their pages, their transfers, the waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from coexec.core.types import Region, RegionNode
from coexec.ops.paging import IN, OUT, WAIT, is_paging
from coexec.processors.opencl.executable import PAGE, CopyStep, Label, PageStep, Slot
from coexec.processors.opencl.family import ceil_to


@dataclass(frozen=True)
class Paged:
    """Offsets of pages by the tensors that are written there (``out``) and read from there."""

    out: Mapping[str, int] = field(default_factory=dict)
    fetched: Mapping[str, int] = field(default_factory=dict)
    nbytes: int = 0

    def moves(self, name: str) -> bool:
        """Whether a tensor lies elsewhere than what it was made of."""
        return name in self.out or name in self.fetched


def paged_tensors(region: Region, alignment: int) -> Paged:
    """Pages that a region both writes and reads; what only passes through stays where it is."""
    views: dict[str, str] = {}
    fetches: dict[str, list[str]] = {}
    for node in (each for each in region.nodes if is_paging(each.call)):
        result, operand = node.outputs[0], views.get(node.inputs[0], node.inputs[0])
        if node.call.op_type == OUT:
            fetches[result] = []
        elif node.call.op_type == IN and operand in fetches:
            fetches[operand].append(result)
        elif node.call.op_type == WAIT and operand in fetches:
            views[result] = operand
    lasting = {views.get(name, name) for name in region.outputs}
    out: dict[str, int] = {}
    nbytes = 0
    for page, copies in fetches.items():
        if copies and page not in lasting:
            out[page] = nbytes
            nbytes = ceil_to(nbytes + region.types[page].nbytes, alignment)
    fetched = {copy: start for page, start in out.items() for copy in fetches[page]}
    return Paged(out, fetched, nbytes)


def page_steps(
    node: RegionNode, paged: Paged, slot: Callable[[str], Slot], nbytes: int, live: int
) -> list[PageStep]:
    """The transfer or the wait that a node is; none if it moves nothing."""
    if not is_paging(node.call):
        return []
    result, operand = node.outputs[0], node.inputs[0]
    label = Label(
        name=node.call.name or node.call.identifier,
        operator=node.call.identifier,
        phase=node.provenance.get("phase", ""),
        source=node.provenance.get("source", ""),
        live=live,
        moves="wait",
    )
    if node.call.op_type == OUT and result in paged.out:
        return [_transfer("out", paged.out[result], slot(operand), nbytes, label)]
    if node.call.op_type == IN and result in paged.fetched:
        return [_transfer("in", paged.fetched[result], slot(result), nbytes, label)]
    if node.call.op_type == WAIT:
        if operand in paged.out:
            return [PageStep("out", paged.out[operand], 0, None, label)]
        if operand in paged.fetched:
            return [PageStep("in", paged.fetched[operand], 0, None, label)]
    return []


def _transfer(direction: str, page: int, tensor: Slot, nbytes: int, label: Label) -> PageStep:
    return PageStep(direction, page, nbytes, tensor, replace(label, bytes=nbytes, moves=direction))


def as_copy(step: PageStep) -> CopyStep:
    """A transfer as a copy within memory that kernels reach."""
    assert step.tensor is not None
    page = Slot(PAGE, offset=step.page, nbytes=step.nbytes)
    ends = (page, step.tensor) if step.direction == "out" else (step.tensor, page)
    return CopyStep(*ends, step.nbytes, step.label)
