"""How often a stream of inputs yields a result: one processor, a pipeline, or a copy on each.

A steady state: all processors that take part are always busy, each slowed down by the others. What
a processor takes in or gives away is written and read by itself, once per input and direction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from coexec.placement.problem import Problem, Schedule


@dataclass(frozen=True)
class StreamRates:
    """Inputs per second by prediction: of a schedule as a pipeline, of copies, of the best alone.

    ``busy_us`` is the time of each processor per input in the pipeline; ``copies`` has the share of
    the inputs that each processor takes where each has a copy of the model (0: it takes no part).
    """

    pipeline: float
    replicas: float
    alone: float
    busy_us: tuple[float, ...]
    copies: tuple[float, ...]


def stream_rates(problem: Problem, schedule: Schedule) -> StreamRates:
    """Predict the rates of a stream through ``schedule`` (tasks whole) and its alternatives."""
    used = sorted(set(schedule.units))
    busy = [_busy_us(problem, schedule.units, unit, used) for unit in range(len(problem.units))]
    whole = _whole_models(problem)
    alone = max((1e6 / each for each in whole.values()), default=0.0)
    copies = _copies(problem, whole)
    total = sum(copies.values())
    return StreamRates(
        pipeline=1e6 / busiest if (busiest := _busiest_resource(problem, busy)) else 0.0,
        replicas=total,
        alone=alone,
        busy_us=tuple(busy),
        copies=tuple(copies.get(unit, 0.0) / total for unit in range(len(problem.units)))
        if total
        else (0.0,) * len(problem.units),
    )


def _whole_models(problem: Problem) -> dict[int, float]:
    """Time of the whole model, alone, on each processor that takes all of it."""
    count = len(problem.tasks)
    units = [u for u in range(len(problem.units)) if np.isfinite(problem.time_us[:, u]).all()]
    return {unit: _busy_us(problem, (unit,) * count, unit, (unit,)) for unit in units}


def _copies(problem: Problem, whole: dict[int, float]) -> dict[int, float]:
    """Inputs per second of each processor with a copy: the fastest first, silicon booked once."""
    team: list[int] = []
    taken: set[int] = set()
    for unit in sorted(whole, key=lambda each: whole[each]):
        if not taken.intersection(problem.resources[unit]):
            team.append(unit)
            taken.update(problem.resources[unit])
    count = len(problem.tasks)
    return {unit: 1e6 / _busy_us(problem, (unit,) * count, unit, team) for unit in team}


def _busy_us(problem: Problem, placed: tuple[int, ...], unit: int, used: Iterable[int]) -> float:
    """Time of a processor per input while all of ``used`` are busy: its tasks, and what moves."""
    own = [task for task, where in enumerate(placed) if where == unit]
    slowdown = 1.0 + sum(float(problem.slowdown[unit, q]) - 1.0 for q in used if q != unit)
    time = float(problem.time_us[own, unit].sum()) * slowdown
    taken = given = 0
    for number, tensor in enumerate(problem.tensors):
        source = problem.source(number, placed)
        there = any(placed[task] == unit for task in problem.consumers[number])
        if there and source != unit:
            taken += tensor.nbytes
        away = any(placed[task] != unit for task in problem.consumers[number])
        if source == unit and tensor.producer is not None and (away or tensor.fetched):
            given += tensor.nbytes
    for nbytes, source, target in ((taken, problem.host, unit), (given, unit, problem.host)):
        if nbytes:
            line = (source, target)
            time += float(problem.latency_us[line] + nbytes * problem.us_per_byte[line])
    return time


def _busiest_resource(problem: Problem, busy: list[float]) -> float:
    """Time per input of the silicon that is wanted most."""
    wanted = [0.0] * problem.resource_count
    for unit, time in enumerate(busy):
        for resource in problem.resources[unit]:
            wanted[resource] += time
    return max(wanted)
