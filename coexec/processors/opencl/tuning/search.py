"""Random and local search for the fastest choice, under a deadline, on a noisy machine.

The search climbs by coordinate steps from the best choice known and draws at random where no step
is left. A candidate is timed until it is clearly slower than the incumbent. One that looks faster
has to win a duel, both timed in turn (A B A B), before it takes the incumbent's place: other work
on the machine then slows both. The last incumbent meets the default in another one.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Protocol

from coexec.base.errors import CoexecError
from coexec.processors.opencl.choose import Choice
from coexec.processors.opencl.tuning.space import Space

GAIN = 0.03
"""A candidate must be faster by more than this to replace the incumbent."""

CUT = 1.3
"""A candidate this many times slower than the incumbent is not timed again."""

QUICK = 3
"""Samples of a first impression."""

LEAST_ROUNDS, MOST_ROUNDS, DUEL_MS = 11, 25, 100.0
"""A duel has as many rounds as fit these milliseconds, within bounds."""

WINS = 0.75
"""Share of the rounds that the winner of a duel wins. Medians alone call too many alike different
on a machine with other work in bursts: equal candidates win so often once in 30 to 140 duels."""

PATIENCE = 24
"""Random draws in a row that change nothing before a search ends."""

DRAWS = 64
"""Draws for one that was not tried yet; after so many in vain the space counts as exhausted."""


class Refused(CoexecError):
    """A candidate that the device does not build or launch, or that computes something else."""


class Trial(Protocol):
    """A candidate that is ready to run and known to be correct."""

    def sample(self) -> float:
        """Milliseconds of one run."""


@dataclass
class Tally:
    """What became of the candidates: how many were tried, cut short, and refused for what."""

    tried: int = 0
    cut: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Found:
    """The best choice with the default's milliseconds and its own, of one last duel."""

    best: Choice
    default_ms: float
    ms: float
    tally: Tally


class Search:
    """One search. ``prepare`` makes a candidate ready (it may raise :class:`Refused`).

    ``clock`` is in seconds and so is ``deadline``; what would likely outlast it is not begun.
    """

    def __init__(
        self,
        space: Space,
        prepare: Callable[[Choice], Trial],
        clock: Callable[[], float],
        deadline: float,
        dice: random.Random,
    ) -> None:
        self.space = space
        self.tally = Tally()
        self._prepare = prepare
        self._clock = clock
        self._deadline = deadline
        self._dice = dice
        self._longest = 0.0
        self._seen: set[str] = set()
        self._queue = deque(space.heads[1:])
        self._idle_draws = 0

    def run(self) -> Found:
        """Search until nothing is left to try or no time is left.

        Raises:
            Refused: the default itself does not run.
        """
        self.best = default = self.space.heads[0]
        self._seen.add(str(default))
        first = self._trial = self._ready(default)
        default_ms = median([first.sample() for _ in range(QUICK)])
        self._default_ms = self._ms = default_ms
        self._queue.extend(self._steps(default))
        while (candidate := self._next()) is not None:
            self.tally.tried += 1
            self._try(candidate)
        if self.best is default:
            return Found(default, default_ms, default_ms, self.tally)
        last = duel(first, self._trial, rounds(default_ms + self._ms))
        if not last.won:
            return Found(default, last.theirs, last.theirs, self.tally)
        return Found(self.best, last.theirs, last.ours, self.tally)

    def _steps(self, choice: Choice) -> list[Choice]:
        """The neighbours in a random order, so that a short search prefers no tunable."""
        steps = list(self.space.neighbours(choice))
        self._dice.shuffle(steps)
        return steps

    def _next(self) -> Choice | None:
        """What to try next: what is queued, then random draws; ``None`` ends the search."""
        if self._left() < self._longest + (QUICK + 1) * CUT * self._ms / 1e3:
            return None
        while self._queue:
            queued = self._queue.popleft()
            if str(queued) not in self._seen:
                self._seen.add(str(queued))
                return queued
        for _ in range(DRAWS):
            drawn = self.space.draw(self._dice)
            if str(drawn) not in self._seen:
                self._seen.add(str(drawn))
                self._idle_draws += 1
                return drawn if self._idle_draws <= PATIENCE else None
        return None

    def _left(self) -> float:
        """Seconds for trying things, the last duel set aside."""
        pair_ms = self._default_ms + self._ms
        return self._deadline - self._clock() - rounds(pair_ms) * pair_ms / 1e3

    def _ready(self, candidate: Choice) -> Trial:
        start = self._clock()
        try:
            return self._prepare(candidate)
        finally:
            self._longest = max(self._longest, self._clock() - start)

    def _try(self, candidate: Choice) -> None:
        """Time a candidate, and make it the incumbent if it wins its duel."""
        try:
            trial = self._ready(candidate)
        except Refused as refusal:
            self.tally.refused[str(refusal)] += 1
            return
        # The incumbent is looked at again: the machine may be slower now than it was then.
        level = max(self._ms, self._trial.sample())
        samples: list[float] = []
        for _ in range(QUICK):
            samples.append(trial.sample())
            if _hopeless(samples, level):
                self.tally.cut += 1
                return
        number = rounds(2 * level)
        if median(samples) > (1 - GAIN) * level or self._left() < 2 * number * level / 1e3:
            return
        result = duel(self._trial, trial, number)
        if result.won:
            self.best, self._trial, self._ms = candidate, trial, result.ours
            self._idle_draws = 0
            self._queue.extendleft(self._steps(candidate))


def _hopeless(samples: Sequence[float], level: float) -> bool:
    """Whether a candidate is clearly slower; one sample alone has to be far off (noise)."""
    return min(samples) > CUT * level and (len(samples) > 1 or samples[0] > CUT**4 * level)


@dataclass(frozen=True)
class Duel:
    """Median milliseconds of both sides, and the share of the rounds that the second won."""

    theirs: float
    ours: float
    wins: float

    @property
    def won(self) -> bool:
        """Whether the second side is faster beyond doubt."""
        return self.ours < (1 - GAIN) * self.theirs and self.wins >= WINS


def rounds(pair_ms: float) -> int:
    """How many rounds a duel has, where one takes so many milliseconds."""
    return max(LEAST_ROUNDS, min(MOST_ROUNDS, ceil(DUEL_MS / max(pair_ms, 1e-3))))


def duel(first: Trial, second: Trial, number: int) -> Duel:
    """Two candidates timed in turn."""
    pairs = [(first.sample(), second.sample()) for _ in range(number)]
    wins = sum(ours < theirs for theirs, ours in pairs) / number
    return Duel(median(theirs for theirs, _ in pairs), median(ours for _, ours in pairs), wins)
