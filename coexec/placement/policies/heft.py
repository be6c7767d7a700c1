"""Heterogeneous earliest finish time: the longest way to the end first, where it ends first.

Source: Topcuoglu, Hariri, Wu, "Performance-effective and low-complexity task scheduling for
heterogeneous computing" (2002). Two differences: tasks are appended, never inserted into gaps of
what stands before (linear, and true to queues that work in order), and processors that share a
resource wait for each other.
"""

from __future__ import annotations

import numpy as np

from coexec.placement.problem import Problem, Schedule


def heft(problem: Problem) -> Schedule:
    """Tasks by descending upward rank, each to the processor where it ends earliest."""
    ranks = upward_ranks(problem)
    order = sorted(range(len(problem.tasks)), key=lambda index: (-ranks[index], index))
    placed = [-1] * len(problem.tasks)
    end = [0.0] * len(problem.tasks)
    free = [0.0] * problem.resource_count
    for index in order:
        least = float("inf")
        best, ends = -1, 0.0
        for unit, time in enumerate(problem.times[index]):
            start = max(free[resource] for resource in problem.resources[unit])
            start = max(start, _arrival(problem, index, unit, placed, end))
            # What the host waits for counts as ended when it is there.
            reach = start + time + _way_to_host(problem, index, unit)
            if reach < least:
                least, best, ends = reach, unit, start + time
        placed[index], end[index] = best, ends
        for resource in problem.resources[best]:
            free[resource] = ends
    return Schedule(tuple(placed), tuple(order))


def upward_ranks(problem: Problem) -> list[float]:
    """Mean time from the start of each task to the end of everything, moves included.

    Means are over the processors that take the task, and over pairs of different processors.
    """
    finite = np.isfinite(problem.time_us)
    mean = np.where(finite, problem.time_us, 0.0).sum(axis=1) / finite.sum(axis=1)
    latency, us_per_byte = _mean_link(problem.latency_us), _mean_link(problem.us_per_byte)
    ranks = [0.0] * len(problem.tasks)
    for index in range(len(problem.tasks) - 1, -1, -1):
        after = 0.0
        for tensor in problem.tasks[index].outputs:
            consumers = problem.consumers[tensor]
            if consumers:
                move = latency + problem.tensors[tensor].nbytes * us_per_byte
                after = max(after, move + max(ranks[consumer] for consumer in consumers))
        ranks[index] = float(mean[index]) + after
    return ranks


def _mean_link(matrix: np.ndarray) -> float:
    """Mean over ordered pairs of different processors; 0 if there is one only."""
    between = matrix[:-1, :-1]
    count = len(between)
    if count < 2:
        return 0.0
    return float((between.sum() - np.trace(between)) / (count * (count - 1)))


def _arrival(problem: Problem, index: int, unit: int, placed: list[int], end: list[float]) -> float:
    """When the task's inputs are at ``unit``; those that lie where a later task runs, at once."""
    latest = 0.0
    for tensor in problem.tasks[index].inputs:
        source = problem.source(tensor, placed)
        if source < 0:
            continue
        producer = problem.tensors[tensor].producer
        made = 0.0 if producer is None else end[producer]
        latest = max(latest, made + problem.delay(tensor, source, unit))
    return latest


def _way_to_host(problem: Problem, index: int, unit: int) -> float:
    wanted = [t for t in problem.tasks[index].outputs if problem.tensors[t].fetched]
    return max((problem.delay(tensor, unit, problem.host) for tensor in wanted), default=0.0)
