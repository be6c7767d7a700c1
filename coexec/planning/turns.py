"""Turns of plans, and for which of them their times speak.

All who take part see the same disturbances so. A core of a virtual machine may compute at two
thirds of its speed for a tenth of a second to some seconds, perhaps as others compute on the other
half of it: work on that core alone takes longer then, and so does all work divided with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import comb
from statistics import median

import numpy as np

from coexec.base.others import Others
from coexec.cost.store import WIDE_BELOW

SECONDS, LEAST_ROUNDS = 3.0, 9
LOOK, BUSY = 0.2, 0.2
"""Turns of so many seconds are made again if others keep so much of a core busy meanwhile."""
PATIENCE, MOST = 3.0, 0.25
"""That is done for so many times the seconds that are to be timed; what is disturbed later counts.
Turns of which so many do say nothing of other hours."""
MORE_TIMES = 2
"""So often turns go on where they do not decide."""
DISPUTED, QUIET = 0.1, 0.25
"""They do not, either, where a plan gains so much in the best of the turns, this share of them."""
WORTH, CONFIDENCE = 0.02, 0.95
"""A plan on several processors has to gain this share of the time of the best one alone, and that
so surely: with fewer turns or in a noisy hour, the one that was lucky would be taken."""
ONLY = "only "
"""Names of plans of one processor begin so."""
Actions = Mapping[str, Callable[[], object]]
"""What one run by each plan is, by its name."""
Samples = Mapping[str, Sequence[float]]
"""Microseconds of each turn by name; turns of the same number were neighbours."""


def in_turns(
    actions: Actions,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    least_rounds: int = LEAST_ROUNDS,
) -> dict[str, float]:
    """Median microseconds of the :func:`turns` of each action."""
    return medians(turns(actions, seconds, clock, least_rounds))


class Calm:
    """Whether others leave the cores alone while turns are made.

    For ``patience`` seconds, in all, turns are made again. ``disturbed``: it is used up, and of the
    last turns :data:`MOST` or more count that others disturbed.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.disturbed = False
        self._others = Others()

    def begin(self) -> None:
        """From now on others are looked at."""
        self._others.look()

    def was(self) -> bool:
        """Whether it was calm since the last look."""
        return self._others.look() < BUSY


def turns(
    actions: Actions,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    least_rounds: int = LEAST_ROUNDS,
    calm: Calm | None = None,
) -> dict[str, list[float]]:
    """Microseconds of each action, in turns, so that all see the same disturbances.

    Each turn runs twice and counts once: the first brings back what others drove from the caches.
    Turns during which it was not ``calm`` are made again, for some time.
    """
    for action in actions.values():
        action()
    counted: list[dict[str, float]] = []
    passed, disturbed = 0.0, 0
    if calm is not None:
        calm.begin()
    while len(counted) < least_rounds or passed < seconds:
        began = clock()
        found = [_turn(actions, clock)]
        while calm is not None and clock() - began < LOOK:  # others are counted in such steps
            found.append(_turn(actions, clock))
        took = clock() - began
        if calm is not None and not calm.was():
            if calm.patience > 0:
                calm.patience -= took
                continue
            disturbed += len(found)
        counted += found
        passed += took
    if calm is not None:
        calm.disturbed = disturbed >= MOST * len(counted)
    return {name: [each[name] for each in counted] for name in actions}


def _turn(actions: Actions, clock: Callable[[], float]) -> dict[str, float]:
    """Microseconds of one run of each."""
    found = {}
    for name, action in actions.items():
        action()
        start = clock()
        action()
        found[name] = (clock() - start) * 1e6
    return found


def medians(samples: Samples) -> dict[str, float]:
    """Of each."""
    return {name: median(times) for name, times in samples.items()}


def decided(timed: Callable[[Actions], Samples], actions: Actions) -> Samples:
    """Turns of ``actions``; more of those plans that seem to be worth it and are not surely so.

    In a noisy hour the first turns are too few, and what is lost then is lost in every later run.
    """
    samples = timed(actions)
    for _ in range(MORE_TIMES):
        single = best_alone(samples)
        ratios = ratios_to(single, samples)
        contenders = [name for name, found in ratios.items() if _open(found)]
        if not contenders:
            break
        more = timed({name: actions[name] for name in (single, *contenders)})
        samples = {name: [*times, *more.get(name, ())] for name, times in samples.items()}
    return samples


def _open(ratios: Sequence[float]) -> bool:
    """Whether a plan gains in turns, or much in some of them, and not surely."""
    seems = median(ratios) < 1 - WORTH or quiet(ratios) < 1 - DISPUTED
    return seems and at_most(ratios) >= 1 - WORTH


def quiet(values: Sequence[float]) -> float:
    """The first quartile: of times, what is taken where nothing disturbs for that share of them."""
    return float(np.quantile(values, QUIET))


def steady(values: Sequence[float]) -> float:
    """Their median, or :func:`quiet` if that is far below: what is kept for calmer hours.

    As of calls, of whose times those that lie so far apart were disturbed.
    """
    least, middle = quiet(values), median(values)
    return least if middle > WIDE_BELOW * least else middle


def choose(samples: Samples) -> str:
    """The fastest; a single processor unless several are surely faster by :data:`WORTH`.

    Turns that were neighbours are compared, so that what disturbed both counts for neither.
    """
    single = best_alone(samples)
    if not single:
        middle = medians(samples)
        return min(middle, key=lambda name: middle[name])
    ratios = ratios_to(single, samples)
    sure = [name for name, found in ratios.items() if at_most(found) < 1 - WORTH]
    return min(sure, key=lambda name: median(ratios[name]), default=single)


def best_alone(samples: Samples) -> str:
    """The fastest single processor; empty if there is none."""
    alone = {name: median(times) for name, times in samples.items() if name.startswith(ONLY)}
    return min(alone, key=lambda name: alone[name], default="")


def ratios_to(single: str, samples: Samples) -> dict[str, list[float]]:
    """Of neighbouring turns of plans on several processors and of the ``single`` one.

    Some have fewer turns than it: the first ones.
    """
    return {
        name: [us / one for us, one in zip(times, samples[single], strict=False)]
        for name, times in samples.items()
        if single and not name.startswith(ONLY)
    }


def at_most(values: Sequence[float]) -> float:
    """What their median is not above, with :data:`CONFIDENCE`, whatever they are drawn from.

    The order statistic that too few would lie below otherwise; the largest of four or less.
    """
    count = len(values)
    # How likely it is that so many, or fewer, are below their median: each is, or is not.
    likely = [ways / (1 << count) for ways in accumulate(comb(count, k) for k in range(count))]
    below = sum(chance < CONFIDENCE for chance in likely)
    return sorted(values)[min(below, count - 1)]
