"""All on one processor, the one where that is fastest: what every other policy has to beat."""

from __future__ import annotations

import numpy as np

from coexec.placement.problem import Problem, Schedule
from coexec.placement.timeline import simulate


def single_best(problem: Problem) -> Schedule:
    """The best of one schedule per processor.

    Tasks that the processor refuses go where they are fastest.
    """
    order = tuple(range(len(problem.tasks)))
    fastest = problem.time_us.argmin(axis=1)
    schedules = []
    for unit in range(len(problem.units)):
        here = np.isfinite(problem.time_us[:, unit])
        places = np.where(here, unit, fastest)
        schedules.append(Schedule(tuple(places.tolist()), order))
    return min(schedules, key=lambda schedule: simulate(problem, schedule).makespan_us)
