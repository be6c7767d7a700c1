"""Pipelines balanced by what their stages really take.

Costs of single nodes know nothing of what a processor gains when it compiles many together, and
engines gain differently: the stages of a predicted pipeline are unequal. So stages are compiled and
timed, costs are fitted to what was measured, and the model is cut again, until cuts come back or
rounds are over. The best pipeline that was measured is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from coexec.base.cores import pinned
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.timeline import clock_of
from coexec.core.types import Array
from coexec.placement.policies.pipeline import pipeline
from coexec.placement.problem import Matrix, Problem, Schedule
from coexec.placement.stream import stream_rates
from coexec.placement.timeline import simulate
from coexec.planning.planner import Planning
from coexec.serving.stages import Stage, compile_stages
from coexec.serving.threads import own_cores
from coexec.serving.timing import time_ms

ROUNDS, SWEEPS = 8, 20
LEAST_SHARE = 0.1
"""Of what was measured, the least that counts as computing: predicted moves may be too long."""
Measure = Callable[[Plan], Mapping[str, float]]
"""Milliseconds per input of each processor of a pipeline."""


@dataclass(frozen=True)
class Balanced:
    """A pipeline and what its processors take per input, measured one after the other."""

    plan: Plan
    schedule: Schedule
    busy_ms: Mapping[str, float]
    rounds: int

    @property
    def per_second(self) -> float:
        """Inputs per second if processors do not slow each other down."""
        return 1e3 / max(self.busy_ms.values())


def balance(problem: Problem, plan: Plan, measure: Measure, rounds: int = ROUNDS) -> Balanced:
    """Cut, measure and cut again; ``plan`` is any pipeline of the problem's tasks."""
    names = [unit.name for unit in problem.units]
    # Stages are measured one after the other.
    fitted = replace(problem, slowdown=np.ones_like(problem.slowdown))
    found: list[Balanced] = []
    while len(found) < rounds:
        # In turn anywhere and at the ends of blocks: nobody knows what cutting a block costs.
        ways = (False, True) if len(found) % 2 == 0 else (True, False)
        schedules = (pipeline(fitted, calm=calm) for calm in ways)
        known = {each.schedule.units for each in found}
        schedule = next((each for each in schedules if each.units not in known), None)
        if schedule is None:
            break
        cut = _followed(problem, plan, schedule)
        busy_ms = measure(cut)
        found.append(Balanced(cut, schedule, busy_ms, len(found) + 1))
        fitted = replace(fitted, time_us=_fit(fitted, names, found))
    best = max(found, key=lambda each: each.per_second)
    return replace(best, rounds=len(found))


def _fit(problem: Problem, names: Sequence[str], found: Sequence[Balanced]) -> Matrix:
    """Times of tasks that add up to all that was measured, each scaled as little as that takes.

    Iterative proportional fitting: the tasks of each measured stage are scaled to its time, again
    and again. What was never measured on a processor is scaled as the first stage there.
    """
    times = problem.time_us.copy()
    targets = []
    for number, each in enumerate(found):
        busy_us = stream_rates(problem, each.schedule).busy_us
        placed = np.array(each.schedule.units)
        for unit in np.unique(placed):
            own = placed == unit
            measured_us = each.busy_ms.get(names[unit], 0.0) * 1e3
            moves_us = busy_us[unit] - problem.time_us[own, unit].sum()
            target_us = max(measured_us - moves_us, LEAST_SHARE * measured_us)
            targets.append((unit, own, target_us))
            first = not any(unit in known.schedule.units for known in found[:number])
            if number == len(found) - 1 and first and times[own, unit].sum() > 0:
                times[:, unit] *= target_us / times[own, unit].sum()
    for _ in range(SWEEPS):
        for unit, own, target_us in targets:
            total = times[own, unit].sum()
            if total > 0:
                times[own, unit] *= target_us / total
    return times


def _followed(problem: Problem, plan: Plan, schedule: Schedule) -> Plan:
    """``plan`` with the places and the order of a schedule."""
    tasks, units = problem.tasks, problem.units
    return replace(
        plan,
        processors={t.name: units[p].name for t, p in zip(tasks, schedule.units, strict=True)},
        order=tuple(tasks[index].name for index in schedule.order),
        predicted_us=simulate(problem, schedule).makespan_us,
    )


def balanced(
    planning: Planning,
    feeds: Mapping[str, Array],
    processors: Mapping[str, Processor],
    last_resort: str,
) -> Balanced:
    """Balance a planned pipeline by running its stages on ``feeds``, each alone."""

    def measure(plan: Plan) -> dict[str, float]:
        return busy_ms(compile_stages(planning.model, plan, processors, last_resort), feeds)

    return balance(planning.planned.problem, planning.plan, measure)


def busy_ms(stages: list[Stage], feeds: Mapping[str, Array]) -> dict[str, float]:
    """Milliseconds per input of each processor, its stages timed one after the other."""
    tensors: Mapping[str, Array] = feeds
    busy: dict[str, float] = {}
    for stage in stages:
        before, tensors = tensors, stage.run(tensors)
        with pinned(own_cores(stage.session.processors[stage.processor])):
            clock = clock_of(stage.session.processors.values())
            taken = time_ms(partial(stage.run, before), clock)
        busy[stage.processor] = busy.get(stage.processor, 0.0) + taken
    return busy
