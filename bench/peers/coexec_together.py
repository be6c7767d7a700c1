"""coexec on two processors by a plan, or on one of them alone.

Options: ``role``. ``first`` and ``second`` are the processors of a case alone; a policy's name is
its plan; ``best_ratio`` is the fastest division of a single layer that a search finds by running.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

import coexec
from bench.worker import Job
from coexec.api import LAST_RESORT, open_all
from coexec.core.plan import Plan, Split
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.placement.policies.table import AUTO
from coexec.planning.planner import Planning, PlanOptions, plan_inference, plan_training
from coexec.planning.verification import verify, verify_training
from coexec.session import Session

ALONE = {"first": 0, "second": 1}
BEST_RATIO = "best_ratio"
MEASURING_SECONDS = 60.0
PARTS = 32
"""Divisions are looked for in parts of this many: eighths first, then finer around the best."""
WARM_UP, TRIALS, TRIAL_SECONDS = 2, 5, 0.05


class Followed:
    """A session that follows a plan; a run copies the input, computes and reads the output."""

    def __init__(self, session: Session, feeds: Mapping[str, Array], facts: dict[str, Any]) -> None:
        self.session, self.feeds, self._facts = session, feeds, facts
        self._outputs = list(session.run(feeds).values())

    def run(self, count: int) -> None:
        for _ in range(count):
            self.session.run(self.feeds)

    def outputs(self) -> Sequence[Any]:
        return [np.ravel(y) for y in self._outputs]

    def facts(self) -> Mapping[str, Any]:
        return self._facts


class Trained:
    """Training steps by a plan; the results are the losses of the first two."""

    def __init__(
        self, trainer: coexec.Trainer, data: Mapping[str, Array], facts: Mapping[str, Any]
    ) -> None:
        self.trainer, self.data, self._facts = trainer, data, facts
        self._losses = [self._step(), self._step()]

    def _step(self) -> float:
        return self.trainer.step({"x": self.data["x"]}, self.data["labels"])

    def run(self, count: int) -> None:
        for _ in range(count):
            self._step()

    def outputs(self) -> Sequence[Any]:
        return [np.array(self._losses)]

    def facts(self) -> Mapping[str, Any]:
        return self._facts


def trained(
    model: ir.Model, data: Mapping[str, Array], names: Sequence[str], policy: str
) -> Trained:
    """Plan a training step by a policy, and train by that plan."""
    loss, optimizer = coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(0.01, momentum=0.9)
    feeds = {"x": data["x"]}
    how = PlanOptions(policy, MEASURING_SECONDS, last_resort=LAST_RESORT)
    planner = coexec.Trainer(model, loss, optimizer, names)
    planning = plan_training(planner, feeds, how)
    plan = planning.plan
    if policy == AUTO:
        plan, _ = verify_training(planner, feeds, data["labels"], planning)
    # Nothing is predicted of a plan that only running has chosen.
    facts = facts_of(planning) if plan is planning.plan else {}
    return Trained(coexec.Trainer(model, loss, optimizer, names, plan=plan), data, facts)


class Together:
    """Cases of two processors in one role."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.role: str = options["role"]

    def describe(self) -> Mapping[str, Any]:
        return {"library": "coexec", "version": coexec.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("its processors are measured by themselves")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        spec = case["spec"]
        names = spec["processors"]
        if self.role in ALONE:
            names = [names[ALONE[self.role]]]
        policy = "single_best" if self.role in ALONE else self.role
        data = dict(np.load(spec["data"]))
        if case["kind"].endswith(".train"):
            model = coexec.load(spec["onnx"], shapes={"x": data["x"].shape})
            return trained(model, data, names, policy)
        processors = open_all(names)
        model, feeds = coexec.load(spec["onnx"]), {"x": data["x"]}
        if self.role == BEST_RATIO:
            policy = "operator_split"
        how = PlanOptions(policy, MEASURING_SECONDS, last_resort=LAST_RESORT)
        planning = plan_inference(model, feeds, processors, how)
        if LAST_RESORT in planning.plan.processors.values():
            raise RuntimeError(f"not all on these processors: {planning.plan.table()}")
        if self.role == BEST_RATIO:
            return Search(model, feeds, processors, planning).run()
        if self.role == AUTO:
            planning = verify(model, feeds, processors, planning).planning
        session = Session(model, processors, follow=planning.plan)
        return Followed(session, feeds, facts_of(planning))


def facts_of(planning: Planning) -> dict[str, Any]:
    """What the plan predicts, and how many of its nodes are divided."""
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


@dataclass(frozen=True)
class Ratio:
    """A division of a layer: ``part`` of :data:`PARTS` on the first processor, along ``axis``."""

    axis: int
    part: int


class Search:
    """Runs a model of one node that computes in many divisions; keeps the fastest."""

    def __init__(
        self,
        model: ir.Model,
        feeds: Mapping[str, Array],
        processors: Mapping[str, Processor],
        planning: Planning,
    ) -> None:
        self.model, self.feeds, self.processors = model, feeds, processors
        problem = planning.planned.problem
        index = max(problem.divisions, key=lambda i: min(problem.times[i]))
        self.name = problem.tasks[index].name
        self.divisions = {division.axis: division for division in problem.divisions[index]}
        self.units = [unit.name for unit in problem.units]
        self.nodes = list(planning.plan.processors)
        self.seconds: dict[Ratio, float] = {}
        self.session: Session | None = None

    def run(self) -> Followed:
        """Eighths on every axis, then sixteenths and finer around the best."""
        for axis in self.divisions:
            for part in range(PARTS // 8, PARTS, PARTS // 8):
                self._try(Ratio(axis, part))
        for step in (PARTS // 16, PARTS // 32):
            best = self.best
            for part in (best.part - step, best.part + step):
                self._try(replace(best, part=part))
        assert self.session is not None
        facts = {
            "tried": len(self.seconds),
            "axis": self.best.axis,
            "first_share": self.best.part / PARTS,
        }
        return Followed(self.session, self.feeds, facts)

    @property
    def best(self) -> Ratio:
        return min(self.seconds, key=lambda ratio: self.seconds[ratio])

    def _try(self, ratio: Ratio) -> None:
        division = self.divisions[ratio.axis]
        count = round(ratio.part / PARTS * division.count)
        if ratio in self.seconds or not 0 < count < division.count:
            return
        counts = zip(self.units, (count, division.count - count), strict=True)
        split = Split(ratio.axis, {unit: n * division.quantum for unit, n in counts})
        plan = Plan(dict.fromkeys(self.nodes, self.units[0]), splits={self.name: split})
        session = Session(self.model, self.processors, follow=plan)
        self.seconds[ratio] = min(_timed(session, self.feeds))
        if self.best == ratio:
            self.session = session


def _timed(session: Session, feeds: Mapping[str, Array]) -> Iterator[float]:
    """Seconds of some runs."""
    for _ in range(WARM_UP):
        session.run(feeds)
    begin = time.perf_counter()
    count = 0
    while count < TRIALS or time.perf_counter() - begin < TRIAL_SECONDS:
        start = time.perf_counter()
        session.run(feeds)
        yield time.perf_counter() - start
        count += 1


def open_peer(options: Mapping[str, Any]) -> Together:
    """A peer for one role."""
    return Together(options)
