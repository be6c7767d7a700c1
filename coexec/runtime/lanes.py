"""Runs of programs on several processors, all of which work at once.

The instructions of a program are divided by the processor that they concern. Each lane goes through
its own in order; where it needs a tensor of another, it waits for that one read and for nothing
else. As the program is a valid order of the whole, lanes cannot wait for each other in a circle.

Where processors follow each other by themselves, one thread hands everything over, in the order of
the program, and only the processors wait: a thread of the host that has to wake on a core that
computes, perhaps with the interpreter's lock, comes a millisecond late (measured), and with a
thread each, lanes would wake each other at every exchange. Else each lane has a thread.

If one of those processors can, that thread does its work, too (:mod:`coexec.core.here`): as late as
possible, but before it hands over what others start only after the work behind that. So they always
have something to go on with, and no other thread has to wake.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np

from coexec.base.errors import ProcessorError
from coexec.core.events import HOST, RUN, Event, Trace
from coexec.core.here import Here, here_of
from coexec.core.processor import Runner, Ticket
from coexec.core.program import Free, Instruction, Launch, Program, Read, Wait, Write
from coexec.core.types import Array
from coexec.runtime.meeting import Arrival, Meeting, Stopped
from coexec.runtime.run import Binding, Gate, Recorder, Run

PAIR = 2
NOTHING = np.empty(0)
Turn = tuple[str, tuple[Instruction, ...]]
"""A lane (none: a gate, for all of them) and instructions of it that follow each other."""


def lanes_of(program: Program) -> dict[str, tuple[Instruction, ...]]:
    """Instructions by processor, in order; gates stand in every lane."""
    lanes: dict[str, list[Instruction]] = {name: [] for name in program.processors}
    for owner, step in _owned(program):
        for lane in [owner] if owner else lanes:
            lanes[lane].append(step)
    return {name: tuple(steps) for name, steps in lanes.items()}


def turns_of(program: Program, noted: bool = True) -> list[Turn]:
    """The lanes' instructions in the order of the program, those of one lane together.

    If a run is not ``noted``, nobody wants to know what is dead.
    """
    steps = (each for each in _owned(program) if noted or not isinstance(each[1], Free))
    turns = groupby(steps, key=itemgetter(0))
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
        self.steps = lanes_of(binding.program)
        chained = all(binding.runners[name].chained for name in self.steps)
        self.binding = _by_caller(binding, self.steps) if chained else binding
        runners = {name: self.binding.runners[name] for name in self.steps}
        self._sides = _sides(runners.values())
        self._order = sorted(self.steps, key=lambda name: runners[name] is not self._sides.here)
        # Kernels are bound in the first run, which may wait for what was handed over.
        self._bound = False
        self._turns: dict[bool, list[Turn]] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        if chained:
            threaded = {name for name, runner in runners.items() if runner.threaded}
            for noted in (True, False):
                turns = turns_of(binding.program, noted)
                self._turns[noted] = threads_last(turns, threaded)
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
        meeting = Meeting(len(self.steps), gate, threads=not self._turns, ahead=self._bound)
        first = next(iter(self.steps))
        one = bool(self._turns)
        recorders = {name: Recorder(host=one or name == first) for name in self.steps}
        feeds = self.binding.placed(feeds, recorders[first])
        runs = {
            name: LaneRun(self.binding, name, feeds, wanted, meeting, recorder, self._sides)
            for name, recorder in (recorders if trace else dict.fromkeys(self.steps)).items()
        }
        if self._turns:
            self._go_by_turns(runs, meeting, self._turns[trace is not None])
        else:
            self._go_at_once(runs, meeting)
        if not self._bound:
            self._leave_out(meeting)
        if trace is not None:
            for recorder in recorders.values():
                trace.events.extend(recorder.events)
            trace.events.append(Event("run", RUN, HOST, start, time.perf_counter_ns()))
            for recorder in recorders.values():
                recorder.collect(trace)
        outputs = (name for name in self.binding.program.outputs if name in wanted)
        return {name: meeting.arrivals[name].array for name in outputs}

    def _leave_out(self, meeting: Meeting) -> None:
        """From the next run on, follow only the instructions with which this one had to do."""
        self._bound, outputs = True, self.binding.program.outputs
        for noted, turns in self._turns.items():
            left = ((owner, meeting.idle.left(steps, outputs)) for owner, steps in turns)
            self._turns[noted] = [turn for turn in left if turn[1]]

    def _go_by_turns(
        self, runs: Mapping[str, LaneRun], meeting: Meeting, turns: Sequence[Turn]
    ) -> None:
        """Hand everything over here; if that fails, what was started comes to its end first.

        The next run would write what it still reads.
        """
        here = self._sides.here
        try:
            with nullcontext() if here is None else here.occupied():
                self._hand_over(runs, meeting, turns)
        except BaseException:
            for run in runs.values():
                with suppress(ProcessorError):  # why it came to this is raised
                    run.drain()
            raise

    def _hand_over(
        self, runs: Mapping[str, LaneRun], meeting: Meeting, turns: Sequence[Turn]
    ) -> None:
        """Follow all lanes in the order of the program: what one needs has been started."""
        for owner, steps in turns:
            if owner:
                runs[owner].turn(steps)
            elif meeting.gate is not None:
                self._settle(runs)
                meeting.ask()
        self._settle(runs)
        for run in runs.values():
            run.finish()

    def _settle(self, runs: Mapping[str, LaneRun]) -> None:
        """Wait for all reads so far, first of all for what only the caller can do."""
        for name in self._order:
            runs[name].settle(launches=False)

    def _go_at_once(self, runs: Mapping[str, LaneRun], meeting: Meeting) -> None:
        """Follow each lane in a thread of its own, the first one here."""
        first, *others = runs
        under_way = [self._threads[name].submit(runs[name].go, self.steps[name]) for name in others]
        runs[first].go(self.steps[first])
        for future in under_way:
            future.result()
        if meeting.failure is not None:
            raise meeting.failure


@dataclass(frozen=True)
class Sides:
    """How the processors of a program take part.

    ``seeing`` are shown nothing that lies in memory of the host. ``here`` works on the caller's
    thread, if one does; ``apart`` compute on other cores than that. ``quiet``: nobody but ``here``
    follows the others.
    """

    seeing: frozenset[Runner]
    here: Here | None
    apart: frozenset[Runner]
    quiet: bool


def _by_caller(binding: Binding, names: Collection[str]) -> Binding:
    """The first processor that can works on the caller's thread; by the others, it is followed."""
    for name in names:
        if (here := here_of(binding.runners[name])) is not None:
            return replace(binding, runners={**binding.runners, name: here})
    return binding


def _sides(runners: Collection[Runner]) -> Sides:
    here = next((each for each in runners if isinstance(each, Here)), None)
    silicon = set() if here is None else set(here.describe().resources)
    return Sides(
        frozenset(each for each in runners if each.sees_host_memory()),
        here,
        frozenset(each for each in runners if silicon.isdisjoint(each.describe().resources)),
        here is not None and len(runners) == PAIR,
    )


class LaneRun(Run):
    """The part of a run that one processor does."""

    def __init__(
        self,
        binding: Binding,
        name: str,
        feeds: Mapping[str, Array],
        wanted: set[str],
        meeting: Meeting,
        recorder: Recorder | None,
        sides: Sides,
    ) -> None:
        super().__init__(binding, feeds, wanted, meeting.gate, recorder)
        self.by_caller = sides.here if binding.runners[name] is sides.here else None
        self.meeting = meeting
        self.whole = meeting.whole
        self.sides = sides
        self.gates = 0
        # A driver's binding may wait for a copy that nobody refers to any more, with the
        # interpreter's lock: not while the processors wait for each other.
        self.kept: list[Ticket] = []
        # By processor, the number of its last copy that this one has waited for.
        self.awaited: dict[Runner, int] = {}
        # The number of the copy announced last, which tells of all launches so far if it is there.
        self.announced = 0
        self.told: Arrival | None = None
        # Work of the caller's before this turn.
        self.behind: Ticket | None = None

    def turn(self, steps: Iterable[Instruction]) -> None:
        """Follow instructions between which no other lane has its turn."""
        if self.sides.here is not None:
            self.behind = self.sides.here.newest
        self.follow(steps)

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
        waits = False
        if step.tensor not in self.host:
            arrival = self.meeting.expect(step.tensor)
            if waits := arrival.number > self.awaited.get(arrival.runner, 0):
                self._come_after(arrival, runner)
            self.host[step.tensor] = arrival.array
        there = runner in self.sides.seeing and self.binding.is_in_place(
            step.buffer, self.host[step.tensor]
        )
        self.meeting.idle.written(step, idle=there and not waits)
        if there:
            return
        self.told = None
        super().write(step)
        self.kept.append(self.last[runner])

    def _come_after(self, arrival: Arrival, runner: Runner) -> None:
        """What a processor is given from now on waits for a tensor of another one."""
        self.awaited[arrival.runner] = arrival.number
        here = self.sides.here
        if here is not None and runner is here:
            here.come_after(partial(self.over, arrival.runner, arrival.ticket))
        elif here is not None and arrival.runner is here:
            self._come_after_caller(here, arrival, runner)
        elif runner.chained and arrival.runner.chained:
            runner.follow(arrival.ticket)
        else:
            arrival.runner.finish(arrival.ticket)

    def _come_after_caller(self, here: Here, arrival: Arrival, runner: Runner) -> None:
        """The same for a tensor that the caller makes, who then need not have made it yet."""
        ahead = self.meeting.ahead and runner.prompt
        before = arrival.behind if ahead else arrival.ticket
        if before is not None:
            start = self.binding.now()
            here.finish(before)
            self._waited(start)
        if here.keeps(arrival.ticket):
            runner.follow(arrival.ticket)

    def settle(self, launches: bool) -> None:
        if self.by_caller is not None:
            start = self.binding.now()
            self.by_caller.finish_all()
            self._waited(start)
        super().settle(launches)

    def over(self, runner: Runner, ticket: Ticket) -> None:
        """Wait for a ticket; awake where that takes nothing from who works on it."""
        if self.sides.here is not None and runner in self.sides.apart:
            runner.watch(ticket)
        else:
            runner.finish(ticket)

    def read(self, step: Read) -> tuple[Runner, Ticket]:
        if self.told is None and self.sides.quiet and self._is_common(step):
            self.told = self._silent(self.binding.runner(step.buffer))
        if self.told is not None and self._is_common(step):
            array = self.binding.in_place(step.tensor, step.buffer)
            self.meeting.announce(step.tensor, replace(self.told, array=array))
            return self.told.runner, self.told.ticket
        runner, ticket = super().read(step)
        if step.tensor not in self.program.outputs:
            # On its way to another processor, which waits for it: the caller does not.
            self.reads.pop()
        self.announced += 1
        array = self.host[step.tensor]
        arrival = Arrival(array, runner, ticket, self.announced, self.behind)
        self.meeting.announce(step.tensor, arrival)
        if self._is_common(step):
            self.told = arrival
        return runner, ticket

    def _silent(self, runner: Runner) -> Arrival | None:
        """What tells the caller of all launches so far: the last of them, if there is one."""
        last = self.last.get(runner)
        if last is None or runner is self.sides.here:
            return None
        self.announced += 1
        return Arrival(NOTHING, runner, last, self.announced)

    def _is_common(self, step: Read) -> bool:
        """Whether a tensor on its way is there for others once they are told."""
        common = step.buffer in self.binding.memory and step.tensor not in self.program.outputs
        return common and self.binding.runner(step.buffer) in self.sides.seeing

    def pause(self, step: Wait) -> None:
        if self.gate is not None:
            # All of it: should the gate stay closed, nothing is left that others wait for.
            self.settle(launches=True)
            self.meeting.pass_gate(self.gates)
            self.gates += 1
