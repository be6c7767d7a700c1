"""Shares balanced by what their regions took when a plan was run.

Calls are measured one by one, and programs of one processor tell how they follow each other there.
Shares differ from both: what is fused or keeps its layout in a whole network begins anew in each
region. Balanced by such times, one processor waits for the other in every region. So a run of a
divided plan is traced, its tasks get the times that their regions took, and its cuts are moved. Of
what it did otherwise, its regions say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coexec.core.events import HOST, LAUNCH, LAYOUT, Event, Trace
from coexec.core.plan import Plan
from coexec.placement.build_problem import Planned
from coexec.placement.policies.operator_split import operator_split
from coexec.placement.policies.shift_cuts import shift_again
from coexec.placement.policies.table import Outcome, outcome_of
from coexec.placement.problem import Division, Problem, Schedule
from coexec.planning.turns import quiet
from coexec.runtime.region_work import RegionWork

TRACES = 9
"""Runs of a plan whose regions are timed; of each the first quartile counts, as one that is
disturbed makes its tasks longer in all plans that follow."""
ROUNDS = 3
"""So often a plan is traced and made again, at most: until the plan is one that was there."""
LEAST, MOST = 0.4, 2.5
"""A region corrects the times of its tasks by no less and no more: a small one is mostly launch."""
BY_TRACES = " by traces"
"""Names of plans that were balanced so end in this."""
POLICY = "operator_split"
FEWER = 4.0
"""A way between processors takes so many times as long in a network as in a chain of tiny nodes:
caches are full of something else, and who waits for whom changes from region to region."""
Work = tuple[str, int, str]
"""A node of the model, the number of a processor, and the operator that cuts or joins for it."""
Factors = Mapping[tuple[int, int], float]
"""By task and processor, how many times longer than known it takes."""


@dataclass(frozen=True)
class Followed:
    """Runs by a plan: ``run`` makes one, noted in a trace if there is one.

    ``work`` says what each launch computes; nothing where nobody knows.
    """

    run: Callable[[Trace | None], object]
    work: tuple[RegionWork, ...] = ()


@dataclass(frozen=True)
class Tried:
    """A plan that is followed; ``planned`` has the times that it was made by."""

    planned: Planned
    outcome: Outcome
    plan: Plan
    followed: Followed


def balanced(
    starts: Sequence[Tried],
    follow: Callable[[Plan], Followed],
    fastest: Callable[[Sequence[Tried]], Tried],
) -> Tried:
    """The fastest of ``starts``, or a plan that is faster still, with shares by traces of it.

    ``follow`` makes a plan ready to run; ``fastest`` runs some in turns. What a plan that is slower
    showed counts as well: its regions are others.
    """
    best = newest = fastest(starts)
    known = [each.plan for each in starts]
    for _ in range(ROUNDS):
        times = region_times(newest.followed)
        if not times:
            break
        planned = by_regions(newest.planned, newest.outcome, newest.followed.work, times)
        outcome = _as_traced(planned.problem, shift_again(planned.problem, newest.outcome.schedule))
        plan = planned.plan(outcome)
        if any(alike(plan, other) for other in known):
            break
        known.append(plan)
        newest = Tried(planned, outcome, plan, follow(plan))
        best = fastest([best, newest])
    return best


def starts_by_calls(planned: Planned) -> Iterator[tuple[Planned, Outcome]]:
    """Plans with operators in shares by the times of calls: as they are, and of fewer exchanges."""
    for often in (1.0, FEWER):
        slower = replace(planned, problem=_with_longer_ways(planned.problem, often))
        schedule = operator_split(slower.problem)
        if schedule.shares:
            yield planned, _as_traced(planned.problem, schedule)


def _with_longer_ways(problem: Problem, factor: float) -> Problem:
    """Ways between processors that take so many times as long; those to the host do not."""
    longer = problem.latency_us.copy()
    longer[: problem.host, : problem.host] *= factor
    return replace(problem, latency_us=longer)


def _as_traced(problem: Problem, schedule: Schedule) -> Outcome:
    """A plan with operators in shares; its makespan is that of its timeline."""
    return outcome_of(replace(problem, corrections={}), f"{POLICY}{BY_TRACES}", schedule)


def region_times(followed: Followed) -> list[float]:
    """Microseconds of each launch, in the order of ``followed.work``.

    Nothing where a trace has not one event for each launch.
    """
    runs = []
    for _ in range(TRACES):
        trace = Trace()
        followed.run(trace)
        found = _in_order(trace.events, followed.work)
        if not found:
            return []
        runs.append(found)
    return [quiet(times) for times in zip(*runs, strict=True)]


def _in_order(events: Sequence[Event], work: Sequence[RegionWork]) -> list[float]:
    """Of one run; each processor works in the order of its launches."""
    launches: dict[str, list[Event]] = {each.processor: [] for each in work}
    for event in sorted(events, key=lambda each: each.start_ns):
        if event.track != HOST and event.kind in (LAUNCH, LAYOUT):
            launches.setdefault(event.track, []).append(event)
    if sum(map(len, launches.values())) != len(work):
        return []
    ordered = {name: iter(each) for name, each in launches.items()}
    found = [next(ordered[each.processor], None) for each in work]
    return [each.duration_ns / 1e3 for each in found if each is not None]


def by_regions(
    planned: Planned, outcome: Outcome, work: Sequence[RegionWork], times_us: Sequence[float]
) -> Planned:
    """``planned`` with tasks that take as long as the regions did in which they were.

    ``outcome`` is what was run, one of ``planned``; ``work`` and ``times_us`` are of its regions.
    Processors were busy beside each other then: nothing makes tasks slower than that once more.
    """
    numbers = {unit.name: number for number, unit in enumerate(planned.problem.units)}
    tasks = {task.name: number for number, task in enumerate(planned.problem.tasks)}
    known = _known_us(planned.problem, outcome)
    factors: dict[tuple[int, int], float] = {}
    for each, us in zip(work, times_us, strict=True):
        unit = numbers[each.processor]
        thought = sum(known.get((node, unit, piece), 0.0) for node, piece in each.nodes)
        if thought > 0:
            factor = min(max(us / thought, LEAST), MOST)
            computed = (node for node, piece in each.nodes if not piece and node in tasks)
            factors.update({(tasks[node], unit): factor for node in computed})
    scaled = _scaled(planned.problem, factors)
    return replace(planned, problem=replace(scaled, slowdown=np.ones_like(scaled.slowdown)))


def _known_us(problem: Problem, outcome: Outcome) -> dict[Work, float]:
    """Microseconds that an outcome is predicted to take for each work; of several alike, one."""
    plain = outcome.plain
    found: dict[Work, list[float]] = {}
    for index, task in enumerate(plain.problem.tasks):
        unit, node = plain.schedule.units[index], problem.tasks[plain.origin[index]].name
        whole = task.name in (node, f"{node}/{problem.units[unit].name}")
        work = (node, unit, "" if whole else task.operator)
        found.setdefault(work, []).append(plain.problem.times[index][unit])
    return {work: sum(times) / len(times) for work, times in found.items()}


def _scaled(problem: Problem, factors: Factors) -> Problem:
    times, divisions = problem.time_us.copy(), dict(problem.divisions)
    for (task, unit), factor in factors.items():
        times[task, unit] *= factor
        ways = divisions.get(task, ())
        divisions[task] = tuple(_on_unit(division, unit, factor) for division in ways)
    kept = {task: ways for task, ways in divisions.items() if ways}
    return replace(problem, time_us=times, divisions=kept)


def _on_unit(division: Division, unit: int, factor: float) -> Division:
    """A division whose shares take so many times longer on one processor."""
    curves = tuple(
        tuple((share, us * factor) for share, us in curve) if number == unit else curve
        for number, curve in enumerate(division.curves)
    )
    return replace(division, curves=curves)


def alike(one: Plan, other: Plan) -> bool:
    """Whether two plans are run alike, whatever they predict."""
    first, second = (replace(each, policy="", predicted_us=None) for each in (one, other))
    return first == second
