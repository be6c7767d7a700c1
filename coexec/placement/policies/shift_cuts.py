"""Move the cuts of a divided schedule as long as its timeline gets shorter.

Ratios that balance tasks leave out what only a timeline knows: that data comes from the host and
goes there, and what neighbours wait for. The cuts of tasks that are cut alike move together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from coexec.placement.divide import divide
from coexec.placement.policies.overlap import overlap
from coexec.placement.policies.split_states import GRAIN, Ratio, State, counts_of
from coexec.placement.problem import Problem, Schedule, Shares
from coexec.placement.timeline import simulate

STEPS = (4, 2, 1)
"""How far cuts move, in parts of :data:`GRAIN`: far first."""
TIMELINES, TASKS = range(4, 25), 4000
"""How many are made for a schedule: of so many tasks in all, as each takes time by its tasks."""
AGAIN = 40
"""So many are made for a schedule that was run: what they look for was measured."""
LEAST_GAIN = 1e-3
"""Of a makespan: less is no reason to move a cut."""


@dataclass(frozen=True)
class Timed:
    """A schedule, its shares overlapping where that pays, and its predicted makespan."""

    schedule: Schedule
    makespan_us: float


def timed(problem: Problem, schedule: Schedule) -> Timed:
    """A schedule as it is, or with shares that overlap, whichever ends earlier."""
    found = [Timed(schedule, makespan(problem, schedule))]
    overlapping = overlap(problem, schedule)
    if overlapping.shares != schedule.shares:
        found.append(Timed(overlapping, makespan(problem, overlapping)))
    return min(found, key=lambda each: each.makespan_us)


def makespan(problem: Problem, schedule: Schedule) -> float:
    """Predicted microseconds of a schedule with shares."""
    plain = divide(problem, schedule)
    return simulate(plain.problem, plain.schedule).makespan_us


def shift_cuts(problem: Problem, states: Sequence[State], divided: Schedule) -> Timed:
    """The best that is found by moving the cuts of ``divided``, a schedule of ``states``."""
    left = min(max(TASKS // len(problem.tasks), TIMELINES[0]), TIMELINES[-1])
    return _Shifting(problem, divided, left).run(_alike(states))


def shift_again(problem: Problem, schedule: Schedule) -> Schedule:
    """``schedule`` with cuts that are moved by what its tasks take now; they divide as they did.

    Cuts of tasks move together that have as many units along an axis, and in the same ratio.
    """
    search = _Shifting(problem, schedule.without_overlaps(), AGAIN)
    for ratio, tasks in _divided_alike(problem, schedule):
        search.run({ratio: tasks})
    return search.best.schedule


def _divided_alike(problem: Problem, schedule: Schedule) -> list[tuple[Ratio, list[int]]]:
    """Divided tasks by axis, units and ratio, those that weigh most first."""
    groups: dict[tuple[int, int, Ratio], list[int]] = {}
    weights: dict[tuple[int, int, Ratio], float] = {}
    for task, shares in schedule.shares.items():
        division, parts = problem.divisions[task][shares.division], dict(shares.units)
        ratio = tuple(
            round(parts.get(unit, 0) / division.count * GRAIN) / GRAIN
            for unit in range(len(problem.units))
        )
        key = (division.axis, division.count, ratio)
        groups.setdefault(key, []).append(task)
        us = max(division.time_us(unit, count) for unit, count in shares.units)
        weights[key] = weights.get(key, 0.0) + us
    return [(key[2], groups[key]) for key in sorted(groups, key=lambda key: -weights[key])]


def _alike(states: Sequence[State]) -> Mapping[Ratio, list[int]]:
    """Divided tasks by their ratio, those that weigh most first."""
    groups: dict[Ratio, list[int]] = {}
    for index, state in enumerate(states):
        if state.shares is not None:
            groups.setdefault(state.ratio, []).append(index)
    weights = {ratio: sum(states[i].time_us for i in group) for ratio, group in groups.items()}
    return {ratio: groups[ratio] for ratio in sorted(groups, key=lambda each: -weights[each])}


class _Shifting:
    """The search: ``base`` has no overlaps, ``best`` is made of it; ``left``: timelines to make."""

    def __init__(self, problem: Problem, divided: Schedule, left: int) -> None:
        self.problem = problem
        self.base = divided
        self.best = timed(problem, divided)
        self.left = left

    def run(self, groups: Mapping[Ratio, Sequence[int]]) -> Timed:
        for first, tasks in groups.items():
            ratio = first
            for step in STEPS:
                ratio = self._shift(ratio, tasks, step)
        return self.best

    def _shift(self, ratio: Ratio, tasks: Sequence[int], step: int) -> Ratio:
        """Move the cuts of some tasks by a step as often as that pays; the ratio that they have."""
        moved = True
        while moved:
            moved = False
            for other in _neighbours(ratio, step):
                if self._takes(tasks, other):
                    ratio, moved = other, True
                    break
        return ratio

    def _takes(self, tasks: Sequence[int], ratio: Ratio) -> bool:
        """Whether tasks are better cut in a ratio; if so, they are from now on."""
        shares = dict(self.base.shares)
        for task in tasks:
            division = shares[task].division
            count = self.problem.divisions[task][division].count
            shares[task] = Shares(division, counts_of(count, ratio))
        valid = all(len(shares[task].units) > 1 for task in tasks)
        if not valid or shares == self.base.shares or not self.left:
            return False
        self.left -= 1
        units = list(self.base.units)
        for task in tasks:
            units[task] = max(shares[task].units, key=lambda pair: pair[1])[0]
        base = replace(self.base, units=tuple(units), shares=shares)
        found = timed(self.problem, base)
        if found.makespan_us >= (1 - LEAST_GAIN) * self.best.makespan_us:
            return False
        self.base, self.best = base, found
        return True


def _neighbours(ratio: Ratio, step: int) -> Iterator[Ratio]:
    """Ratios in which a processor has so much more, and another one less; both still have some."""
    least = step / GRAIN
    having = [unit for unit, part in enumerate(ratio) if part > 0]
    for more, less in itertools.permutations(having, 2):
        if ratio[less] > least:
            parts = list(ratio)
            parts[more], parts[less] = parts[more] + least, parts[less] - least
            yield tuple(parts)
