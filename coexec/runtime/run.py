"""One run of a program: its instructions in order, with the tensors of the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from coexec.base.array_parts import part_of
from coexec.core.events import COPY, DISPATCH, FREE, HOST, SYNC, Event, Trace
from coexec.core.processor import Buffer, Executable, Runner, Ticket
from coexec.core.program import Free, Instruction, Launch, Program, Read, Wait, Write
from coexec.core.types import Array
from coexec.runtime.results import Results

Gate = Callable[[Mapping[str, Array]], None]
Submit = Callable[[], Ticket]


@dataclass(frozen=True)
class Binding:
    """A program with the processors and the memory that it runs on.

    ``now`` is their clock in nanoseconds: the host's, or that of a simulation. ``memory`` is that
    of the host (bytes) which buffers of several processors lie over, ``left`` are those of outputs
    that stay there until all have ended; ``results`` is the memory of outputs.
    """

    program: Program
    runners: Mapping[str, Runner]
    buffers: Mapping[str, Buffer]
    processor_of: Mapping[str, str]
    now: Callable[[], int] = time.perf_counter_ns
    memory: Mapping[str, Array] = field(default_factory=dict)
    left: frozenset[str] = frozenset()
    results: Results = field(default_factory=Results)
    _views: dict[tuple[str, str], Array] = field(default_factory=dict)
    _again: dict[int, tuple[Runner, Submit]] = field(init=False, default_factory=dict)

    def runner(self, buffer: str) -> Runner:
        """The processor that has a buffer."""
        return self.runners[self.processor_of[buffer]]

    def launcher(self, step: Launch) -> tuple[Runner, Submit]:
        """The processor of a region and what submits it there, the same in each run if it can be.

        Instructions are objects of their own, which live as long as the program.
        """
        known = self._again.get(id(step))
        if known is not None:
            return known
        executable, buffers = self.region(step)
        runner = self.runners[executable.processor]
        again = runner.again(executable, buffers)
        if again is None:
            return runner, partial(runner.submit, executable, buffers, ())
        self._again[id(step)] = runner, again
        return runner, again

    def region(self, step: Launch) -> tuple[Executable, list[Buffer]]:
        """What is launched, and on which buffers."""
        executable = self.program.executables[step.executable]
        return executable, [self.buffers[name] for name in step.buffers]

    def in_place(self, tensor: str, buffer: str) -> Array:
        """A tensor in the memory of the host that its buffer lies over, the same array each run."""
        key = (tensor, buffer)
        if key not in self._views:
            kind = self.program.types[tensor]
            memory = self.memory[buffer][: kind.nbytes]
            self._views[key] = memory.view(kind.dtype).reshape(kind.shape)
        return self._views[key]

    def whole(self, buffer: str, like: Array) -> Array:
        """All that a buffer in memory of the host has of a tensor, of the shape of ``like``."""
        return self.memory[buffer][: like.nbytes].view(like.dtype).reshape(like.shape)

    def placed(
        self, feeds: Mapping[str, Array], recorder: Recorder | None = None
    ) -> dict[str, Array]:
        """Inputs that processors read in memory of the host, copied there; others as is.

        Nothing that was handed over may still read it: runs on common memory end with that.
        """
        found = dict(feeds)
        for step, place in self._placed_inputs:
            start = self.now()
            np.copyto(place, part_of(feeds[step.tensor], step.part))
            if not step.part:
                found[step.tensor] = place
            if recorder is not None:
                recorder.copied(f"write {step.tensor}", place.nbytes, start)
        return found

    def has_part(self, step: Write) -> bool:
        """Whether a part of an input was placed in the memory that its buffer lies over."""
        return bool(step.part) and step.buffer in self.memory

    @cached_property
    def _placed_inputs(self) -> list[tuple[Write, Array]]:
        """Inputs with the memory that they are copied to: whole ones once, parts by reader."""
        found: dict[tuple[str, str], Write] = {}
        for step in self.program.instructions:
            if not isinstance(step, Write) or step.tensor not in self.program.inputs:
                continue
            if step.buffer in self.memory:
                found[step.tensor, step.buffer if step.part else ""] = step
        return [(step, self._place(step)) for step in found.values()]

    def _place(self, step: Write) -> Array:
        """The memory below a buffer, as what is written there."""
        kind = self.program.types[step.tensor]
        if not step.part:
            return self.in_place(step.tensor, step.buffer)
        axis, start, stop = step.part
        part = kind.with_shape((*kind.shape[:axis], stop - start, *kind.shape[axis + 1 :]))
        return self.memory[step.buffer][: part.nbytes].view(part.dtype).reshape(part.shape)

    def is_in_place(self, buffer: str, array: Array) -> bool:
        """Whether an array is the memory that a buffer lies over."""
        return buffer in self.memory and self.buffers[buffer].lies_over(array)


class Recorder:
    """Notes what a run starts and waits for (``events``), and asks afterwards when it ran.

    ``host`` is whether the times of the thread itself belong on the host's track, too.
    """

    def __init__(self, host: bool = True, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self.host = host
        self.now = now
        self.events: list[Event] = []
        self.tickets: list[tuple[Runner, Ticket]] = []

    def started(self, name: str, start: int, runner: Runner, ticket: Ticket) -> None:
        """Work was handed over, which took from ``start`` until now."""
        self.tickets.append((runner, ticket))
        self._note(name, DISPATCH, start)

    def waited(self, start: int) -> None:
        """The thread was blocked from ``start`` until now."""
        self._note("wait", SYNC, start)

    def copied(self, name: str, nbytes: int, start: int) -> None:
        """The thread copied a tensor from ``start`` until now."""
        event = Event(name, COPY, HOST, start, self.now(), bytes=nbytes)
        self.events.append(event)

    def freed(self, buffer: str, processor: str) -> None:
        """The contents of a buffer are dead."""
        now = self.now()
        self.events.append(Event(buffer, FREE, processor, now, now))

    def collect(self, trace: Trace) -> None:
        """Add what processors did to a trace, after the run: asking earlier would disturb it."""
        trace.events.extend(runner.wait(ticket) for runner, ticket in self.tickets)

    def _note(self, name: str, kind: str, start: int) -> None:
        if self.host:
            self.events.append(Event(name, kind, HOST, start, self.now()))


class Run:
    """One run of a program: the host's tensors and the work under way.

    With a ``recorder``, all work is waited for at the end, whatever was wanted.
    """

    def __init__(
        self,
        binding: Binding,
        feeds: Mapping[str, Array],
        wanted: set[str],
        gate: Gate | None,
        recorder: Recorder | None = None,
    ) -> None:
        self.binding = binding
        self.program = binding.program
        self.host: dict[str, Array] = dict(feeds)
        self.wanted = wanted
        self.gate = gate
        self.recorder = recorder
        # Tensors that come in parts, perhaps from several processors.
        self.whole: dict[str, Array] = {}
        # With what was started before on the same processor, if anything.
        self.reads: list[tuple[Runner, Ticket, Ticket | None]] = []
        self.last: dict[Runner, Ticket] = {}

    def all(self) -> dict[str, Array]:
        """Every instruction in order; returns the outputs that are wanted."""
        self.follow(self.program.instructions)
        self.finish()
        return {name: self.host[name] for name in self.program.outputs if name in self.wanted}

    def follow(self, steps: Iterable[Instruction]) -> None:
        """Start what the instructions say, in order."""
        for step in steps:
            match step:
                case Launch():
                    self.launch(step)
                case Write():
                    self.write(step)
                case Read():
                    if step.tensor in self.wanted or step.tensor not in self.program.outputs:
                        self.read(step)
                case Wait():
                    self.pause(step)
                case Free():
                    if self.recorder is not None:
                        self.recorder.freed(step.buffer, self.binding.processor_of[step.buffer])

    def launch(self, step: Launch) -> None:
        """Submit a region."""
        start = self.binding.now()
        runner, submit = self.binding.launcher(step)
        ticket = submit()
        self.last[runner] = ticket
        self._started("submit", start, runner, ticket)

    def write(self, step: Write) -> None:
        """Start a copy from the host, where it was not made before the run."""
        if self.binding.has_part(step):
            return
        start = self.binding.now()
        runner = self.binding.runner(step.buffer)
        array = self.host[step.tensor]
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        array = part_of(array, step.part)
        ticket = runner.copy(self.binding.buffers[step.buffer], array, ())
        self.last[runner] = ticket
        self._started(f"write {step.tensor}", start, runner, ticket)

    def read(self, step: Read) -> tuple[Runner, Ticket]:
        """Start a copy to the host; a tensor on its way may stay where it is, results may not."""
        start = self.binding.now()
        runner = self.binding.runner(step.buffer)
        if step.buffer in self.binding.memory and step.tensor not in self.program.outputs:
            self.host[step.tensor] = self.binding.in_place(step.tensor, step.buffer)
        else:
            self.host[step.tensor] = self._room(step)
        target = part_of(self.host[step.tensor], step.part)
        ticket = runner.copy(target, self.binding.buffers[step.buffer], ())
        self.reads.append((runner, ticket, self.last.get(runner)))
        self._started(f"read {step.tensor}", start, runner, ticket)
        return runner, ticket

    def _room(self, step: Read) -> Array:
        """Memory for a tensor; one that comes in parts has the same for all of them."""
        if step.part and step.tensor in self.whole:
            return self.whole[step.tensor]
        kind = self.program.types[step.tensor]
        wanted = step.tensor in self.wanted
        room = self.binding.results.room(kind) if wanted else np.empty(kind.shape, kind.dtype)
        return self.whole.setdefault(step.tensor, room) if step.part else room

    def pause(self, step: Wait) -> None:
        """Wait, and let the caller look at what was read."""
        self.settle(step.launches)
        if step.gate and self.gate is not None:
            self.gate(self.host)

    def settle(self, launches: bool) -> None:
        """Wait for all reads so far, or for all work."""
        start = self.binding.now()
        over: dict[Runner, Ticket] = {}
        for runner, ticket, before in self.reads:
            self.over(runner, ticket)
            # An in-order queue has finished all that came before, but only its ticket says how.
            if before is not None and over.get(runner) is not before:
                self.over(runner, before)
                over[runner] = before
        for runner, before in over.items():
            if self.last.get(runner) is before:
                del self.last[runner]
        self.reads.clear()
        if launches:
            self.drain()
        self._waited(start)

    def finish(self) -> None:
        """Wait for what was wanted; work that nobody waits for goes on while the caller does.

        Not where processors share memory: the next run would write what this one still reads.
        """
        if self.wanted or self.recorder is not None or self.binding.memory:
            start = self.binding.now()
            self.drain()
            self._waited(start)

    def drain(self) -> None:
        """Wait for what was started last on each processor."""
        for runner, ticket in self.last.items():
            self.over(runner, ticket)
        self.last.clear()

    def over(self, runner: Runner, ticket: Ticket) -> None:
        """Wait for a ticket."""
        runner.finish(ticket)

    def _started(self, name: str, start: int, runner: Runner, ticket: Ticket) -> None:
        if self.recorder is not None:
            self.recorder.started(name, start, runner, ticket)

    def _waited(self, start: int) -> None:
        if self.recorder is not None:
            self.recorder.waited(start)
