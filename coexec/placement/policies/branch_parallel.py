"""Independent branches between a fork and its join side by side; all else on the best processor.

A task is a cut if, once it has run, all that comes later depends on it alone. Between two
cuts the connected parts of the graph are branches. They are dealt out, the longest first, to
whichever processor ends it first; a deal that gains nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coexec.placement.policies.single_best import single_best
from coexec.placement.problem import Problem, Schedule


def branch_parallel(problem: Problem) -> Schedule:
    """The best single processor's schedule with branches dealt out where that is faster."""
    alone = single_best(problem)
    placed = list(alone.units)
    first = 0
    for cut in cuts(problem):
        branches = _branches(problem, range(first, cut))
        if len(branches) > 1:
            _deal(problem, branches, placed)
        first = cut + 1
    return Schedule(tuple(placed), alone.order)


def cuts(problem: Problem) -> list[int]:
    """Tasks on which alone all later ones depend, in order, and last the end.

    What nobody reads stays wanted to the end.
    """
    wanted = [len(consumers) for consumers in problem.consumers]
    # Tensors of each task that somebody still has to read.
    live = [0] * len(problem.tasks)
    open_tasks = 0
    roots = [_is_root(problem, index) for index in range(len(problem.tasks))]
    roots_left = sum(roots)
    found = []
    for index, task in enumerate(problem.tasks):
        roots_left -= roots[index]
        for tensor in task.inputs:
            producer = problem.tensors[tensor].producer
            wanted[tensor] -= 1
            if producer is not None and not wanted[tensor]:
                live[producer] -= 1
                open_tasks -= not live[producer]
        read = sum(wanted[tensor] > 0 for tensor in task.outputs)
        live[index] = max(read, 1)
        open_tasks += 1
        if open_tasks == 1 and not roots_left:
            found.append(index)
    return [*found, len(problem.tasks)]


def _is_root(problem: Problem, index: int) -> bool:
    """Whether a task reads nothing that another one makes."""
    return all(problem.tensors[t].producer is None for t in problem.tasks[index].inputs)


def _branches(problem: Problem, tasks: range) -> list[list[int]]:
    """Connected parts among consecutive tasks (union-find), in order of their first task."""
    parent = {index: index for index in tasks}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index in tasks:
        for tensor in problem.tasks[index].inputs:
            producer = problem.tensors[tensor].producer
            if producer is not None and producer in parent:
                parent[root(producer)] = root(index)
    parts: dict[int, list[int]] = {}
    for index in tasks:
        parts.setdefault(root(index), []).append(index)
    return list(parts.values())


def _deal(problem: Problem, branches: Sequence[list[int]], placed: list[int]) -> None:
    """Longest processing time first, to the processor where the branch and its moves end first."""
    # For each branch its time on every processor, as a row.
    table = [problem.time_us[branch].sum(axis=0) for branch in branches]
    here = [float(sum(problem.times[i][placed[i]] for i in branch)) for branch in branches]
    free = [0.0] * problem.resource_count
    dealt: dict[int, int] = {}
    for number in sorted(range(len(branches)), key=lambda number: -here[number]):
        ends = np.array(
            [
                max(free[resource] for resource in problem.resources[unit])
                + table[number][unit]
                + _ways(problem, branches[number], unit, placed)
                for unit in range(len(problem.units))
            ]
        )
        unit = int(ends.argmin())
        if not np.isfinite(ends[unit]):
            return
        dealt[number] = unit
        for resource in problem.resources[unit]:
            free[resource] = float(ends[unit])
    if max(free) < sum(here):
        for number, unit in dealt.items():
            for index in branches[number]:
                placed[index] = unit


def _ways(problem: Problem, branch: list[int], unit: int, placed: list[int]) -> float:
    """The longest move into a branch on ``unit`` and the longest out of it."""
    inside = set(branch)
    into = out = 0.0
    for index in branch:
        for tensor in problem.tasks[index].inputs:
            producer = problem.tensors[tensor].producer
            if producer not in inside:
                source = problem.source(tensor, placed)
                into = max(into, problem.delay(tensor, source, unit))
        for tensor in problem.tasks[index].outputs:
            for consumer in problem.consumers[tensor]:
                if consumer not in inside:
                    out = max(out, problem.delay(tensor, unit, placed[consumer]))
    return into + out
