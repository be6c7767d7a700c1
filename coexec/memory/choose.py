"""What to recompute: the best of the chain's plan and greedy descent, judged by lifetimes."""

from __future__ import annotations

from functools import lru_cache

from coexec.memory.chain import Chain, Dropped
from coexec.memory.greedy import choose as descend
from coexec.memory.lifetimes import usage
from coexec.memory.problem import Choice, StepProblem, best

MARGINS = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Shares of the budget for which the chain is planned: its reckoning is rougher than lifetimes."""
REFINED = 2
"""Plans of the chain that descent goes on from."""
MILD = 2.5
"""Up to so many budgets in the plain peak, descent is tried from the plain step as well."""


def choose(problem: StepProblem, budget: int, *, quick: bool = False) -> Choice:
    """What to recompute so that the step fits ``budget`` bytes in the least time.

    If nothing found fits, the choice of the lowest peak. A ``quick`` choice is that of the chains
    as it is: good enough to compare steps.
    """
    plain = usage(problem).peak
    if plain <= budget:
        return Choice(frozenset(), plain, 0.0)
    goal = max(budget, least_peak(problem))
    planned = {dropped: _choice(problem, dropped) for dropped in _chain_plans(problem, goal, plain)}
    ranked = sorted(planned, key=lambda d: (max(planned[d].peak, goal), planned[d].extra_us))
    if quick and planned:
        return best([*planned.values()], budget)
    refined = [descend(problem, goal, *dropped) for dropped in ranked[:REFINED]]
    if plain <= MILD * goal or not refined:
        refined.append(descend(problem, goal))
    return best([*refined, *planned.values()], budget)


def _chain_plans(problem: StepProblem, goal: int, plain: int) -> list[Dropped]:
    """Plans of the chain for the goal and below, or else for the least that it can do."""
    plans: list[Dropped | None] = []
    for chain in _chains(problem):
        own = [chain.plan(int(goal * margin)) for margin in MARGINS]
        if None in own:
            low = int(goal * MARGINS[-1])
            own.append(chain.plan(chain.least(low, plain)))
        plans += own
    return [*dict.fromkeys(plan for plan in plans if plan and plan.candidates)]


@lru_cache(maxsize=16)
def _chains(problem: StepProblem) -> tuple[Chain, ...]:
    """The step as a chain of the smallest segments, and as one of blocks."""
    return Chain(problem), Chain(problem, by_blocks=True)


def least_peak(problem: StepProblem) -> int:
    """The most that a single node needs: no plan takes less."""
    needed = 0
    for node in problem.nodes:
        roots = {problem.roots[tensor] for tensor in (*node.reads, *node.writes)}
        shared = max((problem.nbytes[written] for written, _ in node.in_place), default=0)
        own = sum(problem.nbytes[root] for root in roots) - shared + node.workspace
        needed = max(needed, own)
    return needed


def _choice(problem: StepProblem, dropped: Dropped) -> Choice:
    recomputed = problem.recomputed(dropped.candidates)
    alone = dropped.alone & recomputed
    used = usage(problem, recomputed, alone)
    return Choice(recomputed, used.peak, used.extra_us, alone)
