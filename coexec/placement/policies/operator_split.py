"""Divide operators among processors where that pays: dynamic programming over chains of shares.

Each task is whole on one processor or divided in one of a few ratios (:mod:`split_states`); between
two of them stands what moves (:mod:`split_moves`). After CoDL (Jia and others, 2022), which chooses
among such chains on phones, with measured costs.
"""

from __future__ import annotations

from coexec.base.collection import collection_paused
from coexec.placement.divide import divide
from coexec.placement.policies.overlap import overlap
from coexec.placement.policies.single_best import single_best
from coexec.placement.policies.split_moves import Moves
from coexec.placement.policies.split_states import State, states_of
from coexec.placement.problem import Problem, Schedule
from coexec.placement.timeline import simulate


@collection_paused()
def operator_split(problem: Problem) -> Schedule:
    """All on one processor or a chain of whole and divided tasks, whatever is predicted best."""
    alone = single_best(problem)
    if not problem.divisions or len(problem.units) < 2:
        return alone
    order = tuple(range(len(problem.tasks)))
    states = _best_chain(problem)
    divided = Schedule(
        tuple(state.unit for state in states),
        order,
        {i: state.shares for i, state in enumerate(states) if state.shares is not None},
    )
    candidates = [alone, divided]
    overlapping = overlap(problem, divided)
    if overlapping.shares != divided.shares:
        candidates.append(overlapping)
    return min(candidates, key=lambda schedule: _makespan(problem, schedule))


def _best_chain(problem: Problem) -> list[State]:
    """Least total of task times and of what moves between neighbours in the order of tasks."""
    table, moves = states_of(problem), Moves(problem)
    cost = table[0].times_us + moves.with_host(0, table[0])
    came_from = []
    for index in range(1, len(table)):
        here = table[index]
        total = cost[:, None] + moves.between(index, table[index - 1], here)
        came_from.append(total.argmin(axis=0))
        cost = total.min(axis=0) + (here.times_us + moves.with_host(index, here))
    place = int(cost.argmin())
    chosen = [table[-1].each[place]]
    for index in range(len(table) - 2, -1, -1):
        place = int(came_from[index][place])
        chosen.append(table[index].each[place])
    return chosen[::-1]


def _makespan(problem: Problem, schedule: Schedule) -> float:
    plain = divide(problem, schedule)
    return simulate(plain.problem, plain.schedule).makespan_us
