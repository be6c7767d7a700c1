"""A processor that refuses some operators, and one other that takes all of those.

`single_best` sends each refused task where that is fastest, which may be one more processor to wait
for; here all refused tasks are on one. Other tasks stay on the first processor, whatever that
costs: the order of preference that users write down.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from coexec.placement.problem import Problem, Schedule
from coexec.placement.timeline import simulate


def fallback_order(problem: Problem) -> Schedule:
    """Each task on the first processor of an order that takes it: the best order of that kind.

    Orders differ in their first two processors. Those that need none but their first count only if
    there are no others.
    """
    order = tuple(range(len(problem.tasks)))
    placed = dict.fromkeys(_placed(problem, preferred) for preferred in _orders(problem))
    falling_back = [places for places in placed if len(set(places)) > 1]
    schedules = [Schedule(places, order) for places in falling_back or placed]
    return min(schedules, key=lambda schedule: simulate(problem, schedule).makespan_us)


def _orders(problem: Problem) -> Iterator[tuple[int, ...]]:
    units = range(len(problem.units))
    for first in units:
        for second in units:
            ahead = tuple(dict.fromkeys((first, second)))
            yield (*ahead, *(unit for unit in units if unit not in ahead))


def _placed(problem: Problem, preferred: tuple[int, ...]) -> tuple[int, ...]:
    """By task, the first processor of the order that takes it."""
    takes = np.isfinite(problem.time_us[:, list(preferred)])
    return tuple(preferred[place] for place in takes.argmax(axis=1).tolist())
