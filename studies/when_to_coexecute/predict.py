"""What the timeline predicts for one divided operator, at any cost of synchronisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from coexec.core.plan import Plan, Split
from coexec.placement.divide import divide
from coexec.placement.policies.balance import balanced
from coexec.placement.policies.single_best import single_best
from coexec.placement.problem import Problem, Schedule, Shares
from coexec.placement.timeline import simulate
from coexec.planning.planner import Planning

MOST_SYNC_US = 1e6
STEPS = 40


@dataclass(frozen=True)
class Prediction:
    """Milliseconds alone on the better processor, and divided as well as can be."""

    alone_ms: float
    divided_ms: float
    schedule: Schedule

    @property
    def speedup(self) -> float:
        return self.alone_ms / self.divided_ms


def with_sync(problem: Problem, sync_us: float) -> Problem:
    """The problem with one latency between any two processors, and between them and the host."""
    latency = np.full_like(problem.latency_us, sync_us)
    np.fill_diagonal(latency, 0.0)
    return replace(problem, latency_us=latency)


def own_sync_us(problem: Problem) -> float:
    """The latency between two processors of this device: the mean of both directions."""
    return float((problem.latency_us[0, 1] + problem.latency_us[1, 0]) / 2)


def predict(problem: Problem) -> Prediction:
    """The best division of the problem's heaviest task beside the best processor alone."""
    alone = simulate(problem, single_best(problem)).makespan_us
    found = [(_makespan_us(problem, schedule), schedule) for schedule in _divided(problem)]
    divided, schedule = min(found, key=lambda pair: pair[0])
    return Prediction(alone / 1e3, divided / 1e3, schedule)


def break_even_us(problem: Problem) -> float:
    """The synchronisation cost at which dividing stops to pay: by bisection, 0 if it never pays."""
    low, high = 0.0, MOST_SYNC_US
    for _ in range(STEPS):
        middle = (low + high) / 2
        pays = predict(with_sync(problem, middle)).speedup > 1
        low, high = (middle, high) if pays else (low, middle)
    return low


def heaviest(problem: Problem) -> int:
    """The task that computes, of those that divide."""
    return max(problem.divisions, key=lambda index: min(problem.times[index]))


def plan_of(planning: Planning, axis: int, first: int) -> Plan:
    """All on the first processor, but what is left of ``first`` elements of an axis."""
    problem = planning.planned.problem
    division = next(d for d in problem.divisions[heaviest(problem)] if d.axis == axis)
    names = [unit.name for unit in problem.units]
    sizes = {names[0]: first, names[1]: division.count * division.quantum - first}
    splits = {problem.tasks[heaviest(problem)].name: Split(axis, sizes)}
    return Plan(dict.fromkeys(planning.plan.processors, names[0]), splits=splits)


def _divided(problem: Problem) -> Iterator[Schedule]:
    """The heaviest task along each axis: balanced, and in halves where balance leaves it whole."""
    index = heaviest(problem)
    order = tuple(range(len(problem.tasks)))
    for number, division in enumerate(problem.divisions[index]):
        half = division.count // 2
        halves = ((0, half), (1, division.count - half))
        for units in (balanced(problem, division), balanced(problem, division, False), halves):
            if len(units) > 1 and min(count for _, count in units) > 0:
                largest = max(units, key=lambda pair: pair[1])[0]
                placed = (largest,) * len(problem.tasks)
                yield Schedule(placed, order, {index: Shares(number, units)})


def _makespan_us(problem: Problem, schedule: Schedule) -> float:
    plain = divide(problem, schedule)
    return simulate(plain.problem, plain.schedule).makespan_us
