"""Runs programs: buffers are allocated once, a run only copies, submits and waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from coexec.core.events import FREE, Event, Trace
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
        self.buffers: dict[str, Buffer] = {}
        self._processor = {spec.name: spec.processor for spec in program.buffers}
        for spec in program.buffers:
            known = (shared or {}).get(spec.name) if spec.role in (STATE, SCRATCH) else None
            reusable = known is not None and known.nbytes >= spec.nbytes
            self.buffers[spec.name] = (
                known
                if known is not None and reusable
                else runners[spec.processor].alloc(spec.nbytes)
            )

    def run(
        self,
        feeds: Mapping[str, Array],
        fetch: Sequence[str] | None = None,
        gate: Gate | None = None,
        trace: Trace | None = None,
    ) -> dict[str, Array]:
        """Run the program once; ``feeds`` have the program's input types.

        ``fetch`` names the outputs to read (all by default). ``gate`` sees the outputs read so far
        before the program goes on; an exception from it stops the program there.
        """
        host: dict[str, Array] = dict(feeds)
        wanted = set(self.program.outputs if fetch is None else fetch)
        pending: list[tuple[str, Ticket]] = []
        unread: list[tuple[str, Ticket]] = []
        for runner in self.runners.values():
            runner.detailed = trace is not None
        for step in self.program.instructions:
            match step:
                case Launch():
                    executable = self.program.executables[step.executable]
                    runner = self.runners[executable.processor]
                    buffers = [self.buffers[name] for name in step.buffers]
                    unread.append((executable.processor, runner.submit(executable, buffers, ())))
                case Write():
                    unread.append(self._write(step, host))
                case Read() if step.tensor in wanted or step.tensor not in self.program.outputs:
                    pending.append(self._read(step, host))
                case Wait():
                    self._redeem(unread if trace is not None else [], trace)
                    self._redeem(pending, trace)
                    pending, unread = [], [] if trace is not None else unread
                    if step.gate and gate is not None:
                        gate(host)
                case Free() if trace is not None:
                    trace.events.append(self._freed(step))
                case _:
                    pass
        # Without anything to read, the work may still be under way: that is for the caller to use.
        self._settle(unread, trace, bool(wanted))
        return {name: host[name] for name in self.program.outputs if name in wanted}

    def read_state(self, name: str) -> Array:
        """Current value of a state tensor."""
        kind = self.program.types[name]
        result = np.empty(kind.shape, kind.dtype)
        runner = self.runners[self._processor[name]]
        runner.wait(runner.copy(result, self.buffers[name], ()))
        return result

    def write_state(self, name: str, value: Array) -> None:
        """Set a state tensor."""
        kind = self.program.types[name]
        array = np.ascontiguousarray(value, kind.dtype)
        if array.shape != kind.shape:
            raise ValueError(f"state {name!r} is {kind}, not {array.shape}")
        runner = self.runners[self._processor[name]]
        runner.wait(runner.copy(self.buffers[name], array, ()))

    def _write(self, step: Write, host: Mapping[str, Array]) -> tuple[str, Ticket]:
        processor = self._processor[step.buffer]
        array = np.ascontiguousarray(host[step.tensor])
        return processor, self.runners[processor].copy(self.buffers[step.buffer], array, ())

    def _read(self, step: Read, host: dict[str, Array]) -> tuple[str, Ticket]:
        processor = self._processor[step.buffer]
        kind = self.program.types[step.tensor]
        host[step.tensor] = np.empty(kind.shape, kind.dtype)
        ticket = self.runners[processor].copy(host[step.tensor], self.buffers[step.buffer], ())
        return processor, ticket

    def _redeem(self, tickets: Sequence[tuple[str, Ticket]], trace: Trace | None) -> None:
        for processor, ticket in tickets:
            event = self.runners[processor].wait(ticket)
            if trace is not None:
                trace.events.append(event)

    def _settle(
        self, tickets: Sequence[tuple[str, Ticket]], trace: Trace | None, wait: bool
    ) -> None:
        """Wait for the last launch of each processor, so that its failure is not lost."""
        last = dict(tickets)
        if wait or trace is not None:
            self._redeem(list(last.items()), trace)

    def _freed(self, step: Free) -> Event:
        return Event(step.buffer, FREE, self._processor[step.buffer], 0, 0)
