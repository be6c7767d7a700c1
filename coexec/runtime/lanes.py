"""Runs of programs on several processors, all of which work at once.

The instructions of a program are divided by the processor that they concern. Each lane goes through
its own in order; where it needs a tensor of another, it waits for that one read and for nothing
else. As the program is a valid order of the whole, lanes cannot wait for each other in a circle.

Where processors follow each other by themselves, one thread hands everything over, in the order of
the program, and only the processors wait: a thread of the host that has to wake on a core that
computes, perhaps with the interpreter's lock, comes a millisecond late (measured), and with a
thread each, lanes would wake each other at every exchange. Else each lane has a thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from threading import Condition

from coexec.core.events import HOST, RUN, Event, Trace
from coexec.core.processor import Runner, Ticket
from coexec.core.program import Free, Instruction, Launch, Program, Read, Wait, Write
from coexec.core.types import Array
from coexec.runtime.run import Binding, Gate, Recorder, Run

Turn = tuple[str, tuple[Instruction, ...]]
"""A lane (none: a gate, for all of them) and instructions of it that follow each other."""


def lanes_of(program: Program) -> dict[str, tuple[Instruction, ...]]:
    """Instructions by processor, in order; gates stand in every lane."""
    lanes: dict[str, list[Instruction]] = {name: [] for name in program.processors}
    for owner, step in _owned(program):
        for lane in [owner] if owner else lanes:
            lanes[lane].append(step)
    return {name: tuple(steps) for name, steps in lanes.items()}


def turns_of(program: Program) -> list[Turn]:
    """The lanes' instructions in the order of the program, those of one lane together."""
    turns = groupby(_owned(program), key=itemgetter(0))
    return [(owner, tuple(step for _, step in steps)) for owner, steps in turns]


def threads_last(turns: Sequence[Turn], threaded: Collection[str]) -> list[Turn]:
    """The same turns, those of ``threaded`` lanes behind the next one where that needs nothing new.

    A thread that is given something wakes, and takes the interpreter's lock from whoever would give
    others their work.
    """
    found, place = list(turns), 0
    while place + 1 < len(found):
        (one, steps), (other, more) = found[place : place + 2]
        sent = {step.tensor for step in steps if isinstance(step, Read)}
        wanted = {step.tensor for step in more if isinstance(step, Write)}
        if one in threaded and other and other not in threaded and sent.isdisjoint(wanted):
            found[place : place + 2] = [(other, more), (one, steps)]
            place += 1
        place += 1
    return found


def _owned(program: Program) -> Iterator[tuple[str, Instruction]]:
    """Instructions with the processor that they concern; gates with none."""
    home = {spec.name: spec.processor for spec in program.buffers}
    for step in program.instructions:
        match step:
            case Launch():
                yield program.executables[step.executable].processor, step
            case Write() | Read() | Free():
                yield home[step.buffer], step
            case Wait(gate=True):
                yield "", step


def divides(program: Program) -> bool:
    """Whether several processors take part and nothing asks to wait for all of them."""
    together = any(isinstance(step, Wait) and step.launches for step in program.instructions)
    return len(program.processors) > 1 and not together


class Lanes:
    """A program divided among processors.

    If not all of them follow each other, threads drive all but the first.
    """

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.steps = lanes_of(binding.program)
        # Who is shown nothing that lies in memory of the host.
        runners = {binding.runners[name] for name in self.steps}
        self._seeing = frozenset(each for each in runners if each.sees_host_memory())
        self._turns: list[Turn] = []
        self._threads: dict[str, ThreadPoolExecutor] = {}
        if all(binding.runners[name].chained for name in self.steps):
            threaded = {name for name in self.steps if binding.runners[name].threaded}
            self._turns = threads_last(turns_of(binding.program), threaded)
        else:
            others = list(self.steps)[1:]
            self._threads = {name: ThreadPoolExecutor(1, f"coexec {name}") for name in others}

    def run(
        self,
        feeds: Mapping[str, Array],
        wanted: set[str],
        gate: Gate | None = None,
        trace: Trace | None = None,
    ) -> dict[str, Array]:
        """Run the program once, as :meth:`coexec.runtime.executor.Executor.run` does.

        An exception in one lane stops the others at their next instruction and is raised here.
        """
        start = time.perf_counter_ns()
        meeting = Meeting(len(self.steps), gate, threads=not self._turns)
        first = next(iter(self.steps))
        recorders = {name: Recorder(host=name == first) for name in self.steps}
        feeds = self.binding.placed(feeds, recorders[first])
        runs = {
            name: LaneRun(self.binding, feeds, wanted, meeting, recorder, self._seeing)
            for name, recorder in (recorders if trace else dict.fromkeys(self.steps)).items()
        }
        if self._turns:
            self._hand_over(runs, meeting)
        else:
            self._go_at_once(runs, meeting)
        if trace is not None:
            for recorder in recorders.values():
                trace.events.extend(recorder.events)
            trace.events.append(Event("run", RUN, HOST, start, time.perf_counter_ns()))
            for recorder in recorders.values():
                recorder.collect(trace)
        outputs = (name for name in self.binding.program.outputs if name in wanted)
        return {name: meeting.arrivals[name].array for name in outputs}

    def _hand_over(self, runs: Mapping[str, LaneRun], meeting: Meeting) -> None:
        """Follow all lanes in the order of the program: what one needs has been started."""
        for owner, steps in self._turns:
            if owner:
                runs[owner].follow(steps)
            elif meeting.gate is not None:
                for run in runs.values():
                    run.settle(launches=False)
                _ask(meeting, runs)
        for run in runs.values():
            run.settle(launches=False)
            run.finish()

    def _go_at_once(self, runs: Mapping[str, LaneRun], meeting: Meeting) -> None:
        """Follow each lane in a thread of its own, the first one here."""
        first, *others = runs
        under_way = [self._threads[name].submit(runs[name].go, self.steps[name]) for name in others]
        runs[first].go(self.steps[first])
        for future in under_way:
            future.result()
        if meeting.failure is not None:
            raise meeting.failure


def _ask(meeting: Meeting, runs: Mapping[str, LaneRun]) -> None:
    """Pass a gate; if it does not open, what was started comes to its end before that is raised.

    The next run would write what it still reads.
    """
    try:
        meeting.ask()
    except BaseException:
        for run in runs.values():
            run.drain()
        raise


@dataclass(frozen=True)
class Arrival:
    """A tensor on its way to the host, and the ticket of the copy that brings it.

    ``number`` counts the copies of a lane: its processor works in order, so that one of them also
    tells of those before.
    """

    array: Array
    runner: Runner
    ticket: Ticket
    number: int = 0


class Stopped(Exception):
    """Leaves a lane because another one failed."""


class Meeting:
    """What the lanes of one run tell each other: tensors, gates, the first failure.

    Without ``threads``, what one expects has been announced.
    """

    def __init__(self, lanes: int, gate: Gate | None, *, threads: bool) -> None:
        self.gate = gate
        self.threads = threads
        self.arrivals: dict[str, Arrival] = {}
        self.whole: dict[str, Array] = {}
        self.failure: BaseException | None = None
        self._lanes = lanes
        self._here: Counter[int] = Counter()
        self._changed = Condition()

    def announce(self, tensor: str, arrival: Arrival) -> None:
        """A copy to the host was started."""
        if not self.threads:
            self.arrivals[tensor] = arrival
            return
        with self._changed:
            self.arrivals[tensor] = arrival
            self._changed.notify_all()

    def expect(self, tensor: str) -> Arrival:
        """The copy of a tensor, once it was started."""
        if not self.threads:
            return self.arrivals[tensor]
        with self._changed:
            self._wait(lambda: tensor in self.arrivals)
            return self.arrivals[tensor]

    def pass_gate(self, number: int) -> None:
        """Wait for every lane at gate ``number``; the last to come asks whether to go on."""
        with self._changed:
            self._here[number] += 1
            if self._here[number] == self._lanes:
                self.ask()
            self._changed.notify_all()
            self._wait(lambda: self._here[number] == self._lanes)

    def ask(self) -> None:
        """Let the caller look at what was read; an exception from it ends the run."""
        if self.gate is not None:
            self.gate({name: arrival.array for name, arrival in self.arrivals.items()})

    def fail(self, error: BaseException) -> None:
        """Keep the first failure and release whoever waits."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: condition() or self.failure is not None)
        if self.failure is not None:
            raise Stopped


class LaneRun(Run):
    """The part of a run that one processor does."""

    def __init__(
        self,
        binding: Binding,
        feeds: Mapping[str, Array],
        wanted: set[str],
        meeting: Meeting,
        recorder: Recorder | None,
        seeing: frozenset[Runner] = frozenset(),
    ) -> None:
        super().__init__(binding, feeds, wanted, meeting.gate, recorder)
        self.meeting = meeting
        self.whole = meeting.whole
        self.seeing = seeing
        self.gates = 0
        # A driver's binding may wait for a copy that nobody refers to any more, with the
        # interpreter's lock: not while the processors wait for each other.
        self.kept: list[Ticket] = []
        # By processor, the number of its last copy that this one has waited for.
        self.awaited: dict[Runner, int] = {}
        # The number of the copy announced last, which tells of all launches so far if it is there.
        self.announced = 0
        self.told: Arrival | None = None

    def go(self, steps: tuple[Instruction, ...]) -> None:
        """Follow the lane's instructions to the end; a failure goes to the meeting."""
        try:
            self.follow(steps)
            self.settle(launches=False)
            self.finish()
        except Stopped:
            pass  # the lane that failed has said why
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            self.meeting.fail(error)

    def launch(self, step: Launch) -> None:
        self.told = None
        super().launch(step)

    def write(self, step: Write) -> None:
        runner = self.binding.runner(step.buffer)
        if step.tensor not in self.host:
            arrival = self.meeting.expect(step.tensor)
            if arrival.number > self.awaited.get(arrival.runner, 0):
                self._come_after(arrival, runner)
            self.host[step.tensor] = arrival.array
        if runner in self.seeing and self.binding.is_in_place(step.buffer, self.host[step.tensor]):
            return
        self.told = None
        super().write(step)
        self.kept.append(self.last[runner])

    def _come_after(self, arrival: Arrival, runner: Runner) -> None:
        """What a processor is given from now on waits for a tensor of another one."""
        self.awaited[arrival.runner] = arrival.number
        if runner.chained and arrival.runner.chained:
            runner.follow(arrival.ticket)
        else:
            arrival.runner.finish(arrival.ticket)

    def read(self, step: Read) -> tuple[Runner, Ticket]:
        if self.told is not None and self._is_common(step):
            array = self.binding.in_place(step.tensor, step.buffer)
            self.meeting.announce(step.tensor, replace(self.told, array=array))
            return self.told.runner, self.told.ticket
        runner, ticket = super().read(step)
        if step.tensor not in self.program.outputs:
            # On its way to another processor, which waits for it: the caller does not.
            self.reads.pop()
        self.announced += 1
        arrival = Arrival(self.host[step.tensor], runner, ticket, self.announced)
        self.meeting.announce(step.tensor, arrival)
        if self._is_common(step):
            self.told = arrival
        return runner, ticket

    def _is_common(self, step: Read) -> bool:
        """Whether a tensor on its way is there for others once they are told."""
        common = step.buffer in self.binding.memory and step.tensor not in self.program.outputs
        return common and self.binding.runner(step.buffer) in self.seeing

    def pause(self, step: Wait) -> None:
        if self.gate is not None:
            # All of it: should the gate stay closed, nothing is left that others wait for.
            self.settle(launches=True)
            self.meeting.pass_gate(self.gates)
            self.gates += 1
