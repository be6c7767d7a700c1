"""Which kernels of an executable are launched together, and by which programs."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from math import prod

from coexec.processors.opencl.executable import (
    KernelStep,
    OpenCLExecutable,
    ProgramSource,
    Step,
    slots_of,
)
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.sequence import (
    MOST_BLOCKS,
    SHARES,
    Calls,
    Functions,
    blocks_of,
    calls_of,
    function_of,
    functions_of,
    may_join,
)

MOST = 16
"""Sources of a program: several programs are compiled side by side."""
ENOUGH = 8
"""Kernels of a launch that are worth no further program."""
MOST_FLOP, MOST_BYTES = 2_000_000, 1_000_000
"""Of a share of a kernel: a core computes it within 200 us, and others wait for it so long."""
MEAN_FLOP = 8_000_000
"""Of a kernel: one core takes some 100 us for it, of which a launch is a tenth or less."""
MOST_CORES = 8
"""Cores that go through a sequence together: each waits for all others between two kernels."""


@dataclass(frozen=True)
class Launch:
    """Steps from ``first`` on that are one launch, by a program of :attr:`Sequences.programs`."""

    first: int
    program: int
    calls: Calls

    @property
    def count(self) -> int:
        """How many steps."""
        return len(self.calls.starts)


@dataclass(frozen=True)
class Sequences:
    """Launches of several kernels, in their order; ``alone`` are the sources that others need."""

    programs: tuple[Functions, ...]
    launches: tuple[Launch, ...]
    alone: frozenset[int]

    def sources(self, executable: OpenCLExecutable) -> tuple[ProgramSource, ...]:
        """All programs that the executable needs then: those of sequences, then the others."""
        alone = (executable.programs[number] for number in sorted(self.alone))
        return (*(program.source for program in self.programs), *alone)


class SequencePlans:
    """Sequences of executables on one device, made once for each, if it ``joins`` kernels."""

    def __init__(self, facts: DeviceFacts, joins: bool) -> None:
        self._facts = facts
        self._joins = joins and facts.unit_kind == "cpu" and facts.compute_units <= MOST_CORES
        self._known: dict[int, Sequences] = {}

    def of(self, executable: OpenCLExecutable) -> Sequences:
        """How its steps are launched."""
        key = id(executable)
        if key not in self._known:
            self._keep(executable, self._made(executable))
        return self._known[key]

    def refuse(self, executable: OpenCLExecutable) -> None:
        """Each of its kernels is launched by itself from now on."""
        self._keep(executable, apart(executable))

    def _made(self, executable: OpenCLExecutable) -> Sequences:
        pays = self._joins and worth_joining(executable)
        return sequences_of(executable, self._facts) if pays else apart(executable)

    def _keep(self, executable: OpenCLExecutable, sequences: Sequences) -> None:
        if id(executable) not in self._known:
            weakref.finalize(executable, self._known.pop, id(executable), None)
        self._known[id(executable)] = sequences


@dataclass(frozen=True)
class _Cut:
    """Steps from ``first`` on for one launch, by the program of a group of sources."""

    first: int
    group: int
    steps: Sequence[KernelStep]


def apart(executable: OpenCLExecutable) -> Sequences:
    """Every kernel launched by itself."""
    return Sequences((), (), frozenset(range(len(executable.programs))))


def worth_joining(executable: OpenCLExecutable) -> bool:
    """Whether launches are a part of its time that pays for programs of its own.

    Training steps, which are in phases, took as long with sequences (LeNet, the sensor net).
    """
    kernels = sum(isinstance(step, KernelStep) for step in executable.steps)
    trains = any(step.label.phase for step in executable.steps)
    return not trains and sum(_flop_of_nodes(executable).values()) <= kernels * MEAN_FLOP


def sequences_of(executable: OpenCLExecutable, facts: DeviceFacts) -> Sequences:
    """Launches of an executable's steps on a device all of whose cores compute each kernel."""
    cores = facts.compute_units
    groups: list[set[int]] = []
    stretches = list(_stretches(executable, cores))
    for _, steps in stretches:
        _gather(steps, groups)
    cuts = [cut for first, steps in stretches for cut in _cuts(first, steps, groups)]
    used = sorted({cut.group for cut in cuts})
    programs = [
        _program([cut for cut in cuts if cut.group == group], executable.programs, cores)
        for group in used
    ]
    numbers = {group: number for number, group in enumerate(used)}
    launches = tuple(
        Launch(cut.first, number, calls_of(cut.steps, programs[number], cores))
        for cut in cuts
        for number in (numbers[cut.group],)
    )
    joined = {cut.first + number for cut in cuts for number in range(len(cut.steps))}
    others = [step for number, step in enumerate(executable.steps) if number not in joined]
    kernels = (s for s in (*executable.preparation, *others) if isinstance(s, KernelStep))
    return Sequences(tuple(programs), launches, frozenset(step.program for step in kernels))


def _program(cuts: Sequence[_Cut], sources: Sequence[ProgramSource], cores: int) -> Functions:
    """The program of some launches."""
    functions = dict.fromkeys(function_of(step) for cut in cuts for step in cut.steps)
    blocks = max((len(set(blocks_of(cut.steps))) for cut in cuts), default=0)
    return functions_of([*functions], sources, blocks, cores)


def _stretches(
    executable: OpenCLExecutable, cores: int
) -> Iterator[tuple[int, Sequence[KernelStep]]]:
    """Kernels one behind another that may be one launch, with the number of the first."""
    flop = _flop_of_nodes(executable)

    def joins(step: Step) -> bool:
        return (
            isinstance(step, KernelStep)
            and not step.label.meets
            and may_join(step, executable.programs[step.program])
            and _is_short(step, flop[step.label.name], cores)
        )

    place = 0
    for together, each in groupby(executable.steps, joins):
        steps = [*each]
        if together and len(steps) > 1:
            yield place, [step for step in steps if isinstance(step, KernelStep)]
        place += len(steps)


def _flop_of_nodes(executable: OpenCLExecutable) -> dict[str, int]:
    """Operations of each node, which several kernels may share."""
    flop: dict[str, int] = {}
    for step in executable.steps:
        flop[step.label.name] = max(flop.get(step.label.name, 0), step.label.flop)
    return flop


def _is_short(step: KernelStep, flop: int, cores: int) -> bool:
    """Whether a launch is much beside a step, and nobody waits long for a share of it.

    ``flop`` is what its operator computes.
    """
    if cores == 1:
        return flop <= MEAN_FLOP
    shares = min(prod(step.global_size), cores * SHARES)
    nbytes = max(step.label.bytes, sum(slot.nbytes for slot in slots_of(step)))
    return flop <= shares * MOST_FLOP and nbytes <= shares * MOST_BYTES


def _gather(steps: Sequence[KernelStep], groups: list[set[int]]) -> None:
    """Put the sources of all steps into groups: those that are there, larger ones, or new ones."""
    place = 0
    while place < len(steps):
        rest = [step.program for step in steps[place:]]
        reach = max((_reach(rest, group) for group in groups), default=0)
        if reach < min(ENOUGH, len(rest)):
            if not groups or len(groups[-1]) == MOST:
                groups.append(set())
            reach = _extend(groups[-1], rest)
        place += reach


def _extend(group: set[int], programs: Sequence[int]) -> int:
    """Add programs to a group, in their order, while it is not full; how many are there then."""
    for number in programs:
        if len(group) == MOST:
            break
        group.add(number)
    return _reach(programs, group)


def _reach(programs: Sequence[int], group: set[int]) -> int:
    return sum(1 for _ in takewhile(group.__contains__, programs))


def _cuts(first: int, steps: Sequence[KernelStep], groups: Sequence[set[int]]) -> Iterator[_Cut]:
    """Launches of all steps, each as long as its program and the blocks of memory allow."""
    place = 0
    while place < len(steps):
        rest = steps[place:]
        reach, group = max(
            (_reach([step.program for step in rest], each), -number)
            for number, each in enumerate(groups)
        )
        count = _within_blocks(rest[:reach])
        yield _Cut(first + place, -group, rest[:count])
        place += count


def _within_blocks(steps: Sequence[KernelStep]) -> int:
    """How many of the first steps need no more blocks of memory than a launch may take."""
    blocks: set[object] = set()
    for count, step in enumerate(steps):
        blocks.update(blocks_of([step]))
        if len(blocks) > MOST_BLOCKS:
            return count
    return len(steps)
