"""Dynamic programming over the tasks as one chain, with a cost for each switch of processor.

Exact where the graph is a chain: each task reads what the one before it made. Elsewhere tensors
that skip tasks are taken to arrive in time, and nothing runs side by side.
"""

from __future__ import annotations

import numpy as np

from coexec.placement.problem import Matrix, Problem, Schedule


def chain(problem: Problem) -> Schedule:
    """Least total of task times and switches; time linear in tasks, square in processors."""
    count, units = problem.time_us.shape
    if not count:
        return Schedule((), ())
    came_from = np.zeros((count, units), np.int64)
    cost = problem.time_us[0] + _from_host(problem, 0)
    for index in range(1, count):
        total = cost[:, None] + _switch(problem, index)
        came_from[index] = total.argmin(axis=0)
        cost = total.min(axis=0) + problem.time_us[index]
    unit = int((cost + _to_host(problem, count - 1)).argmin())
    placed = [unit]
    for index in range(count - 1, 0, -1):
        unit = int(came_from[index, unit])
        placed.append(unit)
    return Schedule(tuple(reversed(placed)), tuple(range(count)))


def _switch(problem: Problem, index: int) -> Matrix:
    """Delay from each processor (row) to each (column) of what the task before made for this."""
    units = len(problem.units)
    nbytes = [
        problem.tensors[tensor].nbytes
        for tensor in problem.tasks[index].inputs
        if problem.tensors[tensor].producer == index - 1
    ]
    if not nbytes:
        return np.zeros((units, units))
    delay: Matrix = problem.latency_us[:-1, :-1] + max(nbytes) * problem.us_per_byte[:-1, :-1]
    np.fill_diagonal(delay, 0.0)
    return delay


def _from_host(problem: Problem, index: int) -> Matrix:
    """Delay of the host's tensors that a task reads, by processor."""
    tensors = [problem.tensors[tensor] for tensor in problem.tasks[index].inputs]
    nbytes = [t.nbytes for t in tensors if t.producer is None and t.home is None]
    return _host_delay(problem.latency_us[-1, :-1], problem.us_per_byte[-1, :-1], nbytes)


def _to_host(problem: Problem, index: int) -> Matrix:
    """Delay of what the host wants of a task, by processor."""
    tensors = [problem.tensors[tensor] for tensor in problem.tasks[index].outputs]
    nbytes = [tensor.nbytes for tensor in tensors if tensor.fetched]
    return _host_delay(problem.latency_us[:-1, -1], problem.us_per_byte[:-1, -1], nbytes)


def _host_delay(latency: Matrix, us_per_byte: Matrix, nbytes: list[int]) -> Matrix:
    return latency + max(nbytes) * us_per_byte if nbytes else np.zeros_like(latency)
