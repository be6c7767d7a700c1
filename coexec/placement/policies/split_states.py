"""What a task may be in a chain of whole and divided tasks: the states that a policy chooses among.

A task is whole on one processor, or divided along an axis in one of a few ratios: those that
balance the most expensive tasks, and its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from coexec.placement.policies.balance import Counts, balanced_all, slowdown
from coexec.placement.problem import Division, Matrix, Problem, Shares

RATIOS = 4
"""Ratios that all tasks may take, beside the one that balances each of them."""
GRAIN = 32
"""Ratios are compared in parts of this many."""
Ratio = tuple[float, ...]
Balances = Mapping[int, Sequence[tuple[Ratio, ...]]]
"""Ratios by task and division."""


@dataclass(frozen=True, slots=True)
class State:
    """A task on processor ``unit``, or divided: ``shares`` with the ratio behind them.

    ``time_us`` is what it takes, of shares the longest; ``each_us`` are the times of all of them,
    each while the others are busy.
    """

    unit: int
    time_us: float
    shares: Shares | None = None
    ratio: Ratio = ()
    each_us: tuple[float, ...] = ()

    @property
    def places(self) -> tuple[int, ...]:
        """Its processors."""
        return (self.unit,) if self.shares is None else tuple(u for u, _ in self.shares.units)


@dataclass(frozen=True, eq=False)
class States:
    """All states of a task, S of them, and what is asked of them as arrays.

    ``units`` (S) and ``fractions`` (S, processors) say who has which part; ``ways``, ``axes`` and
    ``ratios`` (S) are the division's number, its axis and the ratio's number, -1 where the task is
    whole.
    """

    each: tuple[State, ...]
    units: NDArray[np.int64]
    fractions: Matrix
    ways: NDArray[np.int64]
    axes: NDArray[np.int64]
    ratios: NDArray[np.int64]

    @property
    def times_us(self) -> Matrix:
        """Time of each (S)."""
        return np.array([state.time_us for state in self.each])


def states_of(problem: Problem) -> list[States]:
    """The states of each task."""
    balances = _balances(problem)
    ratios = _common_ratios(problem, balances)
    table = _Table(problem, ratios)
    return [table.states(index, balances.get(index, ())) for index in range(len(problem.tasks))]


def _balances(problem: Problem) -> Balances:
    """Ratios that balance each division at the start of a chain and within one."""
    flat = [division for ways in problem.divisions.values() for division in ways]
    found = (
        tuple(_ratio(problem, counts, division.count) for counts in both)
        for division, both in zip(flat, balanced_all(problem, flat), strict=True)
    )
    return {index: [next(found) for _ in ways] for index, ways in problem.divisions.items()}


def _ratio(problem: Problem, shares: Counts, count: int) -> Ratio:
    """Parts of the whole by processor, rounded."""
    parts = dict(shares)
    return tuple(round(parts.get(u, 0) / count * GRAIN) / GRAIN for u in range(len(problem.units)))


def _common_ratios(problem: Problem, balances: Balances) -> list[Ratio]:
    """Ratios that balance the tasks which weigh most, the heaviest first."""
    weights: dict[Ratio, float] = {}
    for index, of_task in balances.items():
        best = min(problem.times[index])
        for ratio in itertools.chain.from_iterable(of_task):
            if sum(part > 0 for part in ratio) > 1:
                weights[ratio] = weights.get(ratio, 0.0) + best
    return sorted(weights, key=lambda ratio: (-weights[ratio], ratio))[:RATIOS]


@dataclass(frozen=True)
class _Cut:
    """Shares in a ratio; ``each`` is their processor, units, and how others slow it down."""

    shares: Shares
    largest: int
    each: tuple[tuple[int, int, float], ...]


@dataclass
class _Table:
    """Makes states; remembers what many tasks have in common."""

    problem: Problem
    common: list[Ratio]
    cuts: dict[tuple[int, int, Ratio], _Cut | None] = field(default_factory=dict)
    parts: dict[Counts, list[float]] = field(default_factory=dict)
    numbers: dict[Ratio, int] = field(default_factory=dict)

    def states(self, index: int, balances: Sequence[tuple[Ratio, ...]]) -> States:
        """States of a task; ``balances`` are the ratios that balance it, by division."""
        times = self.problem.times[index]
        each = [State(unit, time) for unit, time in enumerate(times) if isfinite(time)]
        for way, division in enumerate(self.problem.divisions.get(index, ())):
            for ratio in dict.fromkeys((*self.common, balances[way][0])):
                found = self._divided(way, division, ratio)
                if found is not None:
                    each.append(found)
        axes = [division.axis for division in self.problem.divisions.get(index, ())]
        cuts = [self._cut(state, axes) for state in each]
        ways, along, ratios = np.array(cuts).T
        fractions = np.array([self._fractions(state) for state in each])
        units = np.array([state.unit for state in each])
        return States(tuple(each), units, fractions, ways, along, ratios)

    def _divided(self, way: int, division: Division, ratio: Ratio) -> State | None:
        """Shares in a ratio, where it leaves something for two processors that take it."""
        key = (way, division.count, ratio)
        if key not in self.cuts:
            self.cuts[key] = self._shares(way, division.count, ratio)
        cut = self.cuts[key]
        if cut is None:
            return None
        each_us = tuple(division.time_us(unit, n) * factor for unit, n, factor in cut.each)
        time_us = max(each_us)
        if not isfinite(time_us):
            return None
        return State(cut.largest, time_us, cut.shares, ratio, each_us)

    def _shares(self, way: int, count: int, ratio: Ratio) -> _Cut | None:
        """What all divisions into so many units have in common; none if one processor has all."""
        counts = counts_of(count, ratio)
        if len(counts) < 2:
            return None
        team = tuple(unit for unit, _ in counts)
        largest = max(counts, key=lambda pair: pair[1])[0]
        each = tuple((unit, n, slowdown(self.problem, team, unit)) for unit, n in counts)
        return _Cut(Shares(way, counts), largest, each)

    def _fractions(self, state: State) -> list[float]:
        """The part of a task that each processor has."""
        counts = ((state.unit, 1),) if state.shares is None else state.shares.units
        if counts not in self.parts:
            row = [0.0] * len(self.problem.units)
            total = sum(count for _, count in counts)
            for unit, count in counts:
                row[unit] = count / total
            self.parts[counts] = row
        return self.parts[counts]

    def _cut(self, state: State, axes: Sequence[int]) -> tuple[int, int, int]:
        """Numbers of the division, its axis and the ratio."""
        if state.shares is None:
            return (-1, -1, -1)
        way = state.shares.division
        return way, axes[way], self.numbers.setdefault(state.ratio, len(self.numbers))


def counts_of(count: int, ratio: Ratio) -> Counts:
    """Units by processor for a ratio, in the order of processors: cuts of all tasks agree.

    None for that of a division of which no processor takes shares.
    """
    whole, reached, start = sum(ratio) or 1.0, 0.0, 0
    found = []
    for unit, part in enumerate(ratio):
        reached += part
        end = round(reached / whole * count)
        if end > start:
            found.append((unit, end - start))
        start = end
    return tuple(found)
