"""The part of a run that one processor does."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from coexec.base.array_parts import part_of
from coexec.core.here import Here
from coexec.core.processor import Runner, Ticket
from coexec.core.program import Instruction, Launch, Read, Wait, Write
from coexec.core.types import Array
from coexec.runtime.meeting import Arrival, Meeting, Stopped
from coexec.runtime.run import Binding, Recorder, Run

PAIR = 2
NOTHING = np.empty(0)
LEFT = Ticket()
"""Of outputs that the host copies in the end: no processor is asked for them."""


@dataclass(frozen=True)
class Sides:
    """How the processors of a program take part.

    ``seeing`` are shown nothing that lies in memory of the host. ``here`` works on the caller's
    thread, if one does; ``apart`` compute on other cores than that. ``quiet``: nobody but ``here``
    follows the others. ``disjoint``: no two of them compute on one core.
    """

    all: tuple[Runner, ...]
    seeing: frozenset[Runner]
    here: Here | None
    apart: frozenset[Runner]
    quiet: bool
    disjoint: bool


def sides_of(runners: Collection[Runner]) -> Sides:
    """How these take part in a program."""
    here = next((each for each in runners if isinstance(each, Here)), None)
    silicon = set() if here is None else set(here.describe().resources)
    return Sides(
        tuple(runners),
        frozenset(each for each in runners if each.sees_host_memory()),
        here,
        frozenset(each for each in runners if silicon.isdisjoint(each.describe().resources)),
        here is not None and len(runners) == PAIR,
        _disjoint([each.describe().resources for each in runners]),
    )


def _disjoint(silicon: Sequence[Sequence[str]]) -> bool:
    """Whether no two processors have a resource in common; who has none, all of the machine."""
    return all(silicon) and len(set().union(*silicon)) == sum(map(len, silicon))


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
        self.name = name
        self.runner = binding.runners[name]
        self.by_caller = sides.here if self.runner is sides.here else None
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
        # Whether the caller waits awake: it has a core that has nothing else to do.
        self.awake = sides.here is not None
        # Outputs that the caller copies once the processor has ended: to where, from where.
        self.left: list[tuple[str, Array, Array]] = []

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
        if self.meeting.tape is not None:
            self.meeting.tape.launched(self.runner, step, self.last[self.runner])

    def write(self, step: Write) -> None:
        runner = self.binding.runner(step.buffer)
        waits = False
        if step.tensor not in self.host:
            arrival = self.meeting.expect(step.tensor)
            if waits := arrival.number > self.awaited.get(arrival.runner, 0):
                self._come_after(arrival, runner)
            self.host[step.tensor] = arrival.array
        there = self.binding.has_part(step) or (
            runner in self.sides.seeing
            and self.binding.is_in_place(step.buffer, self.host[step.tensor])
        )
        self.meeting.idle.written(step, idle=there and not waits)
        if there:
            return
        self.told = None
        super().write(step)
        self.kept.append(self.last[runner])
        if self.meeting.tape is not None:
            self.meeting.tape.by_hand(self.name, runner, step)

    def _come_after(self, arrival: Arrival, runner: Runner) -> None:
        """What a processor is given from now on waits for a tensor of another one."""
        self.awaited[arrival.runner] = arrival.number
        here = self.sides.here
        if here is not None and runner is here:
            here.come_after(partial(self.over, arrival.runner, arrival.ticket))
            self._note_following(runner, arrival)
        elif here is not None and arrival.runner is here:
            self._come_after_caller(here, arrival, runner)
        elif runner.chained and arrival.runner.chained:
            runner.follow(arrival.ticket)
            self._note_following(runner, arrival)
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
            if self.meeting.tape is not None:
                self.meeting.tape.done_until(before)
        if here.keeps(arrival.ticket):
            runner.follow(arrival.ticket)
            self._note_following(runner, arrival)

    def _note_following(self, runner: Runner, arrival: Arrival) -> None:
        if self.meeting.tape is not None:
            awake = runner is not self.sides.here or arrival.runner in self.sides.apart
            self.meeting.tape.followed(runner, arrival.ticket, awake)

    def settle(self, launches: bool) -> None:
        if self.by_caller is not None:
            start = self.binding.now()
            self.by_caller.finish_all()
            self._waited(start)
        super().settle(launches)

    def over(self, runner: Runner, ticket: Ticket) -> None:
        """Wait for a ticket; awake where that takes nothing from who works on it."""
        if self.awake and runner in self.sides.apart:
            runner.watch(ticket)
        else:
            runner.finish(ticket)

    def finish(self) -> None:
        super().finish()
        for name, target, source in self.left:
            start = self.binding.now()
            np.copyto(target, source)
            if self.recorder is not None:
                self.recorder.copied(name, target.nbytes, start)

    def read(self, step: Read) -> tuple[Runner, Ticket]:
        if step.buffer in self.binding.left:
            return self._read_in_the_end(step)
        if self._is_common(step):
            told = self.told = self.told or self._told(step)
            array = self.binding.in_place(step.tensor, step.buffer)
            self.meeting.announce(step.tensor, told._replace(array=array))
            return told.runner, told.ticket
        runner, ticket = super().read(step)
        if step.tensor not in self.program.outputs:
            # On its way to another processor, which waits for it: the caller does not.
            self.reads.pop()
        self.announced += 1
        array = self.host[step.tensor]
        arrival = Arrival(array, runner, ticket, self.announced, self.behind)
        self.meeting.announce(step.tensor, arrival)
        if self.meeting.tape is not None:
            self.meeting.tape.by_hand(self.name, runner, step)
        return runner, ticket

    def _read_in_the_end(self, step: Read) -> tuple[Runner, Ticket]:
        """Have the caller copy an output once the processor has ended."""
        room = self.host[step.tensor] = self._room(step)
        target = part_of(room, step.part)
        source = self.binding.whole(step.buffer, target)
        self.left.append((f"read {step.tensor}", target, source))
        self.meeting.announce(step.tensor, Arrival(room, self.runner, LEFT))
        if self.meeting.tape is not None:
            self.meeting.tape.by_hand(self.name, self.runner, step)
        return self.runner, LEFT

    def _told(self, step: Read) -> Arrival:
        """What tells others of all launches so far; the caller, the last of them if there is."""
        start, runner = self.binding.now(), self.binding.runner(step.buffer)
        self.announced += 1
        last = None if runner is self.sides.here or not self.sides.quiet else self.last.get(runner)
        if last is not None:
            return Arrival(NOTHING, runner, last, self.announced)
        ticket = runner.tell()
        if self.meeting.tape is not None:
            self.meeting.tape.told(runner, ticket)
        self._started(f"read {step.tensor}", start, runner, ticket)
        return Arrival(NOTHING, runner, ticket, self.announced, self.behind)

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
