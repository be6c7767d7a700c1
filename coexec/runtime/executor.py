"""Runs programs: buffers are allocated once, a run only copies, submits and waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from coexec.core.events import DISPATCH, FREE, HOST, RUN, SYNC, Event, Trace
from coexec.core.processor import Buffer, Runner, Ticket
from coexec.core.program import SCRATCH, STATE, Free, Launch, Program, Read, Wait, Write
from coexec.core.types import Array

Gate = Callable[[Mapping[str, Array]], None]


class Executor:
    """A program bound to processors and memory.

    ``shared`` are buffers of states (and arenas) that other executors allocated; the executor adds
    its own to :attr:`buffers`, so that programs over the same states can be chained.
    """

    def __init__(
        self,
        program: Program,
        runners: Mapping[str, Runner],
        shared: Mapping[str, Buffer] | None = None,
    ) -> None:
        self.program = program
        self.runners = runners
        self.processor_of = {spec.name: spec.processor for spec in program.buffers}
        self.buffers: dict[str, Buffer] = {}
        for spec in program.buffers:
            known = (shared or {}).get(spec.name) if spec.role in (STATE, SCRATCH) else None
            if known is None or known.nbytes < spec.nbytes:
                known = runners[spec.processor].alloc(spec.nbytes)
            self.buffers[spec.name] = known

    def run(
        self,
        feeds: Mapping[str, Array],
        fetch: Sequence[str] | None = None,
        gate: Gate | None = None,
        trace: Trace | None = None,
    ) -> dict[str, Array]:
        """Run the program once; ``feeds`` have the program's input types.

        ``fetch`` names the outputs to read (all by default). ``gate`` sees the outputs read so far
        before the program goes on; an exception from it stops the program there. With a ``trace``,
        every launch and copy is waited for and recorded, with what the host did meanwhile.
        """
        wanted = set(self.program.outputs if fetch is None else fetch)
        for runner in self.runners.values():
            runner.detailed = trace is not None
        if trace is None:
            return _Run(self, feeds, wanted, gate).all()
        start = time.perf_counter_ns()
        traced = _TracedRun(self, feeds, wanted, gate, trace)
        results = traced.all()
        trace.events.append(Event("run", RUN, HOST, start, time.perf_counter_ns()))
        traced.collect()
        return results

    def read_state(self, name: str) -> Array:
        """Current value of a state tensor."""
        kind = self.program.types[name]
        result = np.empty(kind.shape, kind.dtype)
        runner = self.runners[self.processor_of[name]]
        runner.wait(runner.copy(result, self.buffers[name], ()))
        return result

    def write_state(self, name: str, value: Array) -> None:
        """Set a state tensor."""
        kind = self.program.types[name]
        array = np.ascontiguousarray(value, kind.dtype)
        if value.shape != kind.shape:
            raise ValueError(f"state {name!r} is {kind}, not {value.shape}")
        runner = self.runners[self.processor_of[name]]
        runner.wait(runner.copy(self.buffers[name], array, ()))


class _Run:
    """One run of a program: the host's tensors and the tickets under way."""

    def __init__(
        self, executor: Executor, feeds: Mapping[str, Array], wanted: set[str], gate: Gate | None
    ) -> None:
        self.executor = executor
        self.program = executor.program
        self.host: dict[str, Array] = dict(feeds)
        self.wanted = wanted
        self.gate = gate
        self.reads: list[tuple[Runner, Ticket]] = []
        self.last: dict[Runner, Ticket] = {}

    def all(self) -> dict[str, Array]:
        """Every instruction in order; returns the outputs that are wanted."""
        for step in self.program.instructions:
            match step:
                case Launch():
                    self.launch(step)
                case Write():
                    self.write(step)
                case Read():
                    if step.tensor in self.wanted or step.tensor not in self.program.outputs:
                        self.read(step)
                case Wait():
                    self.settle(step.launches)
                    if step.gate and self.gate is not None:
                        self.gate(self.host)
                case Free():
                    self.free(step)
        self.finish()
        return {name: self.host[name] for name in self.program.outputs if name in self.wanted}

    def launch(self, step: Launch) -> Ticket:
        """Submit a region."""
        executable = self.program.executables[step.executable]
        runner = self.executor.runners[executable.processor]
        buffers = [self.executor.buffers[name] for name in step.buffers]
        ticket = runner.submit(executable, buffers, ())
        self.last[runner] = ticket
        return ticket

    def write(self, step: Write) -> Ticket:
        """Start a copy from the host."""
        runner = self._runner(step.buffer)
        source = self.host[step.tensor]
        array = np.ascontiguousarray(source).reshape(source.shape)
        ticket = runner.copy(self.executor.buffers[step.buffer], array, ())
        self.last[runner] = ticket
        return ticket

    def read(self, step: Read) -> Ticket:
        """Start a copy to the host."""
        runner = self._runner(step.buffer)
        kind = self.program.types[step.tensor]
        self.host[step.tensor] = np.empty(kind.shape, kind.dtype)
        ticket = runner.copy(self.host[step.tensor], self.executor.buffers[step.buffer], ())
        self.reads.append((runner, ticket))
        return ticket

    def settle(self, launches: bool) -> None:
        """Wait for all reads so far, or for all work."""
        for runner, ticket in self.reads:
            self.wait(runner, ticket)
            # An in-order queue has finished all that came before.
            self.last.pop(runner, None)
        self.reads.clear()
        if launches:
            for runner, ticket in self.last.items():
                self.wait(runner, ticket)
            self.last.clear()

    def wait(self, runner: Runner, ticket: Ticket) -> None:
        """Block until some work is done."""
        runner.wait(ticket)

    def free(self, step: Free) -> None:
        """Nothing happens: the memory plan is static."""

    def finish(self) -> None:
        """Wait for what was wanted; work that nobody waits for goes on while the caller does."""
        if self.wanted:
            for runner, ticket in self.last.items():
                self.wait(runner, ticket)

    def _runner(self, buffer: str) -> Runner:
        return self.executor.runners[self.executor.processor_of[buffer]]


class _TracedRun(_Run):
    """A run that waits for everything and records it, the host's own time included."""

    def __init__(
        self,
        executor: Executor,
        feeds: Mapping[str, Array],
        wanted: set[str],
        gate: Gate | None,
        trace: Trace,
    ) -> None:
        super().__init__(executor, feeds, wanted, gate)
        self.trace = trace
        self.tickets: list[tuple[Runner, Ticket]] = []

    def launch(self, step: Launch) -> Ticket:
        start = time.perf_counter_ns()
        ticket = super().launch(step)
        executable = self.program.executables[step.executable]
        self._dispatched("submit", start, self.executor.runners[executable.processor], ticket)
        return ticket

    def write(self, step: Write) -> Ticket:
        start = time.perf_counter_ns()
        ticket = super().write(step)
        self._dispatched(f"write {step.tensor}", start, self._runner(step.buffer), ticket)
        return ticket

    def read(self, step: Read) -> Ticket:
        start = time.perf_counter_ns()
        ticket = super().read(step)
        self._dispatched(f"read {step.tensor}", start, self._runner(step.buffer), ticket)
        return ticket

    def settle(self, launches: bool) -> None:
        start = time.perf_counter_ns()
        super().settle(launches)
        self.trace.events.append(Event("wait", SYNC, HOST, start, time.perf_counter_ns()))

    def free(self, step: Free) -> None:
        now = time.perf_counter_ns()
        track = self.executor.processor_of[step.buffer]
        self.trace.events.append(Event(step.buffer, FREE, track, now, now))

    def wait(self, runner: Runner, ticket: Ticket) -> None:
        """Only that: what the parts of the work did is asked for later."""
        runner.detailed = False
        super().wait(runner, ticket)
        runner.detailed = True

    def finish(self) -> None:
        """Wait for all work, whatever was wanted."""
        start = time.perf_counter_ns()
        for runner, ticket in self.last.items():
            self.wait(runner, ticket)
        self.trace.events.append(Event("wait", SYNC, HOST, start, time.perf_counter_ns()))

    def collect(self) -> None:
        """Ask when all work ran, after the run: asking earlier would disturb it."""
        self.trace.events.extend(runner.wait(ticket) for runner, ticket in self.tickets)

    def _dispatched(self, name: str, start: int, runner: Runner, ticket: Ticket) -> None:
        now = time.perf_counter_ns()
        self.trace.events.append(Event(name, DISPATCH, HOST, start, now))
        self.tickets.append((runner, ticket))
