"""Plans of one model on one phone, each made and compiled once for all workloads and conditions."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import onnx_ir as ir

from coexec.base.collection import collection_paused
from coexec.base.errors import FallbackWarning, ProcessorError
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.program import Launch, Program, Read, Write
from coexec.core.soc import Soc
from coexec.core.types import Array
from coexec.inputs import model_inputs
from coexec.placement.policies.exact import exact
from coexec.placement.policies.pipeline import pipeline
from coexec.placement.policies.table import (
    AUTO,
    EXACT,
    EXACT_TASKS,
    PIPELINE,
    Outcome,
    outcome_of,
    rank,
)
from coexec.planning.planner import Planning, PlanOptions, plan_static
from coexec.planning.static_model import static_model
from coexec.planning.turns import choose
from coexec.planning.verification import candidates, timed
from coexec.prepared import Prepared
from coexec.processors.simulated.options import SimulatedOptions
from coexec.processors.simulated.phone import Phone
from coexec.processors.simulated.processor import SimulatedProcessor
from coexec.runtime.executor import Executor
from coexec.runtime.mode import DEFAULT
from coexec.session import prepare
from coexec.simulation.condition import IDLE, condition_named
from coexec.study.definition import PROCESSORS

CPU = "cpu"
EXACT_SECONDS = 2.0
"""Rows say for which plans this was enough to prove that none is better."""
REMEMBERED = 24
"""Models of which the static form is kept."""
UNDER_WAY = 4
"""Requests that a pipeline has under way per processor, as a stream of a session has."""


@dataclass(frozen=True)
class Placed:
    """A plan with its program. ``busy_us`` is what it predicts each processor to be busy.

    ``key`` is the same for plans that put everything in the same places in the same order, and
    have as many requests ``under_way`` at once. ``note`` is the policy's.
    """

    plan: Plan
    program: Program
    busy_us: Mapping[str, float]
    key: str
    under_way: int = 1
    note: str = ""

    def record(self) -> dict[str, float | int | str]:
        """What the plan is, without running it; bytes of one run, ``predicted_ms`` alone."""
        steps = self.program.instructions
        homes = {buffer.name: buffer for buffer in self.program.buffers}
        copies = [homes[step.buffer] for step in steps if isinstance(step, (Read, Write))]
        nodes = dict.fromkeys(PROCESSORS, 0)
        for name in self.plan.processors.values():
            nodes[kind_of(name)] += 1
        return {
            "plan": self.key,
            "note": self.note,
            "predicted_ms": (self.plan.predicted_us or 0.0) / 1e3,
            **{f"nodes_{name}": count for name, count in nodes.items()},
            "splits": len(self.plan.splits),
            "refused": len(self.plan.refusals),
            "launches": sum(isinstance(step, Launch) for step in steps),
            "copies": len(copies),
            "copied_bytes": sum(buffer.nbytes for buffer in copies),
            "peak_bytes": self.program.peak_bytes,
            "naive_bytes": self.program.naive_bytes,
        }


class Desk:
    """A model and a phone, with all plans that were asked for so far."""

    def __init__(self, model: ir.Model, soc: Soc, options: SimulatedOptions, seed: int = 0) -> None:
        self.model = model
        self.soc = soc
        self.seed = seed
        self.options = options
        self.feeds = feeds_of(model)
        self._template = self.opened(Phone(soc, IDLE, seed, walled=False))
        self._planning: Planning | None = None
        self._placed: dict[str, Placed] = {}
        self._by_key: dict[str, Placed] = {}

    def phone(self, condition: str) -> Phone:
        """A phone as it is at first under a condition. The same seed gives the same other apps."""
        return Phone(self.soc, condition_named(condition), self.seed, walled=False)

    def opened(self, phone: Phone) -> dict[str, Processor]:
        """The processors of a phone. Their names tell no condition: plans are for all of them."""
        names = phone.soc.processors
        made = [SimulatedProcessor(phone, name, self.options) for name in names]
        return {each.name: each for each in made}

    def placed(self, strategy: str) -> Placed:
        """The plan of a processor (what it refuses is the CPU's), of a policy, or of ``auto``.

        Raises:
            ProcessorError: the phone has no such processor.
        """
        if strategy not in self._placed:
            placing = self._alone if strategy in PROCESSORS else self._by_policy
            self._placed[strategy] = placing(strategy)
        return self._placed[strategy]

    def slowed(self, factors: Mapping[str, float]) -> Placed:
        """What ``auto`` plans where processors take so many times longer than known."""
        planned = self._planned().planned.slowed(factors)
        chosen = rank(planned.problem).chosen
        return self._compiled(planned.plan(chosen), _busy_us(chosen))

    def _planned(self) -> Planning:
        if self._planning is None:
            how = PlanOptions(AUTO, seconds=0.0)
            self._planning = plan_static(static_of(self.model).clone(), self._template, how)
        return self._planning

    def _by_policy(self, policy: str) -> Placed:
        planning = self._planned()
        if policy == AUTO:
            chosen = self._tried(planning)
        elif policy in (PIPELINE, EXACT):
            chosen = _further(planning, policy)
        else:
            chosen = next(each for each in planning.ranking.outcomes if each.policy == policy)
        return self._compiled(planning.planned.plan(chosen), _busy_us(chosen), chosen.note)

    def _tried(self, planning: Planning) -> Outcome:
        """What ``auto`` takes: of the best predicted plans the fastest on an idle, steady phone."""
        outcomes = candidates(planning)
        opened = self.opened(Phone(self.soc, IDLE, self.seed, walled=False, steady=True))
        actions = {}
        for name, outcome in outcomes.items():
            program = self._compiled(planning.planned.plan(outcome), {}).program
            feeds = {each: self.feeds[each] for each in program.inputs}
            actions[name] = partial(Executor(program, opened).run, feeds)
        return outcomes[choose(timed(actions, opened))]

    def _alone(self, processor: str) -> Placed:
        names = {kind_of(name): name for name in self._template}
        if processor not in names:
            raise ProcessorError(f"{self.soc.title} has {', '.join(names)}, no {processor}")
        team = dict.fromkeys((names[processor], names[CPU]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)  # the row counts them
            found = self._prepared({name: self._template[name] for name in team})
        return self._known(replace(found.plan, policy=processor), found.program, {})

    def _compiled(self, plan: Plan, busy_us: Mapping[str, float], note: str = "") -> Placed:
        known = self._by_key.get(_key(plan))
        if known is not None:
            return replace(known, plan=plan, busy_us=busy_us, note=note)
        found = self._prepared(self._template, plan)
        return replace(self._known(plan, found.program, busy_us), note=note)

    @collection_paused()
    def _prepared(
        self, processors: Mapping[str, Processor], follow: Plan | None = None
    ) -> Prepared:
        return prepare(static_of(self.model).clone(), processors, DEFAULT, follow)

    def _known(self, plan: Plan, program: Program, busy_us: Mapping[str, float]) -> Placed:
        key = _key(plan)
        stages = len(set(plan.processors.values())) if plan.policy == PIPELINE else 1
        under_way = UNDER_WAY * stages if stages > 1 else 1
        placed = Placed(plan, program, busy_us, key, under_way)
        return self._by_key.setdefault(key, placed)


@lru_cache(REMEMBERED)
def static_of(model: ir.Model) -> ir.Model:
    """A model with static shapes and all folded, made once for all phones and plans; not to change.

    Inputs whose values decide shapes are zeros, as all inputs are here.
    """
    return static_model(model, feeds_of(model))


def feeds_of(model: ir.Model) -> dict[str, Array]:
    """Zeros for every input: times do not depend on values."""
    feeds = {}
    for value in model_inputs(model):
        assert value.shape is not None
        assert value.dtype is not None
        feeds[str(value.name)] = np.zeros(tuple(value.shape.numpy()), value.dtype.numpy())
    return feeds


def kind_of(name: str) -> str:
    """``gpu`` of ``sim:snapdragon-865/gpu?numerics=none``."""
    return name.partition("/")[2].partition("?")[0].partition(":")[0]


def _busy_us(outcome: Outcome) -> dict[str, float]:
    names = (unit.name for unit in outcome.plain.problem.units)
    return dict(zip(names, outcome.timeline.busy_us, strict=True))


def _further(planning: Planning, policy: str) -> Outcome:
    """A policy that is not ranked with the fast ones.

    Raises:
        ProcessorError: the graph is too large for ``exact``.
    """
    problem = planning.planned.problem
    if policy == PIPELINE:
        return outcome_of(problem, PIPELINE, pipeline(problem))
    if len(problem.tasks) > EXACT_TASKS:
        raise ProcessorError(f"{len(problem.tasks)} tasks are more than {EXACT} takes here")
    start = next(each for each in planning.ranking.outcomes if not each.schedule.shares)
    found = exact(problem, start.schedule, EXACT_SECONDS)
    return outcome_of(problem, EXACT, found.schedule, "optimal" if found.proved else "")


def _key(plan: Plan) -> str:
    splits = {n: (s.axis, s.sizes, s.overlap) for n, s in plan.splits.items()}
    parts = [plan.processors, plan.order, splits, plan.policy == PIPELINE]
    text = json.dumps(parts, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
