"""Which of several plans is the fastest now, by the times of runs that are wanted anyway.

One plan is followed. When some of its runs in a row take longer than usual, or less, beyond their
spread, the situation is another one: the other plans are tried for a few runs each, and the fastest
is followed from then on, be it the one that was. A plan that was once faster than the present one
is tried again now and then, so that it is noticed when what slowed it down is over.

Times come from the caller and nothing here looks at a clock: the same times lead to the same plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from statistics import median

ALARM, CHANGE = 3, 1.15
"""So many runs in a row, all so many times slower or faster than usual, are another situation."""
SPREADS = 3.0
"""They also are so many standard deviations away, as estimated by the median deviation."""
DEVIATION = 1.4826
"""Standard deviation over median deviation, of normal times."""
USUAL, LEAST = 9, 3
"""The first runs in a situation say what is usual there, at least so many."""
TRIED, TRIED_CLOSE, CLOSE = 3, 6, 0.08
"""Runs of a trial; more are made where the plan is faster by less than this share."""
WORTH = 0.03
"""Another plan is followed if its runs take this share less."""
HOPELESS, HOPELESS_TWICE = 1.5, 1.15
"""A trial ends with a run so many times slower than the best plan, or with two so many times."""
PROMISING = 0.05
"""A plan is tried again if its runs once took this share less than those of the present one."""
SHARE, SOON, RARELY = 0.03, 0.125, 16.0
"""Such trials cost about this share of the time. After a change the first comes sooner by a factor,
since a few slow runs may have been chance; in vain, they become rarer, up to so many times."""


class News(Enum):
    """What a run led to."""

    NOTHING = auto()
    CHANGED = auto()
    """The situation is another one; whoever knows what to try calls :meth:`Trials.begin`."""
    DECIDED = auto()
    """Trials that were asked for have ended."""
    PROBED = auto()
    """A plan that was faster once was tried again."""


@dataclass
class Times:
    """Microseconds of a plan's runs in the present situation, and the lowest median ever."""

    runs: list[float] = field(default_factory=list)
    hope_us: float = inf
    last_us: float = inf

    def note(self, us: float) -> None:
        """A run: the first ones are kept, since they say what is usual, and the last ones."""
        self.runs.append(us)
        if len(self.runs) > USUAL + LEAST:
            del self.runs[USUAL]

    def conclude(self) -> None:
        """Remember the median of these runs beyond the present situation."""
        if self.runs:
            self.last_us = median(self.runs)
        if len(self.runs) >= LEAST:
            self.hope_us = min(self.hope_us, self.last_us)

    def unusual(self, count: int) -> bool:
        """Whether the last runs, so many, all are slower than those before them, or all faster."""
        usual, last = self.runs[:-count][:USUAL], self.runs[-count:]
        if len(usual) < LEAST:
            return False
        middle = median(usual)
        spread = SPREADS * DEVIATION * median(abs(us - middle) for us in usual)
        slow, fast = max(CHANGE * middle, middle + spread), min(middle / CHANGE, middle - spread)
        return min(last) > slow or max(last) < fast


class Trials:
    """Plans by number, the first being 0; :attr:`now` is the one that the next run follows.

    ``change`` is how many times slower the last situation that was noticed made runs.
    """

    def __init__(self) -> None:
        self.now = 0
        self.chosen = 0
        self.times = {0: Times()}
        self.change = 1.0
        self._next = 1
        self._waiting: list[int] = []
        self._guesses: Mapping[int, float] = {}
        self._trying = False
        self._probing = False
        self._unsettled = 1
        self._spent_us = 0.0
        self._since_us = 0.0
        self._pause_us = 0.0
        self._rarer = SOON

    @property
    def quiet(self) -> bool:
        """Whether nothing is tried or waits for that, and it is known what is usual."""
        return self._known and not self._trying and not self._waiting

    @property
    def suspicious(self) -> bool:
        """Whether the last run may have been one of the first in another situation."""
        times = self.times[self.now]
        return not self._trying and any(times.unusual(count) for count in range(1, ALARM))

    @property
    def usual_us(self) -> float:
        """What a run by the chosen plan takes in this situation."""
        runs = self.times[self.chosen].runs
        return median(runs) if runs else inf

    @property
    def _known(self) -> bool:
        """Whether it is known what is usual."""
        return len(self.times[self.chosen].runs) >= LEAST

    def add(self) -> int:
        """The number of a plan more."""
        number, self._next = self._next, self._next + 1
        self.times[number] = Times()
        return number

    def drop(self, number: int) -> None:
        """Forget a plan that is not followed."""
        assert number not in (self.now, self.chosen)
        del self.times[number]
        self._waiting = [each for each in self._waiting if each != number]

    def begin(self, numbers: Sequence[int], guesses: Mapping[int, float] | None = None) -> None:
        """Try plans in this order, once it is known what the chosen one takes.

        By ``guesses`` of their microseconds, those are left out that are hopeless beside the best.
        """
        self._guesses = guesses or {}
        self._waiting += [n for n in numbers if n not in (self.chosen, *self._waiting)]
        if not self._trying:
            self._look_around()

    def observe(self, us: float) -> News:
        """Count a run by :attr:`now`. The first one after a change of plan does not count."""
        self._since_us += us
        if self._trying:
            self._spent_us += us - self.usual_us
        if self._unsettled:
            self._unsettled -= 1
            return News.NOTHING
        times = self.times[self.now]
        times.note(us)
        if self._trying:
            return self._judge(times)
        if times.unusual(ALARM):
            self._enter()
            return News.CHANGED
        self._look_around()
        return News.NOTHING

    def _enter(self) -> None:
        """Another situation, in which the plan that is followed made its last runs."""
        own = self.times[self.now]
        own.runs, latest = own.runs[:-ALARM], own.runs[-ALARM:]
        self.change = median(latest) / median(own.runs)
        for times in self.times.values():
            times.conclude()
            times.runs = []
        own.runs = latest
        self._rarer, self._waiting = SOON, []

    def _judge(self, tried: Times) -> News:
        """Go on with the trial, or with the next one; at last with the plan that is the fastest."""
        best, runs = self.usual_us, tried.runs
        middle = median(runs)
        hopeless = runs[-1] > HOPELESS * best or (
            len(runs) > 1 and min(runs) > HOPELESS_TWICE * best
        )
        close = (1 - CLOSE) * best < middle < best
        if not hopeless and len(runs) < (TRIED_CLOSE if close else TRIED):
            return News.NOTHING
        tried.conclude()
        better = not hopeless and middle < (1 - WORTH) * best
        if better:
            self.chosen = self.now
        return self._ended(better)

    def _ended(self, better: bool) -> News:
        """After a trial: the next one, or back to the plan that is chosen."""
        self._trying = False
        limit = HOPELESS_TWICE * self.usual_us
        self._waiting = [n for n in self._waiting if self._guesses.get(n, 0.0) < limit]
        if self._waiting:
            self._try_next()
            return News.NOTHING
        if self.now != self.chosen:
            self.now, self._unsettled = self.chosen, 1
        probed, self._probing = self._probing, False
        self._rarer = min(2 * self._rarer, RARELY) if probed and not better else SOON
        # What a change of plan takes is not among the times of runs: about as long as one of them.
        cost = max(self._spent_us, 0.0) + self.usual_us
        self._pause_us, self._since_us, self._spent_us = self._rarer * cost / SHARE, 0.0, 0.0
        return News.PROBED if probed else News.DECIDED

    def _look_around(self) -> None:
        """Begin a trial if one waits, or if it is time to see whether a plan is better again."""
        if not self._known:
            return
        if not self._waiting and self._since_us > self._pause_us:
            self._waiting = self._promising()
            self._probing = bool(self._waiting)
        if self._waiting:
            self._try_next()

    def _try_next(self) -> None:
        self.now, self._trying, self._unsettled = self._waiting.pop(0), True, 1
        self.times[self.now].runs = []

    def _promising(self) -> list[int]:
        """The plan that was the fastest of those that were once faster than the chosen one is."""
        hopes = {n: times.hope_us for n, times in self.times.items() if n != self.chosen}
        best = min(hopes, key=lambda n: hopes[n], default=self.chosen)
        promising = best in hopes and hopes[best] < (1 - PROMISING) * self.usual_us
        return [best] if promising else []
