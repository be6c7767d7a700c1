"""What in a trace came from what: dispatches and the work they started, producers and consumers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from coexec.core.events import DISPATCH, FREE, HOST, RUN, Event, Trace
from coexec.core.program import Instruction, Launch, Program, Read, Write


@dataclass(frozen=True)
class Work:
    """One thing that the host handed over: its dispatch and what the processor made of it."""

    dispatch: Event
    event: Event

    @property
    def first(self) -> Event:
        """The first kernel of a launch, or the copy."""
        return self.event.parts[0] if self.event.parts else self.event

    @property
    def last(self) -> Event:
        """The last kernel of a launch, or the copy."""
        return self.event.parts[-1] if self.event.parts else self.event


Step = tuple[Instruction, Work]


def runs_of(trace: Trace) -> list[list[Work]]:
    """Per run, what was handed over, in order.

    The executor records the dispatches of a run, then the run, then the events of its work in the
    order of their dispatches. A run that was broken off has no events and is left out.
    """
    runs: list[list[Work]] = []
    dispatches: list[Event] = []
    waiting: list[Event] = []
    for event in trace.events:
        if event.kind == RUN:
            waiting = [one for one in dispatches if one.start_ns >= event.start_ns]
            dispatches = []
            runs.append([])
        elif event.kind == DISPATCH:
            dispatches.append(event)
        elif event.track != HOST and event.kind != FREE and waiting:
            runs[-1].append(Work(waiting.pop(0), event))
    return [works for works in runs if works]


def steps_of(works: Sequence[Work], program: Program) -> list[Step]:
    """The works of one run with their instructions; reads that nobody wanted have no work.

    Empty where ``works`` are not those of ``program``: a trace may hold runs of several.
    """
    steps: list[Step] = []
    rest = iter(works)
    work = next(rest, None)
    for instruction in program.instructions:
        if work is not None and _fits(instruction, work, program):
            steps.append((instruction, work))
            work = next(rest, None)
        elif isinstance(instruction, (Launch, Write)):
            return []
    return steps if work is None else []


def _fits(instruction: Instruction, work: Work, program: Program) -> bool:
    """Whether the executor would have recorded this instruction so."""
    match instruction:
        case Launch():
            processor = program.executables[instruction.executable].processor
            return (work.dispatch.name, work.event.track) == ("submit", processor)
        case Write():
            return work.dispatch.name == f"write {instruction.tensor}"
        case Read():
            return work.dispatch.name == f"read {instruction.tensor}"
        case _:
            return False


def tensor_flows(steps: Iterable[Step], program: Program) -> Iterator[tuple[Event, Event]]:
    """Producer and consumer of every tensor that goes from one work of a run to another."""
    makers: dict[str, Event] = {}
    for instruction, work in steps:
        consumed, produced = _touched(instruction, program)
        for name in dict.fromkeys(consumed):
            if name in makers:
                yield makers[name], work.first
        makers.update(dict.fromkeys(produced, work.last))


def _touched(instruction: Instruction, program: Program) -> tuple[list[str], list[str]]:
    """Buffers (and tensors of the host, marked as such) that are read and written."""
    match instruction:
        case Launch():
            executable = program.executables[instruction.executable]
            inputs, outputs = len(executable.inputs), len(executable.outputs)
            names = list(instruction.buffers)
            mark = f"arena of {executable.processor}: "
            return (
                names[:inputs] + [mark + name for name in executable.continued],
                names[inputs : inputs + outputs] + [mark + name for name in executable.carried],
            )
        case Write():
            return [f"host {instruction.tensor}"], [instruction.buffer]
        case Read():
            return [instruction.buffer], [f"host {instruction.tensor}"]
        case _:
            return [], []
