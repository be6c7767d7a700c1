"""What a program's processors may do at the same time, found out without running it.

Each processor works through its own instructions in order; it waits for tensors that others tell of
and, within kernels, for those that it meets. Two accesses to one piece of memory, one of which
writes, must have such a chain of telling between them, whatever takes how long. Sources: Lamport,
"Time, Clocks, and the Ordering of Events in a Distributed System", 1978 (what happened before);
Mattern, "Virtual Time and Global States of Distributed Systems", 1989 (vectors of clocks).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coexec.core.program import SCRATCH, Instruction, Launch, Program, Read, Wait, Write
from coexec.core.types import Region
from coexec.ops.batch_norm_joint import PLACES
from coexec.processors.reference.processor import ReferenceExecutable
from coexec.runtime.lanes import lanes_of

BACK, STAGED = "#back ", "#staged"
FED = "#fed"
"""What a buffer has that was written from an input, maybe a part of one."""


class Circle(AssertionError):
    """Processors wait for each other, and none of them goes on."""


class Race(AssertionError):
    """Nothing says which of two accesses to the same memory comes first."""


class Stale(AssertionError):
    """A tensor is read where another one is."""


@dataclass(frozen=True)
class Meet:
    """A processor waits within a kernel for all others that come to the same words."""

    offset: int


Event = Instruction | Meet


class Place(NamedTuple):
    """Bytes of a block of memory; of what is no arena, all."""

    block: str
    begin: int = 0
    end: int = 0

    def overlaps(self, other: Place) -> bool:
        return self.block == other.block and self.begin < other.end and other.begin < self.end


@dataclass
class Memory:
    """What is in a piece of memory, who wrote it and who has read it since (processor, when)."""

    content: str = ""
    written: tuple[str, int] = ("", 0)
    read: list[tuple[str, int]] = field(default_factory=list)


def check_course(program: Program, state: Mapping[str, str]) -> None:
    """All comes to an end, no memory is written too early, and each state is the new one then.

    ``program`` is one of the reference's executables; ``state`` maps new states to the old ones.

    Raises:
        Circle, Race, Stale: what is wrong.
    """
    _Course(program).run(state)


def events_of(program: Program, steps: Sequence[Instruction]) -> Iterator[Event]:
    """What a processor does and waits for, in order."""
    for step in steps:
        yield step
        if isinstance(step, Launch):
            for node in _region(program, step).nodes:
                if node.call.op_type in PLACES:
                    yield Meet(int(node.call.attributes["offset"]))


class _Course:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.lanes = {n: events_of(program, steps) for n, steps in lanes_of(program).items()}
        self.next = {name: next(events, None) for name, events in self.lanes.items()}
        # Of each processor: how far it and others are for certain.
        self.clock = {name: Counter[str]() for name in self.lanes}
        self.told: dict[str, Counter[str]] = {}
        self.source: dict[str, Place] = {}
        self.here: dict[int, set[str]] = {}
        self.place = _places(program)
        self.memory = {place: Memory() for place in self.place.values()}
        self.others = {
            place: [other for other in self.memory if other != place and other.overlaps(place)]
            for place in self.memory
        }
        for name in program.state:
            self.memory[self.place[name]].content = name

    def run(self, state: Mapping[str, str]) -> None:
        while any(event is not None for event in self.next.values()):
            moved = [self._goes_on(name) for name in self.lanes]
            if not any(moved) and not self._passes_gate():
                raise Circle(f"all wait: {self.next}")
        for new, old in state.items():
            if new != old:
                self._holds(old, new)

    def _passes_gate(self) -> bool:
        if any(event is not None and not _is_gate(event) for event in self.next.values()):
            return False
        for name, events in self.lanes.items():
            self.next[name] = next(events, None)
        return True

    def _goes_on(self, name: str) -> bool:
        """Do what a processor can do by itself; whether that was anything."""
        count = 0
        while (event := self.next[name]) is not None and self._does(name, event):
            self.next[name] = next(self.lanes[name], None)
            count += 1
        return count > 0

    def _does(self, name: str, event: Event) -> bool:
        self.clock[name][name] += 1
        match event:
            case Meet():
                there = self.here.setdefault(event.offset, set())
                there.add(name)
                return len(there) == len(self.lanes)
            case Launch():
                self._launch(name, event)
            case Read():
                self._read(name, event)
            case Write():
                return self._write(name, event)
            case _:
                return not _is_gate(event)
        return True

    def _launch(self, name: str, step: Launch) -> None:
        executable = self.program.executables[step.executable]
        types = _region(self.program, step).types
        sizes = {spec.name: spec.nbytes for spec in self.program.buffers}
        for tensor, buffer in zip(executable.arguments, step.buffers, strict=True):
            assert types[tensor].nbytes <= sizes[buffer], f"{tensor} does not fit into {buffer}"
        reads = len(executable.inputs)
        for tensor, buffer in zip(executable.inputs, step.buffers, strict=False):
            self._reads(name, buffer)
            self._holds(buffer, tensor)
        for tensor, buffer in zip(executable.outputs, step.buffers[reads:], strict=True):
            self._writes(name, buffer, tensor)

    def _read(self, name: str, step: Read) -> None:
        self.told[step.tensor] = self.clock[name].copy()
        self.source[step.tensor] = self.place[step.buffer]
        if BACK in step.tensor:
            return
        self._reads(name, step.buffer)
        if not step.part:
            self._holds(step.buffer, step.tensor.removesuffix(STAGED))

    def _write(self, name: str, step: Write) -> bool:
        """A tensor comes; in common memory it is there already."""
        if step.tensor in self.program.inputs:
            self._feed(step)
            return True
        if step.tensor not in self.told:
            return False
        self.clock[name] |= self.told[step.tensor]
        if self.source[step.tensor] != self.place[step.buffer]:
            assert BACK not in step.tensor, f"{step.tensor} would be copied"
            self._writes(name, step.buffer, step.tensor.removesuffix(STAGED))
        return True

    def _feed(self, step: Write) -> None:
        """Inputs in common memory are there before the run; others, nobody else writes or reads."""
        memory, fed = self.memory[self.place[step.buffer]], f"{FED} {step.tensor} {step.part}"
        if memory.content not in {"", fed}:
            raise Stale(f"{step.buffer} has {memory.content!r} when {step.tensor!r} comes")
        memory.content = fed

    def _reads(self, name: str, buffer: str) -> None:
        memory = self.memory[self.place[buffer]]
        self._follows(name, memory.written, buffer)
        memory.read.append((name, self.clock[name][name]))

    def _writes(self, name: str, buffer: str, tensor: str) -> None:
        memory = self.memory[self.place[buffer]]
        for access in (memory.written, *memory.read):
            self._follows(name, access, buffer)
        for other in (self.memory[place] for place in self.others[self.place[buffer]]):
            for access in (other.written, *other.read):
                self._follows(name, access, buffer)
            other.content = f"{tensor} there"
        memory.content, memory.written, memory.read = tensor, (name, self.clock[name][name]), []

    def _follows(self, name: str, access: tuple[str, int], buffer: str) -> None:
        other, when = access
        if self.clock[name][other] < when:
            raise Race(f"{name} has {buffer} before {other} is done with it")

    def _holds(self, buffer: str, tensor: str) -> None:
        found = self.memory[self.place[buffer]].content
        if found != tensor and not found.startswith(FED):
            raise Stale(f"{buffer} has {found!r}, not {tensor!r}")


def _places(program: Program) -> dict[str, Place]:
    """Where each buffer lies."""
    arenas = {spec.name for spec in program.buffers if spec.role == SCRATCH}
    return {
        spec.name: Place(spec.shares, spec.offset, spec.offset + spec.nbytes)
        if spec.shares in arenas
        else Place(spec.shares or spec.name)
        for spec in program.buffers
    }


def _is_gate(event: Event) -> bool:
    return isinstance(event, Wait) and event.gate


def _region(program: Program, step: Launch) -> Region:
    executable = program.executables[step.executable]
    assert isinstance(executable, ReferenceExecutable)
    return executable.region
