"""From kernel calls to steps: arguments resolved, programs shared, labels for the trace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

from coexec.core.types import Region, RegionNode, compute_dtype
from coexec.processors.opencl.copies import by_kernel, together
from coexec.processors.opencl.executable import (
    ARGUMENT,
    CONSTANT,
    PREPARE,
    PREPARED,
    CopyStep,
    KernelStep,
    Label,
    Slot,
    Step,
)
from coexec.processors.opencl.family import KernelCall, Lowering, Operand, Scalar, ceil_to
from coexec.processors.opencl.fusion.operators import definition, title
from coexec.processors.opencl.paging import as_copy, page_steps
from coexec.processors.opencl.preparation import Prepared
from coexec.processors.opencl.sources import program_text
from coexec.processors.opencl.storage import ArenaUse, Storage


@dataclass
class Emitter:
    """Turns kernel calls into steps with resolved slots and shared programs.

    Kernels move pages in vectors of ``page_vector`` bytes; 0: they are moved beside kernels. Groups
    of ``copy_items`` work-items copy small outputs.
    """

    region: Region
    storage: Storage
    alignment: int
    page_vector: int = 0
    copy_items: int = 1
    steps: list[Step] = field(default_factory=list)
    preparation: list[KernelStep] = field(default_factory=list)
    prepared_bytes: int = 0
    programs: dict[str, str] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)

    def node(self, index: int, node: RegionNode, parts: Prepared) -> None:
        """The steps of a node, and what prepares its constants."""
        blocks = [self._prepared_block(nbytes) for nbytes in parts.blocks]
        once = replace(parts.lowering, calls=parts.once)
        for label, call in zip(_labels(node, once, ArenaUse()), parts.once, strict=True):
            first = replace(label, phase=PREPARE)
            self.preparation += self._kernel(index, node, call, first, blocks)
        labels = _labels(node, parts.lowering, self.storage.uses[index])
        for label, call in zip(labels, parts.lowering.calls, strict=True):
            self.steps += self._kernel(index, node, call, label, blocks)

    def transfers(self, index: int, node: RegionNode) -> None:
        """What a node that takes no kernel moves off the device or back, or waits for."""
        nbytes = self.region.types[node.outputs[0]].nbytes
        live = self.storage.uses[index].live
        steps = page_steps(node, self.storage.paged, self._place, nbytes, live)
        if not self.page_vector:
            self.steps += steps
            return
        for step in (each for each in steps if each.tensor is not None):
            copy = as_copy(step)
            self.steps.append(by_kernel(copy, self.page_vector, self.program))

    def _place(self, name: str) -> Slot:
        return self._use(self.storage.slot(name))

    def _kernel(
        self, index: int, node: RegionNode, call: KernelCall, label: Label, blocks: list[Slot]
    ) -> list[KernelStep]:
        """The step of a kernel; none where it has no work-items."""
        if prod(call.global_size) == 0:
            return []
        args: list[Slot | Scalar] = []
        for arg in call.args:
            if isinstance(arg, Scalar):
                args.append(arg)
            elif arg.kind == "prepared":
                args.append(blocks[arg.index])
            else:
                args.append(self._slot(index, node, arg))
        program = self.program(call)
        return [
            KernelStep(program, call.entry, tuple(args), call.global_size, call.local_size, label)
        ]

    def _prepared_block(self, nbytes: int) -> Slot:
        """Memory behind what other nodes have prepared."""
        start = ceil_to(self.prepared_bytes, self.alignment)
        self.prepared_bytes = start + nbytes
        return Slot(PREPARED, offset=start, nbytes=nbytes)

    def copies(self) -> list[CopyStep]:
        """Outputs that are views of arguments or constants, and states not updated in place."""
        found: list[CopyStep] = []
        producers = {name: node for node in self.region.nodes for name in node.outputs}
        for name in self.storage.copied:
            nbytes = self.region.types[name].nbytes
            if nbytes == 0:
                continue
            src = self._use(self.storage.slot(name))
            dst = Slot(
                ARGUMENT, len(self.storage.inputs) + self.storage.outputs.index(name), nbytes=0
            )
            provenance = producers[name].provenance if name in producers else {}
            label = Label(
                f"copy {name}",
                "copy",
                phase=provenance.get("phase", ""),
                bytes=2 * nbytes,
                source=provenance.get("source", ""),
            )
            found.append(CopyStep(dst, src, nbytes, label))
        return found

    def copies_together(self) -> list[Step]:
        """The same in fewer steps, unless one of them may read what another writes."""
        states = set(self.region.aliases.values())
        if not states.isdisjoint(self.storage.copied.values()):
            return [*self.copies()]
        return together(self.copies(), self.program, self.copy_items)

    def _slot(self, index: int, node: RegionNode, operand: Operand) -> Slot:
        if operand.kind == "scratch":
            return self.storage.scratch[index, operand.index]
        names = node.inputs if operand.kind == "input" else node.outputs
        return self._use(self.storage.slot(names[operand.index]))

    def _use(self, slot: Slot) -> Slot:
        if slot.kind == CONSTANT:
            self.constants.add(slot.name)
        return slot

    def program(self, call: KernelCall) -> int:
        """Number of the program that a call needs."""
        text = program_text(call)
        self.programs.setdefault(text, call.family)
        return list(self.programs).index(text)


def _labels(node: RegionNode, lowering: Lowering, use: ArenaUse) -> list[Label]:
    """One label per kernel; the operator's work goes to its last kernel unless kernels say more."""
    work = definition(node.call).work(node.call)
    stated = any(call.flop or call.bytes for call in lowering.calls)
    labels = []
    for number, call in enumerate(lowering.calls):
        last = number == len(lowering.calls) - 1
        own = stated or call.layout or call.prepares
        labels.append(
            Label(
                name=node.call.name or node.call.identifier,
                operator=f"{title(node.call)}.{call.entry}",
                phase=node.provenance.get("phase", ""),
                flop=call.flop if own else work.flop * last,
                bytes=call.bytes if own else work.bytes * last,
                layout=call.layout,
                source=node.provenance.get("source", ""),
                dtype=compute_dtype(node.call),
                items=prod(call.global_size),
                live=use.live,
                choice=lowering.choice,
                gradients=use.gradients,
                workspace=use.workspace,
                meets=call.meets,
            )
        )
    return labels
