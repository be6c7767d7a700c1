"""Planners for what adapts while it runs: plans from known costs, times how far they were off.

For the same processors a plan is made from what the first one stood on: no graph is built and no
cost is looked up again, unless a budget of memory decides what the graph is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import onnx_ir as ir

from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.placement.policies.table import AUTO, Outcome
from coexec.planning.adapter import Planner, Proposal
from coexec.planning.planner import (
    Ground,
    Planning,
    PlanOptions,
    plan_again,
    plan_inference,
    plan_training,
)
from coexec.planning.verification import candidates
from coexec.training.trainer import Trainer

LOADED = 2.0
"""How many times longer a processor takes beside another process that computes on its cores."""


def training_planner(trainer: Trainer, feeds: Mapping[str, Array], how: PlanOptions) -> Planner:
    """Plans steps like those of ``trainer`` (which trains nothing here) on batches like ``feeds``.

    The first plan may measure for ``how.seconds``; later ones do with what is known.
    """
    return _planner(
        trainer.processors,
        how,
        lambda there, now: plan_training(trainer, feeds, now, there),
        again=trainer.memory.steps is None,
    )


def inference_planner(
    model: ir.Model,
    feeds: Mapping[str, Array],
    processors: Mapping[str, Processor],
    how: PlanOptions,
) -> Planner:
    """The same for runs of ``model`` on inputs like ``feeds``."""
    return _planner(processors, how, lambda there, now: plan_inference(model, feeds, there, now))


def _planner(
    processors: Mapping[str, Processor],
    how: PlanOptions,
    plan: Callable[[Mapping[str, Processor], PlanOptions], Planning],
    *,
    again: bool = True,
) -> Planner:
    first = True
    grounds: dict[tuple[str, ...], Ground] = {}

    def propose(factors: Mapping[str, float]) -> Proposal:
        nonlocal first
        there = {n: p for n, p in processors.items() if n in factors or n == how.last_resort}
        seconds, others = (how.seconds, again) if first else (0.0, False)
        first = False
        # One processor that is left divides nothing with others, whatever the policy says.
        policy = how.policy if len(factors) > 1 else AUTO
        now = replace(how, policy=policy, seconds=seconds, factors=factors)
        ground = grounds.get(tuple(there))
        if ground is not None:
            return proposal(plan_again(ground, now))
        planning = plan(there, now)
        if again:
            # Of processors that are lost nothing is kept.
            grounds.clear()
            grounds[tuple(there)] = planning.ground
        # Within a budget of memory, plans of one processor are made in another way.
        found = proposal(planning, [*factors] if again else ())
        loaded = _for_loads(planning.ground, now) if others else ()
        return replace(found, alternatives=(*found.alternatives, *loaded))

    return propose


def _for_loads(ground: Ground, how: PlanOptions) -> tuple[Proposal, ...]:
    """Plans for one of several processors taking longer: another process has half of its time."""
    found = []
    for name in how.factors if len(how.factors) > 1 else ():
        slower = {name: how.factors[name] * LOADED}
        planning = plan_again(ground, replace(how, factors={**how.factors, **slower}))
        found.append(replace(proposal(planning), factors=slower))
    return tuple(found)


def proposal(planning: Planning, names: Collection[str] = ()) -> Proposal:
    """A planning's plan with how long it keeps each processor busy.

    ``names`` are those of processors of which each alone is an alternative, where it executes all.
    """
    others = {} if len(names) < 2 else candidates(planning)
    alone = (others[f"only {name}"] for name in names if f"only {name}" in others)
    return Proposal(
        planning.plan,
        _busy_us(planning.ranking.chosen),
        tuple(Proposal(planning.plan_of(each), _busy_us(each)) for each in alone),
    )


def _busy_us(outcome: Outcome) -> dict[str, float]:
    names = (unit.name for unit in outcome.plain.problem.units)
    return dict(zip(names, outcome.timeline.busy_us, strict=True))
