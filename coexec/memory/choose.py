"""What to recompute: the best of the chain's plan and greedy descent, judged by lifetimes."""

from __future__ import annotations

from functools import lru_cache

from coexec.memory.chain import Chain, Dropped
from coexec.memory.greedy import choose as descend
from coexec.memory.live_bytes import forget_live_bytes, live_bytes
from coexec.memory.lower_bound import widest_node
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
    plain = live_bytes(problem).peak
    if plain <= budget:
        return Choice(frozenset(), plain, 0.0)
    goal = max(budget, widest_node(problem))
    planned = _chain_plans(problem, goal, plain)
    ranked = sorted(planned, key=lambda d: (max(planned[d].peak, goal), planned[d].extra_us))
    if quick and planned:
        return best([*planned.values()], budget)
    refined = [descend(problem, goal, *dropped) for dropped in ranked[:REFINED]]
    if plain <= MILD * goal or not refined:
        refined.append(descend(problem, goal))
    return best([*refined, *planned.values()], budget)


def tightened(problem: StepProblem, choice: Choice, budget: int) -> Choice:
    """A choice with more recomputed, for a budget a little below the one that it was made for.

    Descent goes on from it, many times faster than from nothing; where that ends above the budget,
    a new one is made.
    """
    more = descend(problem, budget, choice.dropped, choice.alone)
    return more if more.peak <= budget else choose(problem, budget)


def _chain_plans(problem: StepProblem, goal: int, plain: int) -> dict[Dropped, Choice]:
    """Plans of the chains, each for less until one fits the goal, or for the least it can do."""
    found: dict[Dropped, Choice] = {}
    for chain in _chains(problem):
        for margin in MARGINS:
            target = int(goal * margin)
            plan = chain.plan(target)
            least = plan is None
            plan = plan or chain.plan(chain.least(target, plain))
            if plan and plan.candidates:
                found[plan] = found.get(plan) or _choice(problem, plan)
            if least or (plan in found and found[plan].peak <= goal):
                break
    return found


@lru_cache(maxsize=16)
def _chains(problem: StepProblem) -> tuple[Chain, ...]:
    """The step as a chain of the smallest segments, and as one of blocks."""
    return Chain(problem), Chain(problem, by_blocks=True)


def forget_problems() -> None:
    """Let go of the chains and lifetimes of problems, megabytes, once a search has ended."""
    _chains.cache_clear()
    forget_live_bytes()


def _choice(problem: StepProblem, dropped: Dropped) -> Choice:
    recomputed = problem.recomputed(dropped.candidates)
    alone = dropped.alone & recomputed
    used = live_bytes(problem, recomputed, alone)
    return Choice(recomputed, used.peak, used.extra_us, alone, dropped.candidates)
