"""Shares of one operator that end together: units by processor.

Bisection on the time in which all is done, for many operators at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coexec.placement.problem import Division, Matrix, Problem
from coexec.placement.timeline import LEAST_FACTOR

STEPS = 14
"""Of a bisection: to a ten-thousandth of the longest share."""
EPSILON = 1e-12
"""Of a time: what rounding may take away."""
Counts = tuple[tuple[int, int], ...]
"""Pairs of a processor and its units."""
Team = tuple[int, ...]
"""Processors that take shares and share no silicon, the fastest first."""


def balanced(problem: Problem, division: Division, start: bool = True) -> Counts:
    """Units by processor so that the last share ends as early as it can.

    ``start`` is whether others start later than the fastest, by the way to them: the first of a
    chain does, those behind it do not.
    """
    at_start, within = balanced_all(problem, [division])[0]
    return at_start if start else within


def balanced_all(problem: Problem, divisions: Sequence[Division]) -> list[tuple[Counts, Counts]]:
    """:func:`balanced` of each division, at the start of a chain and within one."""
    groups: dict[tuple[Team, int], list[int]] = {}
    for number, division in enumerate(divisions):
        groups.setdefault((_team(problem, division), division.count), []).append(number)
    found: dict[int, tuple[Counts, Counts]] = {}
    for (team, count), numbers in groups.items():
        if len(team) < 2:
            alone = tuple((unit, count) for unit in team)
            found |= dict.fromkeys(numbers, (alone, alone))
            continue
        group = _Group.of(problem, team, [divisions[number] for number in numbers])
        ways = np.array([problem.latencies[team[0]][unit] for unit in team])
        both = zip(group.balanced(ways), group.balanced(np.zeros_like(ways)), strict=True)
        found |= zip(numbers, both, strict=True)
    return [found[number] for number in range(len(divisions))]


def slowdown(problem: Problem, team: Team, unit: int) -> float:
    """How many times longer a share takes while the others of the team are busy."""
    row = problem.slowdowns[unit]
    return max(1.0 + sum(row[other] - 1.0 for other in team if other != unit), LEAST_FACTOR)


@dataclass(frozen=True, eq=False)
class _Group:
    """D divisions among one team of U processors into N units.

    ``times_us`` (D, U, N + 1) are those of 0, 1, 2, ... units alone; others make a processor
    ``factors`` (U) times slower.
    """

    team: Team
    factors: Matrix
    times_us: Matrix

    @staticmethod
    def of(problem: Problem, team: Team, divisions: Sequence[Division]) -> _Group:
        """The divisions as arrays."""
        factors = np.array([slowdown(problem, team, unit) for unit in team])
        return _Group(team, factors, np.stack([each.times_us for each in divisions])[:, team, :])

    def balanced(self, later_us: Matrix) -> list[Counts]:
        """Units by processor for each division, if processors start ``later_us`` (U)."""
        count = self.times_us.shape[-1] - 1
        counts = self._within(self._least_time(count, later_us), later_us)
        for number in np.flatnonzero(counts.sum(axis=1) > count):
            self._trim(self.times_us[number], later_us, counts[number])
        return [
            tuple((unit, n) for unit, n in zip(self.team, row, strict=True) if n)
            for row in counts.tolist()
        ]

    def _least_time(self, count: int, later_us: Matrix) -> Matrix:
        """A time in which all units are done, the least by bisection (D)."""
        high = (later_us + self.factors * self.times_us[:, :, -1]).max(axis=1)
        low = np.zeros_like(high)
        for _ in range(STEPS):
            middle = (low + high) / 2
            enough = self._within(middle, later_us).sum(axis=1) >= count
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        least: Matrix = high
        return least

    def _within(self, time_us: Matrix, later_us: Matrix) -> NDArray[np.int64]:
        """The most units that each finishes in a time (D), however that is rounded (D, U)."""
        most = (time_us * (1 + EPSILON))[:, None]
        limit = (most - later_us) / self.factors
        done: NDArray[np.int64] = (self.times_us <= limit[:, :, None]).sum(axis=-1) - 1
        return np.maximum(done, 0)

    def _trim(self, times_us: Matrix, later_us: Matrix, counts: NDArray[np.int64]) -> None:
        """Take units (U) from the share that ends last until there are no more than there are."""
        while counts.sum() > times_us.shape[-1] - 1:
            ends = later_us + self.factors * times_us[range(len(counts)), counts]
            counts[np.where(counts > 0, ends, -1.0).argmax()] -= 1


def _team(problem: Problem, division: Division) -> Team:
    able = [unit for unit, curve in enumerate(division.curves) if curve]
    team: list[int] = []
    taken: set[int] = set()
    for unit in sorted(able, key=lambda unit: division.curves[unit][-1][1]):
        if taken.isdisjoint(problem.resources[unit]):
            team.append(unit)
            taken.update(problem.resources[unit])
    return tuple(team)
