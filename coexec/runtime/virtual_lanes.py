"""Runs of programs on several simulated processors: one thread of the host each, in virtual time.

The same lanes as in :mod:`coexec.runtime.lanes`, but as generators that yield what they wait for:
the simulation resumes them in the order of virtual time, so that a run has the same times whenever
it is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from coexec.core.events import HOST, RUN, Event, Trace
from coexec.core.processor import Runner, Ticket
from coexec.core.program import Instruction, Program, Read, Wait, Write
from coexec.core.timeline import Signal, Thread, Timeline
from coexec.core.types import Array
from coexec.runtime.lanes import lanes_of
from coexec.runtime.meeting import Arrival
from coexec.runtime.run import Binding, Gate, Recorder, Run


class VirtualLanes:
    """A program divided among simulated processors."""

    def __init__(self, binding: Binding, timeline: Timeline) -> None:
        self.binding = binding
        self.timeline = timeline
        self.steps = lanes_of(binding.program)

    def run(
        self,
        feeds: Mapping[str, Array],
        wanted: set[str],
        gate: Gate | None = None,
        trace: Trace | None = None,
    ) -> dict[str, Array]:
        """Run the program once, as :meth:`coexec.runtime.executor.Executor.run` does."""
        start = self.timeline.now_ns()
        meeting = _Meeting(self.timeline, self.binding.program, len(self.steps), gate)
        first = next(iter(self.steps))
        recorders = {
            name: Recorder(host=name == first, now=self.binding.now) for name in self.steps
        }
        lanes = [
            _Lane(self.binding, feeds, wanted, meeting, recorders[name] if trace else None)
            for name in self.steps
        ]
        self.timeline.follow(
            [lane.thread(steps) for lane, steps in zip(lanes, self.steps.values(), strict=True)]
        )
        if trace is not None:
            for recorder in recorders.values():
                trace.events.extend(recorder.events)
            trace.events.append(Event("run", RUN, HOST, start, self.timeline.now_ns()))
            for recorder in recorders.values():
                recorder.collect(trace)
        outputs = (name for name in self.binding.program.outputs if name in wanted)
        return {name: meeting.arrivals[name].array for name in outputs}

    def threads(self, feeds: Mapping[str, Array]) -> list[Thread]:
        """A run of the whole program, for whoever lets several run side by side."""
        meeting = _Meeting(self.timeline, self.binding.program, len(self.steps), None)
        wanted = set(self.binding.program.outputs)
        return [
            _Lane(self.binding, feeds, wanted, meeting, None).thread(steps)
            for steps in self.steps.values()
        ]


class _Meeting:
    """What the lanes of one run tell each other: tensors and gates."""

    def __init__(self, timeline: Timeline, program: Program, lanes: int, gate: Gate | None) -> None:
        self.timeline = timeline
        self.gate = gate
        self.lanes = lanes
        self.arrivals: dict[str, Arrival] = {}
        self.whole: dict[str, Array] = {}
        self._announced: dict[str, Signal] = {}
        gates = sum(isinstance(step, Wait) and step.gate for step in program.instructions)
        self._here = [0] * gates
        self._passed = [timeline.signal() for _ in range(gates)]

    def announced(self, tensor: str) -> Signal:
        """Happens when the copy of a tensor to the host has begun."""
        if tensor not in self._announced:
            self._announced[tensor] = self.timeline.signal()
        return self._announced[tensor]

    def announce(self, tensor: str, arrival: Arrival) -> None:
        self.arrivals[tensor] = arrival
        self.announced(tensor).happen()

    def arrive_at_gate(self, number: int) -> Signal:
        """Happens when every lane is at gate ``number``; the last one asks whether to go on."""
        self._here[number] += 1
        if self._here[number] == self.lanes:
            if self.gate is not None:
                self.gate({name: arrival.array for name, arrival in self.arrivals.items()})
            self._passed[number].happen()
        return self._passed[number]


class _Lane(Run):
    """The part of a run that one simulated processor does."""

    def __init__(
        self,
        binding: Binding,
        feeds: Mapping[str, Array],
        wanted: set[str],
        meeting: _Meeting,
        recorder: Recorder | None,
    ) -> None:
        super().__init__(binding, feeds, wanted, meeting.gate, recorder)
        self.meeting = meeting
        self.whole = meeting.whole

    def thread(self, steps: tuple[Instruction, ...]) -> Thread:
        """Follow the lane's instructions to the end, waiting in virtual time."""
        gates = 0
        for step in steps:
            match step:
                case Write() if step.tensor not in self.host:
                    yield from self._expect(step.tensor)
                    self.write(step)
                case Wait() if self.gate is not None:
                    yield from self._settled()
                    yield self.meeting.arrive_at_gate(gates)
                    gates += 1
                case Wait():
                    pass
                case _:
                    self.follow((step,))
        yield from self._settled()
        if self.wanted or self.recorder is not None:
            yield from self.last.values()

    def read(self, step: Read) -> tuple[Runner, Ticket]:
        runner, ticket = super().read(step)
        self.meeting.announce(step.tensor, Arrival(self.host[step.tensor], runner, ticket))
        return runner, ticket

    def _expect(self, tensor: str) -> Thread:
        """Until a tensor of another lane is on the host."""
        yield self.meeting.announced(tensor)
        arrival = self.meeting.arrivals[tensor]
        yield arrival.ticket
        self.host[tensor] = arrival.array

    def _settled(self) -> Iterator[Ticket]:
        """Until all reads so far are done."""
        start = self.binding.now()
        for _, ticket, _before in self.reads:
            yield ticket
        self.reads.clear()
        self._waited(start)
