"""From a region to kernels over one arena: choose variants, plan storage, resolve arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from itertools import accumulate
from math import prod

import numpy as np

from coexec.core.arena import Lifetime, plan_arena
from coexec.core.types import OpCall, Region, RegionNode, compute_dtype
from coexec.processors.opencl.choose import Chooser, by_default, named
from coexec.processors.opencl.copies import together
from coexec.processors.opencl.executable import (
    ARENA,
    ARGUMENT,
    CONSTANT,
    PREPARE,
    PREPARED,
    CopyStep,
    KernelStep,
    Label,
    OpenCLExecutable,
    ProgramSource,
    Slot,
    Step,
)
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    Scalar,
    ceil_to,
)
from coexec.processors.opencl.fusion.finished import FINISHED
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.fusion.operators import definition, in_place_pairs, title
from coexec.processors.opencl.kernels.epilogue import lower_finished
from coexec.processors.opencl.preparation import Prepared, divide
from coexec.processors.opencl.table import KERNELS

INCLUDE = re.compile(r'^#include "(\w+)\.cl"$', re.MULTILINE)
PRAGMAS = {
    "half": "#pragma OPENCL EXTENSION cl_khr_fp16 : enable",
    "double": "#pragma OPENCL EXTENSION cl_khr_fp64 : enable",
}


def lower_node(
    node: RegionNode, facts: DeviceFacts, choose: str | Chooser | None = None
) -> Lowering:
    """The kernels of one node: by default, by the variant named, or as a chooser decides."""
    chooser = named(choose) if isinstance(choose, str) else choose or by_default

    def lower(call: OpCall) -> Lowering:
        return chooser(KERNELS[call.identifier], call, facts).lower(call, facts)

    if node.call.identifier == FINISHED.identifier:
        return lower_finished(node.call, lower)
    return lower(node.call)


def compile_region(
    region: Region,
    facts: DeviceFacts,
    processor: str,
    choose: str | Chooser | None = None,
    fusing: bool = True,
) -> OpenCLExecutable:
    """Compile ``region``; ``choose`` forces a kernel variant by name or decides for each call.

    Nodes are fused unless a variant is forced, or ``fusing`` forbids it.
    """
    fusing = fusing and not isinstance(choose, str)
    if fusing:
        region = fuse(region, facts)
    lowerings = [
        None if definition(node.call).view else lower_node(node, facts, choose)
        for node in region.nodes
    ]
    prepared = [
        None if lowering is None else divide(lowering, constant_inputs(region, node))
        for node, lowering in zip(region.nodes, lowerings, strict=True)
    ]
    storage = Storage.plan(
        region, [None if p is None else p.lowering for p in prepared], facts.alignment
    )
    emitter = Emitter(region, storage, facts.alignment)
    for index, parts in enumerate(prepared):
        if parts is not None:
            emitter.node(index, region.nodes[index], parts)
    emitter.steps += emitter.copies_together() if fusing else emitter.copies()
    return OpenCLExecutable(
        processor=processor,
        inputs=region.inputs,
        outputs=region.outputs,
        scratch_bytes=storage.arena_bytes,
        naive_bytes=storage.naive_bytes,
        programs=tuple(ProgramSource(family, text) for text, family in emitter.programs.items()),
        steps=tuple(emitter.steps),
        constants={
            name: np.ascontiguousarray(region.constants[name]) for name in sorted(emitter.constants)
        },
        preparation=tuple(emitter.preparation),
        prepared_bytes=emitter.prepared_bytes,
    )


def constant_inputs(region: Region, node: RegionNode) -> frozenset[int]:
    """Numbers of the operands of a node that are constants of its region."""
    return frozenset(i for i, name in enumerate(node.inputs) if name in region.constants)


@dataclass
class Storage:
    """Where every tensor of a region lives.

    Tensors that share storage (views, updates in place) have one *root*. A root that is an
    argument or a constant stays there; all others get a place in the arena for their lifetime.
    """

    region: Region
    roots: dict[str, str] = field(default_factory=dict)
    places: dict[str, Slot] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)
    scratch: dict[tuple[int, int], Slot] = field(default_factory=dict)
    live: list[int] = field(default_factory=list)
    arena_bytes: int = 0
    naive_bytes: int = 0

    @classmethod
    def plan(cls, region: Region, lowerings: list[Lowering | None], alignment: int) -> Storage:
        storage = cls(region)
        storage._place_arguments()
        storage._find_roots(lowerings)
        storage._place_outputs()
        storage._plan_arena(lowerings, alignment)
        return storage

    def slot(self, name: str) -> Slot:
        return self.places[self.roots[name]]

    def _place_arguments(self) -> None:
        for index, name in enumerate(self.region.inputs):
            self.roots[name] = name
            self.places[name] = Slot(ARGUMENT, index)
        for name in self.region.constants:
            if name not in self.roots:
                self.roots[name] = name
                self.places[name] = Slot(CONSTANT, name=name)

    def _find_roots(self, lowerings: list[Lowering | None]) -> None:
        """Views share the storage of what they view; legal updates share that of their input."""
        last_use = self._last_uses()
        for index, node in enumerate(self.region.nodes):
            if lowerings[index] is None:
                self.roots[node.outputs[0]] = self.roots[node.inputs[0]]
                continue
            for position, name in enumerate(node.outputs):
                if name:
                    self.roots[name] = self._shared_root(node, index, position, last_use) or name

    def _shared_root(
        self, node: RegionNode, index: int, position: int, last_use: Mapping[str, int]
    ) -> str | None:
        """Root that output ``position`` may overwrite, or ``None``."""
        name = node.outputs[position]
        state = self.region.aliases.get(name)
        for output, operand in in_place_pairs(node.call):
            if output != position or operand >= len(node.inputs) or not node.inputs[operand]:
                continue
            source = node.inputs[operand]
            if self.region.types[source] != self.region.types[name]:
                continue
            root = self.roots[source]
            if state is not None:
                # A state tensor is updated where it lives: readers of the old value came before.
                if root == state:
                    return root
                continue
            dies_here = last_use[root] == index and root not in self.places
            if (
                dies_here
                and not self._is_output_root(root)
                and not self._read_twice(node, root)
                and not self._taken(node, position, root)
            ):
                return root
        return None

    def _taken(self, node: RegionNode, position: int, root: str) -> bool:
        """Whether an earlier output of the node has taken over a root."""
        return any(name and self.roots[name] == root for name in node.outputs[:position])

    def _read_twice(self, node: RegionNode, root: str) -> bool:
        """Whether a node reads a root through two operands (one may be broadcast: not in place)."""
        return sum(bool(n) and self.roots[n] == root for n in node.inputs) > 1

    def _is_output_root(self, root: str) -> bool:
        return any(self.roots.get(name) == root for name in self.region.outputs)

    def _last_uses(self) -> dict[str, int]:
        """Index of the last node that reads each root, by the roots that views alone imply."""
        view_roots: dict[str, str] = {}
        last: dict[str, int] = {}
        for index, node in enumerate(self.region.nodes):
            for name in filter(None, node.inputs):
                last[view_roots.get(name, name)] = index
            if definition(node.call).view:
                source = node.inputs[0]
                view_roots[node.outputs[0]] = view_roots.get(source, source)
        for name in self.region.outputs:
            last[view_roots.get(name, name)] = len(self.region.nodes)
        return _Default(last, len(self.region.nodes))

    def _place_outputs(self) -> None:
        """An output lives in its argument; one whose root lives elsewhere is copied at the end."""
        base = len(self.region.inputs)
        for index, name in enumerate(self.region.outputs):
            root = self.roots[name]
            state = self.region.aliases.get(name)
            if state is not None and self.roots[state] == root:
                continue
            if root in self.places or state is not None:
                self.copied[name] = root
            else:
                self.places[root] = Slot(ARGUMENT, base + index)

    def _plan_arena(self, lowerings: list[Lowering | None], alignment: int) -> None:
        lifetimes: dict[str, Lifetime] = {}
        end = len(self.region.nodes)
        for index, node in enumerate(self.region.nodes):
            for name in filter(None, (*node.inputs, *node.outputs)):
                self._extend(lifetimes, name, index)
        for name in self.copied:
            self._extend(lifetimes, name, end)
        blocks: dict[str, Lifetime] = dict(lifetimes)
        for index, lowering in enumerate(lowerings):
            for number, nbytes in enumerate(lowering.scratch if lowering else ()):
                blocks[_scratch_name(index, number)] = Lifetime(nbytes, index, index)
        plan = plan_arena(blocks, alignment)
        self.arena_bytes, self.naive_bytes = plan.nbytes, plan.naive_bytes
        self.live = _live_bytes(blocks.values(), end)
        for name, block in blocks.items():
            slot = Slot(ARENA, offset=plan.offsets[name], nbytes=block.nbytes)
            if name.startswith("#") and name not in lifetimes:
                self.scratch[_scratch_key(name)] = slot
            else:
                self.places[name] = slot

    def _extend(self, lifetimes: dict[str, Lifetime], name: str, index: int) -> None:
        root = self.roots[name]
        if root in self.places:
            return
        nbytes = self.region.types[name].nbytes
        old = lifetimes.get(root)
        lifetimes[root] = (
            Lifetime(max(old.nbytes, nbytes), old.first, index)
            if old
            else Lifetime(nbytes, index, index)
        )


def _live_bytes(blocks: Iterable[Lifetime], nodes: int) -> list[int]:
    """Bytes in use while each node runs."""
    changes = [0] * (nodes + 2)
    for block in blocks:
        changes[block.first] += block.nbytes
        changes[block.last + 1] -= block.nbytes
    return list(accumulate(changes[:nodes]))


def _scratch_name(node: int, number: int) -> str:
    return f"#{node}.{number}"


def _scratch_key(name: str) -> tuple[int, int]:
    node, number = name[1:].split(".")
    return int(node), int(number)


class _Default(dict[str, int]):
    """A mapping with a default for names that nothing reads."""

    def __init__(self, known: Mapping[str, int], default: int) -> None:
        super().__init__(known)
        self._default = default

    def __missing__(self, key: str) -> int:
        return self._default


@dataclass
class Emitter:
    """Turns kernel calls into steps with resolved slots and shared programs."""

    region: Region
    storage: Storage
    alignment: int
    steps: list[Step] = field(default_factory=list)
    preparation: list[KernelStep] = field(default_factory=list)
    prepared_bytes: int = 0
    programs: dict[str, str] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)

    def node(self, index: int, node: RegionNode, parts: Prepared) -> None:
        """The steps of a node, and what prepares its constants."""
        blocks = [self._prepared_block(nbytes) for nbytes in parts.blocks]
        once = replace(parts.lowering, calls=parts.once)
        for label, call in zip(_labels(node, once, 0), parts.once, strict=True):
            first = replace(label, phase=PREPARE)
            self.preparation += self._kernel(index, node, call, first, blocks)
        labels = _labels(node, parts.lowering, self.storage.live[index])
        for label, call in zip(labels, parts.lowering.calls, strict=True):
            self.steps += self._kernel(index, node, call, label, blocks)

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
                ARGUMENT, len(self.region.inputs) + self.region.outputs.index(name), nbytes=0
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
        return together(self.copies(), self.program)

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


def program_text(call: KernelCall) -> str:
    """Defines in front of the family's source."""
    defines = [f"#define {name} {value}" for name, value in sorted(call.defines.items())]
    values = " ".join(map(str, call.defines.values()))
    pragmas = [pragma for word, pragma in PRAGMAS.items() if word in values]
    return "\n".join((*pragmas, *defines, kernel_source(call.family)))


@cache
def kernel_source(family: str) -> str:
    """Text of ``kernels/<family>.cl`` with the files that it includes in their places.

    Drivers cannot be told of a folder inside a package, and a bundle has no folder at all.
    """
    package = resources.files("coexec.processors.opencl.kernels")
    text = (package / f"{family}.cl").read_text()
    return INCLUDE.sub(lambda match: kernel_source(match.group(1)), text)


def _labels(node: RegionNode, lowering: Lowering, live: int) -> list[Label]:
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
                live=live,
                choice=lowering.choice,
            )
        )
    return labels
