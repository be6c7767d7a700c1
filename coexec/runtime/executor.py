"""Runs programs: buffers are allocated once, a run only copies, submits and waits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from coexec.base.errors import DeviceMemoryError, ProcessorError
from coexec.base.pages import page_aligned
from coexec.core.events import HOST, RUN, Event, Trace
from coexec.core.holders import holders_text
from coexec.core.processor import Buffer, Runner
from coexec.core.program import (
    INPUT,
    OUTPUT,
    PAGES,
    SCRATCH,
    STATE,
    BufferSpec,
    Launch,
    Program,
)
from coexec.core.timeline import Thread, Timeline, timeline_of
from coexec.core.types import Array
from coexec.runtime.lanes import Lanes, divides
from coexec.runtime.meeting_places import places_of
from coexec.runtime.run import Binding, Gate, Recorder, Run
from coexec.runtime.sharing import common_memory, input_memory
from coexec.runtime.small_outputs import output_memory
from coexec.runtime.virtual_lanes import VirtualLanes

SHARED = (STATE, SCRATCH, PAGES)
"""Roles of buffers that programs over the same states have in common."""


class Executor:
    """A program bound to processors and memory.

    ``shared`` are buffers of states (and arenas) that other executors allocated; the executor adds
    its own to :attr:`buffers`, so that programs over the same states can be chained.

    A program is followed by the caller's thread. On several processors, which all work at once,
    each gets a thread where one cannot follow the others by itself; on simulated ones the threads
    live in virtual time.

    Raises:
        ProcessorError: simulated processors together with real ones, or with those of another
            simulation: they have no common clock.
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
        common = common_memory(program, runners, shared or {})
        outputs = output_memory(program, runners)
        memory = {**input_memory(program, runners), **outputs, **common}
        for spec in program.buffers:
            known = (shared or {}).get(spec.name) if spec.role in SHARED else None
            if spec.name in memory:
                if known is None or known.over is not memory[spec.name]:
                    known = runners[spec.processor].adopt(memory[spec.name])
            elif known is None or known.nbytes < spec.nbytes:
                known = _allocated(program, runners[spec.processor], spec)
            self.buffers[spec.name] = known
        timeline = _common_timeline(program, runners)
        now = time.perf_counter_ns if timeline is None else timeline.now_ns
        self._binding = Binding(
            program, runners, self.buffers, self.processor_of, now, memory, frozenset(outputs)
        )
        if next(places_of(program, memory), None) is not None:
            self._bind_all()
        self._timeline = timeline
        self._lanes = _lanes(self._binding, timeline)
        self._virtual: VirtualLanes | None = None

    def _bind_all(self) -> None:
        """Bind regions before the first of them runs, which may wait for kernels of the last."""
        for step in self.program.instructions:
            if isinstance(step, Launch):
                executable = self.program.executables[step.executable]
                buffers = [self.buffers[name] for name in step.buffers]
                self.runners[executable.processor].bind(executable, buffers)

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
        if self._lanes is not None:
            return self._lanes.run(feeds, wanted, gate, trace)
        if trace is None:
            return Run(self._binding, self._binding.placed(feeds), wanted, gate).all()
        now = self._binding.now
        start, recorder = now(), Recorder(now=now)
        feeds = self._binding.placed(feeds, recorder)
        results = Run(self._binding, feeds, wanted, gate, recorder).all()
        trace.events.extend(recorder.events)
        trace.events.append(Event("run", RUN, HOST, start, now()))
        recorder.collect(trace)
        return results

    def threads(self, feeds: Mapping[str, Array]) -> list[Thread]:
        """The host's threads of a run on simulated processors, not begun yet.

        They are for the timeline of these processors: programs of one phone then run side by side.

        Raises:
            ProcessorError: the processors are real ones.
        """
        if self._timeline is None:
            raise ProcessorError(f"{', '.join(self.program.processors)} are not simulated")
        if self._virtual is None:
            self._virtual = VirtualLanes(self._binding, self._timeline)
        return self._virtual.threads(feeds)

    def read_state(self, name: str) -> Array:
        """Current value of a state tensor."""
        kind = self.program.types[name]
        result = np.empty(kind.shape, kind.dtype)
        runner = self.runners[self.processor_of[name]]
        runner.wait(runner.copy(result, self.buffers[name], ()))
        return result

    def write_state(self, name: str, value: Array) -> None:
        """Set a state tensor to a value of its type."""
        runner = self.runners[self.processor_of[name]]
        runner.wait(runner.copy(self.buffers[name], np.ascontiguousarray(value), ()))


def _allocated(program: Program, runner: Runner, spec: BufferSpec) -> Buffer:
    """Memory for a buffer; states of several processors outlive who has them, if they can.

    Raises:
        DeviceMemoryError: there is not enough; the message says what the program wants it for.
    """
    try:
        if spec.role == PAGES:
            return runner.alloc_pages(spec.nbytes)
        if spec.role == STATE and len(program.processors) > 1 and runner.sees_host_memory():
            return runner.adopt(page_aligned(spec.nbytes))
        if spec.role in (INPUT, OUTPUT) and len(program.processors) == 1:
            return runner.alloc_for_host(spec.nbytes)
        return runner.alloc(spec.nbytes)
    except DeviceMemoryError as error:
        wanted = holders_text(program, spec.processor)
        raise DeviceMemoryError(
            f"{error}. The program wants {wanted}. Use a smaller batch, more micro-batches, or a "
            "memory budget (--memory)"
        ) from error


def _lanes(binding: Binding, timeline: Timeline | None) -> Lanes | VirtualLanes | None:
    if not divides(binding.program):
        return None
    return Lanes(binding) if timeline is None else VirtualLanes(binding, timeline)


def _common_timeline(program: Program, runners: Mapping[str, Runner]) -> Timeline | None:
    """The virtual time of all processors of a program, if they are simulated."""
    found = {name: timeline_of(runners[name]) for name in program.processors}
    if len({id(timeline) for timeline in found.values()}) > 1:
        simulated = [name for name, timeline in found.items() if timeline is not None]
        raise ProcessorError(
            f"{', '.join(found)} have no common clock: {', '.join(simulated)} "
            "are simulated; name processors of one simulated phone only, its CPU among them "
            "(it executes what others refuse)"
        )
    return next(iter(found.values()), None)
