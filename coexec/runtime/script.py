"""Runs that repeat what an earlier one handed over, call by call.

What the instructions of a program lead to is the same in each run: which processor waits for which,
what the caller's thread does itself and when. A :class:`Tape` notes that in one run; a
:class:`Script` has the calls that it came to, and what differs from run to run (inputs, outputs) in
its place between them. To find out again takes longer than the calls, of a thread that may
have no core of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

from coexec.base.errors import ProcessorError
from coexec.core.flag import Flag, Raised, number_in
from coexec.core.here import Here
from coexec.core.processor import Runner, Ticket
from coexec.core.program import Instruction, Launch
from coexec.core.repeats import Call, Submission, repeats_of
from coexec.core.types import Array
from coexec.runtime.moves import (
    Begin,
    ByHand,
    Follow,
    GoOn,
    Meet,
    Move,
    Region,
    Tell,
    Watch,
    begun,
    heard,
    met,
)

BEYOND = 1 << 30
"""A number that no flag gets to in a run: who waits goes on."""


class Lane(Protocol):
    """What a script needs of the part of a run that one processor does."""

    last: dict[Runner, Ticket]

    def follow(self, steps: Sequence[Instruction]) -> None:
        """Start what instructions say."""
        ...


class Tape:
    """What one run did, in the order in which it was handed over, or done by the caller.

    ``whole`` is whether a script can do the same.
    """

    def __init__(self, runners: Collection[Runner]) -> None:
        found = {runner: repeats_of(runner) for runner in runners}
        self.repeats = {runner: each for runner, each in found.items() if each is not None}
        self.here = next((each for each in runners if isinstance(each, Here)), None)
        self.whole = len(self.repeats) == len(found)
        self.moves: list[Move] = []
        # What the caller has to do, with the piece of its work that it is.
        self._kept: deque[tuple[Ticket | None, Move]] = deque()
        # By ticket, which is kept: another object must not get its identity.
        self._meant: dict[int, tuple[Ticket, Region | Tell]] = {}
        self._numbers: dict[Runner, int] = dict.fromkeys(runners, 0)
        self._regions = 0

    def launched(self, runner: Runner, step: Launch, ticket: Ticket) -> None:
        """A region was submitted."""
        move = Region(runner, step, self._regions)
        self._regions += 1
        self._note(runner, move)
        self._meant[id(ticket)] = ticket, move

    def told(self, runner: Runner, ticket: Ticket) -> None:
        """Others were told of all work so far."""
        self._numbers[runner] += 1
        move = Tell(runner, self._numbers[runner])
        self._note(runner, move)
        self._meant[id(ticket)] = ticket, move

    def followed(self, runner: Runner, ticket: Ticket, awake: bool) -> None:
        """A processor goes on after another one; the caller, after a region of it, ``awake``."""
        _, meant = self._meant.get(id(ticket), (None, None))
        if runner is self.here and isinstance(meant, Region) and awake:
            self._note(runner, Watch(runner, meant))
        elif runner is not self.here and isinstance(meant, Tell):
            self._note(runner, Follow(runner, meant))
        else:
            self.whole = False

    def by_hand(self, lane: str, runner: Runner, step: Instruction) -> None:
        """An instruction was followed that is not the same in each run."""
        self._note(runner, ByHand(runner, lane, step))

    def done_until(self, ticket: Ticket) -> None:
        """The caller has done its work up to a piece of it."""
        if any(kept is ticket for kept, _ in self._kept):
            while self._kept:
                kept, move = self._kept.popleft()
                self.moves.append(move)
                if kept is ticket:
                    return

    def done(self) -> None:
        """The caller has done all of its work."""
        self.moves += [move for _, move in self._kept]
        self._kept.clear()

    def _note(self, runner: Runner, move: Move) -> None:
        if runner is self.here:
            self._kept.append((self.here.newest, move))
        else:
            self.moves.append(move)


class Script:
    """The calls of a run; ``launch`` has the submission of each region.

    A processor that is ``late`` is given its work after the others.

    Raises:
        ValueError: a region cannot be submitted by calls.
    """

    def __init__(
        self,
        tape: Tape,
        launch: Mapping[int, Submission],
        names: Mapping[Runner, str],
        late: Runner | None = None,
    ) -> None:
        self._repeats = tape.repeats
        self._here = tape.here
        self._names = names
        self._flags: dict[Runner, Flag] = {}
        self._numbers: list[Array] = []
        self._follows: set[tuple[Runner, Runner]] = set()
        self._tokens: list[object] = [None] * len(launch)
        # By processor, tokens of its regions and of the flags that it raises, in order.
        self._ends: dict[Runner, list[int]] = {}
        self._lanes: Mapping[str, Lane] = {}
        self._launch = launch
        self._calls: list[tuple[Call, int]] = []
        self._failed = False
        for move in begun(met(heard(tape.moves), tape.here), tape.here, late):
            self._add(move)

    def holds(self) -> bool:
        """Whether processors may wait for each other as they did, and no run failed."""
        return not self._failed and all(
            self._repeats[runner].may_follow(self._flag(other)) for runner, other in self._follows
        )

    def run(self, lanes: Mapping[str, Lane]) -> None:
        """Hand everything over; who has to be waited for in the end is known to the lanes then.

        Raises:
            ProcessorError: that failed; nobody waits for what is missing.
        """
        self._lanes = lanes
        self._set_flags(0)
        for repeats in self._repeats.values():
            repeats.begin()
        try:
            self._follow()
        except BaseException as error:
            self._failed = True
            self._set_flags(BEYOND)
            if isinstance(error, ProcessorError) or not isinstance(error, Exception):
                raise
            raise ProcessorError(f"work could not be handed over: {error}") from error
        finally:
            self._hand_on(lanes)

    def _hand_on(self, lanes: Mapping[str, Lane]) -> None:
        """Have lanes wait for the last that each processor was given: a region, or to raise a flag.

        Who waits awake for another processor, on the cores of one that has yet to tell it, keeps
        that one from doing so.
        """
        for runner, numbers in self._ends.items():
            tokens = (self._tokens[number] for number in reversed(numbers))
            last = next((token for token in tokens if token is not None), None)
            ticket = None if last is None else self._repeats[runner].ticket(last)
            if ticket is not None:
                lanes[self._names[runner]].last[runner] = ticket
        # While processors compute: a driver takes its time to let go of an event.
        self._tokens[:] = [None] * len(self._tokens)

    def _follow(self) -> None:
        tokens = self._tokens
        for call, number in self._calls:
            if number < 0:
                call()
            else:
                tokens[number] = call()

    def _set_flags(self, number: int) -> None:
        for each in self._numbers:
            each[...] = number

    def _add(self, move: Move) -> None:
        repeats = self._repeats[move.runner]
        match move:
            case Region():
                self._submit(move.runner, move.number, self._launch[move.number])
            case Begin(region):
                begin, _ = repeats.parted(self._launch[region.number])
                self._submit(region.runner, region.number, begin)
            case GoOn(region):
                _, rest = repeats.parted(self._launch[region.number])
                self._submit(region.runner, region.number, rest)
            case Tell():
                self._tokens.append(None)
                calls = repeats.raising(self._flag(move.runner), move.number)
                self._submit(move.runner, len(self._tokens) - 1, calls)
            case Follow():
                self._call(repeats.following(self._followed(move.told, move.runner)))
            case Meet():
                own = Raised(self._flag(move.runner), move.tell.number)
                self._call(repeats.meeting(own, self._followed(move.told, move.runner)))
            case Watch():
                watched, number = self._repeats[move.region.runner], move.region.number
                self._calls.append((watched.watching(partial(self._token, number)), -1))
            case ByHand():
                self._calls.append((partial(self._by_hand, move.lane, move.step), -1))

    def _submit(self, runner: Runner, number: int, calls: Submission) -> None:
        """Calls whose token, by its number, tells of the end of a region, or of what there is."""
        if not calls:
            return
        numbers = self._ends.setdefault(runner, [])
        if number not in numbers[-1:]:
            numbers.append(number)
        token = range(len(calls))[self._repeats[runner].token]
        self._calls += [
            (call, number if place == token else -1) for place, call in enumerate(calls)
        ]

    def _call(self, calls: Submission) -> None:
        self._calls += [(call, -1) for call in calls]

    def _followed(self, told: Tell, follower: Runner) -> Raised:
        """What a processor waits for, noted as such."""
        self._follows.add((follower, told.runner))
        return Raised(self._flag(told.runner), told.number)

    def _token(self, number: int) -> object:
        return self._tokens[number]

    def _by_hand(self, lane: str, step: Instruction) -> None:
        self._lanes[lane].follow((step,))
        if self._here is not None:
            self._here.finish_all()

    def _flag(self, runner: Runner) -> Flag:
        if runner not in self._flags:
            flag = self._flags[runner] = self._repeats[runner].flag()
            self._numbers.append(number_in(flag.memory))
        return self._flags[runner]
