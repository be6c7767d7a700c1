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
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from coexec.base.cores import Core, pinned
from coexec.base.errors import ProcessorError
from coexec.core.events import HOST, RUN, Event, Trace
from coexec.core.here import here_of
from coexec.core.program import Free, Instruction, Launch, Program, Read, Wait, Write
from coexec.core.repeats import Submission
from coexec.core.types import Array
from coexec.runtime.home import home_of
from coexec.runtime.lane_run import LaneRun, sides_of
from coexec.runtime.meeting import Meeting
from coexec.runtime.meeting_places import abandoned
from coexec.runtime.moves import Region
from coexec.runtime.run import Binding, Gate, Recorder
from coexec.runtime.script import Script, Tape

SCRIPTS = 2
"""For how many sets of outputs runs are repeated by calls."""
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
        self._sides = sides_of(runners.values())
        self._home = home_of(binding.program, runners, self._sides)
        # Kernels are bound in the first run, which may wait for what was handed over.
        self._bound = False
        # Whether kernels may wait for others that were not handed over, also between two turns.
        self._short = False
        # By the outputs that are wanted; none: such runs cannot be repeated by calls.
        self._scripts: dict[frozenset[str], Script | None] = {}
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
        if gate is None and trace is None and self._turns and self._bound:
            meeting.script = self._scripts.get(frozenset(wanted))
            if frozenset(wanted) not in self._scripts and len(self._scripts) < SCRIPTS:
                meeting.tape = Tape(self._sides.all)
        recorders = {} if trace is None else self._recorders()
        first = next(iter(self.steps))
        feeds = self.binding.placed(feeds, recorders.get(first))
        runs = {
            name: LaneRun(
                self.binding, name, feeds, wanted, meeting, recorders.get(name), self._sides
            )
            for name in self.steps
        }
        if self._turns:
            self._go_by_turns(runs, meeting, self._turns[trace is not None])
        else:
            self._go_at_once(runs, meeting)
        if not self._bound:
            self._leave_out(meeting)
        if meeting.tape is not None:
            self._scripts[frozenset(wanted)] = self._script(meeting.tape)
        if trace is not None:
            for recorder in recorders.values():
                trace.events.extend(recorder.events)
            trace.events.append(Event("run", RUN, HOST, start, time.perf_counter_ns()))
            for recorder in recorders.values():
                recorder.collect(trace)
        outputs = (name for name in self.binding.program.outputs if name in wanted)
        return {name: meeting.arrivals[name].array for name in outputs}

    def _recorders(self) -> dict[str, Recorder]:
        """Of each lane; one thread of the host is noted once."""
        first, one = next(iter(self.steps)), bool(self._turns)
        return {name: Recorder(host=one or name == first) for name in self.steps}

    def _script(self, tape: Tape) -> Script | None:
        """What the next run repeats; none: it looks at each instruction again."""
        launch: dict[int, Submission] = {}
        for move in tape.moves:
            if isinstance(move, Region) and tape.whole:
                executable, buffers = self.binding.region(move.step)
                calls = tape.repeats[move.runner].region(executable, buffers)
                if calls is None:
                    return None
                launch[move.number] = calls
        names = {self.binding.runners[name]: name for name in self.steps}
        late = self.binding.runners[self._home.order[0]] if self._home.cores_of_run else None
        return Script(tape, launch, names, late) if tape.whole else None

    def _leave_out(self, meeting: Meeting) -> None:
        """From the next run on, follow only the instructions with which this one had to do.

        How regions are submitted from then on is made ready now, while nobody waits: a processor
        may put their memory into other pages for that, and cannot while it waits for the caller.
        """
        for step in self.binding.program.instructions:
            if isinstance(step, Launch):
                self.binding.launcher(step)
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
        here, self._short = self._sides.here, False
        try:
            with pinned(self._tied(self._home.cores_of_run)) if here is None else here.occupied():
                self._hand_over(runs, meeting, turns)
        except BaseException:
            let_go = abandoned(self.binding.program, self.binding.memory)
            with let_go if self._short else nullcontext():
                for run in runs.values():
                    with suppress(ProcessorError):  # why it came to this is raised
                        run.drain()
            raise

    def _hand_over(
        self, runs: Mapping[str, LaneRun], meeting: Meeting, turns: Sequence[Turn]
    ) -> None:
        """Follow all lanes in the order of the program: what one needs has been started."""
        self._short = True
        if meeting.script is not None and meeting.script.holds():
            meeting.script.run(runs)
            turns = ()
        for owner, steps in turns:
            if owner:
                runs[owner].turn(steps)
            elif meeting.gate is not None:
                self._short = False
                self._settle(runs)
                meeting.ask()
                self._short = True
        self._short = False
        self._end(runs)
        if meeting.tape is not None:
            meeting.tape.done()

    def _end(self, runs: Mapping[str, LaneRun]) -> None:
        """Wait for all work: asleep for whose cores these are, then awake, as they are free."""
        cores = self._tied(self._home.cores)
        with pinned(cores):
            for number, name in enumerate(self._home.order):
                runs[name].awake |= number > 0 and bool(cores)
                runs[name].settle(launches=False)
                runs[name].finish()

    def _tied(self, cores: tuple[Core, ...]) -> tuple[Core, ...]:
        """None in the first run: threads that drivers make in it would have these cores alone."""
        return cores if self._bound else ()

    def _settle(self, runs: Mapping[str, LaneRun]) -> None:
        """Wait for all reads so far, first of all for what only the caller can do."""
        for name in self._home.order:
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


def _by_caller(binding: Binding, names: Collection[str]) -> Binding:
    """The first processor that can works on the caller's thread; by the others, it is followed."""
    for name in names:
        if (here := here_of(binding.runners[name])) is not None:
            return replace(binding, runners={**binding.runners, name: here})
    return binding
