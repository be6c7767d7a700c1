"""When the host has handed a schedule's tasks over: one thread does, in the order of the program.

A task costs the host its launch, and an exchange where it waits for something new of another
processor: the result is announced there, the wait and the next region are handed over here. One
exchange covers all that the other one made before. What waits for a gate (updates, for the loss) is
handed over once the host has seen that.
"""

from __future__ import annotations

from typing import NamedTuple

from coexec.placement.problem import Problem, Schedule


class HandedOver(NamedTuple):
    """Microseconds until the host is done with each task, and with all that waits for no gate.

    Of a task behind a gate they count from the moment when that opens. ``exchanges_us`` is what the
    exchange of a task takes the host.
    """

    done_us: list[float]
    given_us: float
    exchanges_us: list[float]


def taken_from_caller(
    problem: Problem, schedule: Schedule, exchanges_us: list[float]
) -> list[float]:
    """Microseconds before each task of the caller's processor in which it hands others theirs."""
    taken, pending = [0.0] * len(exchanges_us), 0.0
    for index in schedule.order:
        unit = schedule.units[index]
        pending += exchanges_us[index]
        if unit == problem.caller:
            taken[index], pending = pending, 0.0
        elif problem.times[index][unit]:
            pending += problem.units[unit].launch_us
    return taken


def handed_over(problem: Problem, schedule: Schedule) -> HandedOver:
    """What the host does for a schedule, in its order."""
    placed, exchange = schedule.units, problem.exchanges
    position = {index: place for place, index in enumerate(schedule.order)}
    # By processor and the one that it waits for, the last task there that it has waited for.
    awaited: dict[tuple[int, int], int] = {}
    clocks = [0.0, 0.0]
    done = [0.0] * len(problem.tasks)
    exchanges = [0.0] * len(problem.tasks)
    for index in schedule.order:
        unit = placed[index]
        needed: dict[int, int] = {}
        gated = False
        for number in problem.tasks[index].inputs:
            tensor = problem.tensors[number]
            gated |= tensor.gate
            source = problem.source(number, placed)
            if source not in (unit, problem.host):
                made = -1 if tensor.producer is None else position[tensor.producer]
                needed[source] = max(made, needed.get(source, -1))
        new = [q for q, made in needed.items() if made > awaited.get((unit, q), -2)]
        awaited.update(((unit, source), needed[source]) for source in new)
        exchanges[index] = sum(exchange[q][unit] for q in new)
        clocks[gated] += problem.units[unit].launch_us + exchanges[index]
        done[index] = clocks[gated]
    return HandedOver(done, clocks[False], exchanges)
