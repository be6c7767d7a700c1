"""Each operator where it is fastest, its operands' way there included; nobody looks ahead."""

from __future__ import annotations

from coexec.placement.problem import Problem, Schedule


def greedy(problem: Problem) -> Schedule:
    """One task after the other to the processor with the least time for moves and task."""
    placed: list[int] = []
    for index, task in enumerate(problem.tasks):
        best, least = -1, float("inf")
        for unit, time in enumerate(problem.times[index]):
            cost = time
            for tensor in task.inputs:
                home = problem.tensors[tensor].home
                if home is None or home < index:
                    cost += problem.delay(tensor, problem.source(tensor, placed), unit)
            if cost < least:
                best, least = unit, cost
        placed.append(best)
    return Schedule(tuple(placed), tuple(range(len(placed))))
