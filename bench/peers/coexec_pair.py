"""A case on two processors: opened, loaded and planned once for all who take part in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

import coexec
from bench.busy_loop import BusyLoop
from coexec.api import LAST_RESORT, open_all
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.planning.planner import Planning, PlanOptions, plan_inference, plan_training
from coexec.session import Session
from coexec.steps.builder import Recipe
from coexec.training.trainer import Trainer

MEASURING_SECONDS = 60.0
SPLIT = "operator_split"
"""The policy whose planning has the outcomes of all others, with measured shares."""


class Pair:
    """The processors of a case with its model and data; ``spec`` is that of the case.

    ``load`` is what another process does to one of them, once it does.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.processors = open_all(spec["processors"])
        self.names = [name for name in self.processors if name != LAST_RESORT]
        self.data: dict[str, Array] = dict(np.load(spec["data"]))
        self.feeds: dict[str, Array] = {"x": self.data["x"]}
        self.model: ir.Model = coexec.load(spec["onnx"], shapes={"x": self.data["x"].shape})
        self.trains: bool = spec.get("trains", False)
        self.load: BusyLoop | None = None
        self._sessions: list[tuple[Plan, Session]] = []

    def alone(self, number: int) -> dict[str, Processor]:
        """One of the processors, with the last resort."""
        return {name: self.processors[name] for name in (self.names[number], LAST_RESORT)}

    @cached_property
    def planning(self) -> Planning:
        """All fast policies on both, for inference."""
        return self.plan(SPLIT, self.processors)

    def by_policy(self, policy: str) -> Planning:
        """:attr:`planning` with the plan of one of its policies."""
        outcomes = {outcome.policy: outcome for outcome in self.planning.ranking.outcomes}
        ranking = replace(self.planning.ranking, chosen=outcomes[policy])
        plan = self.planning.planned.plan(outcomes[policy])
        return replace(self.planning, plan=plan, ranking=ranking)

    def plan(self, policy: str, processors: Mapping[str, Processor]) -> Planning:
        """A plan for inference.

        Raises:
            RuntimeError: the last resort has a part in it.
        """
        planning = plan_inference(self.model, self.feeds, processors, options(policy))
        _require_own(planning)
        return planning

    def session(self, plan: Plan) -> Session:
        """A session that follows a plan; who follows the same one shares it."""
        for known, session in self._sessions:
            if _alike(known, plan):
                return session
        self._sessions.append((plan, Session(self.model, self.processors, follow=plan)))
        return self._sessions[-1][1]

    def different(self, plans: Sequence[Plan]) -> list[Plan]:
        """Without those that are run as one before them."""
        found: list[Plan] = []
        for plan in plans:
            if not any(_alike(plan, known) for known in found):
                found.append(plan)
        return found

    def trainer(self, processors: Mapping[str, Processor]) -> Trainer:
        """A trainer that has not trained and has no plan yet."""
        return trainer_of(self.model, processors)

    def plan_steps(self, trainer: Trainer, policy: str) -> Planning:
        """A plan for steps of a trainer.

        Raises:
            RuntimeError: the last resort has a part in it.
        """
        planning = plan_training(trainer, self.feeds, options(policy))
        _require_own(planning)
        return planning


def trainer_of(model: ir.Model, processors: Mapping[str, Processor]) -> Trainer:
    """SGD with momentum, as all who train a case do."""
    loss, optimizer = coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(0.01, momentum=0.9)
    return Trainer(model, Recipe(loss, optimizer), processors)


def options(policy: str) -> PlanOptions:
    """How a case is planned."""
    return PlanOptions(policy, MEASURING_SECONDS, last_resort=LAST_RESORT)


def facts_of(planning: Planning) -> dict[str, Any]:
    """What the plan that was chosen predicts, and how many of its nodes are divided."""
    chosen = planning.ranking.chosen
    problem, timeline = chosen.plain.problem, chosen.timeline
    return {
        "predicted_ms": chosen.makespan_us / 1e3,
        "divided": len(planning.plan.splits),
        "nodes": len(planning.plan.processors),
        "moves": len(timeline.moves),
        "busy_ms": {
            unit.name: busy / 1e3
            for unit, busy in zip(problem.units, timeline.busy_us, strict=True)
        },
    }


def _require_own(planning: Planning) -> None:
    if LAST_RESORT in planning.plan.processors.values():
        raise RuntimeError(f"not all on these processors: {planning.plan.table()}")


def _alike(one: Plan, other: Plan) -> bool:
    """Whether two plans are run alike, whoever made them and whatever they predict."""
    first, second = (replace(p, refusals=(), policy="", predicted_us=None) for p in (one, other))
    return first == second
