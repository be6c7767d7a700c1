"""Branches of a divided schedule whole, side by side on several processors, where that pays.

Between a fork and its join, branches that run side by side exchange nothing, and layers that are
whole keep their rate; shares of them are balanced better. Both are there in one network: what comes
before the first fork is divided in any case. After IOS (Ding and others, 2021), which chooses
between the two for each stage of a network, on one GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from coexec.placement.policies.branch_parallel import branch_parallel, cuts
from coexec.placement.policies.heft import heft
from coexec.placement.policies.shift_cuts import LEAST_GAIN, Timed, timed
from coexec.placement.problem import Problem, Schedule

MAY_GAIN = 1.2
"""A timeline is made where whole tasks take up to so many times as long as shares do: these wait
for exchanges, too."""


def side_by_side(problem: Problem, divided: Timed) -> Timed:
    """``divided``, or what ends earlier with parts of it as policies place whole tasks.

    A part lies between two tasks on which alone all later ones depend. One after the other is
    placed so if the timeline gets shorter.
    """
    base, best = divided.schedule.without_overlaps(), divided
    placed = [branch_parallel(problem), heft(problem)]
    for part in _between_cuts(problem):
        for units in dict.fromkeys(tuple(each.units[task] for task in part) for each in placed):
            if not _promising(problem, base, part, units):
                continue
            other = _with_whole(base, part, units)
            found = timed(problem, other)
            if found.makespan_us < (1 - LEAST_GAIN) * best.makespan_us:
                base, best = other, found
    return best


def _promising(problem: Problem, divided: Schedule, tasks: range, units: Sequence[int]) -> bool:
    """Whether whole tasks on several ``units`` may end earlier than they do in ``divided``."""
    if len(set(units)) < 2:
        return False
    shared = sum(_longest_share(problem, divided, task) for task in tasks)
    return _whole_us(problem, tasks, units) < MAY_GAIN * shared


def _whole_us(problem: Problem, tasks: range, units: Sequence[int]) -> float:
    """How long tasks take in their order on ``units``, each after what it reads of them."""
    free, ends = [0.0] * len(problem.units), dict[int, float]()
    for task, unit in zip(tasks, units, strict=True):
        start = free[unit]
        for tensor in problem.tasks[task].inputs:
            maker = problem.tensors[tensor].producer
            if maker in ends:
                way = problem.delay(tensor, units[maker - tasks.start], unit)
                start = max(start, ends[maker] + way)
        free[unit] = ends[task] = start + problem.times[task][unit]
    return max(free)


def _longest_share(problem: Problem, divided: Schedule, task: int) -> float:
    """Microseconds of a task as it is divided, or whole."""
    shares = divided.shares.get(task)
    if shares is None:
        return problem.times[task][divided.units[task]]
    division = problem.divisions[task][shares.division]
    return max(division.time_us(unit, count) for unit, count in shares.units)


def _between_cuts(problem: Problem) -> Iterator[range]:
    """Consecutive tasks between cuts, where there are several."""
    first = 0
    for cut in cuts(problem):
        if cut - first > 1:
            yield range(first, cut)
        first = cut + 1


def _with_whole(schedule: Schedule, tasks: range, units: Sequence[int]) -> Schedule:
    """``schedule`` with some tasks whole on ``units``."""
    everywhere = list(schedule.units)
    everywhere[tasks.start : tasks.stop] = units
    shares = {task: each for task, each in schedule.shares.items() if task not in tasks}
    return replace(schedule, units=tuple(everywhere), shares=shares)
