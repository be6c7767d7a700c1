"""Divide operators among processors where that pays: dynamic programming over chains of shares.

Each task is whole on one processor or divided in one of a few ratios (:mod:`split_states`); between
two of them stands what moves (:mod:`split_moves`). After CoDL (Jia and others, 2022), which chooses
among such chains on phones, with measured costs. The cuts of the chain that is found are then moved
by what its timeline says (:mod:`shift_cuts`), and branches run whole where that ends earlier
(:mod:`side_by_side`).
"""

from __future__ import annotations

from coexec.base.collection import collection_paused
from coexec.placement.policies.shift_cuts import makespan, shift_cuts
from coexec.placement.policies.side_by_side import side_by_side
from coexec.placement.policies.single_best import single_best
from coexec.placement.policies.split_chain import best_chain, schedule_of
from coexec.placement.problem import Problem, Schedule


@collection_paused()
def operator_split(problem: Problem) -> Schedule:
    """All on one processor or a chain of whole and divided tasks, whatever is predicted best."""
    alone = single_best(problem)
    if not problem.divisions or len(problem.units) < 2:
        return alone
    states = best_chain(problem)
    divided = schedule_of(states)
    if not divided.shares:
        return min(alone, divided, key=lambda schedule: makespan(problem, schedule))
    found = side_by_side(problem, shift_cuts(problem, states, divided))
    return found.schedule if found.makespan_us < makespan(problem, alone) else alone
