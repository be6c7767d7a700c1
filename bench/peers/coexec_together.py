"""coexec on two processors by a plan, or on one of them alone.

All who take part in a case are in one process and take turns there. Roles of a case: ``first`` and
``second`` are the processors of a case alone; a policy's name is its plan; ``best_ratio`` is the
fastest division of a single layer that a search finds by running. Of streams they are ``replicas``
and ``pipeline``, and what happens to a processor while it works is in :mod:`coexec_adaptive`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

import coexec
from bench.peers.coexec_adaptive import Adapted, BestLoaded, TakenAway, Undisturbed
from bench.peers.coexec_pair import Pair, facts_of
from bench.peers.coexec_ratio import Search
from bench.peers.coexec_stream import OneByOne, pipeline_of, replicas_of
from bench.worker import Job
from coexec.core.types import Array
from coexec.placement.policies.table import AUTO
from coexec.planning.verification import verify, verify_training
from coexec.session import Session
from coexec.training.trainer import Trainer

ALONE: Mapping[str, int] = MappingProxyType({"first": 0, "second": 1})
SINGLE_BEST, BEST_RATIO, ADAPTED = "single_best", "best_ratio", "adapted"


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
        self, trainer: Trainer, data: Mapping[str, Array], facts: Mapping[str, Any]
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


def inference(pair: Pair, role: str) -> Job:
    """Runs by the plan of a policy, on a processor alone, or in the best division found."""
    if role == BEST_RATIO:
        session, found = Search(pair).run()
        return Followed(session, pair.feeds, found)
    if role in ALONE:
        planning = pair.plan(SINGLE_BEST, pair.alone(ALONE[role]))
    elif role == AUTO:
        planning = pair.plan(AUTO, pair.processors)
        planning = verify(pair.model, pair.feeds, pair.processors, planning).planning
    else:
        planning = pair.by_policy(role)
    return Followed(pair.session(planning.plan), pair.feeds, facts_of(planning))


def training(pair: Pair, role: str) -> Job:
    """Steps by the plan of a policy, or on a processor alone."""
    there = pair.alone(ALONE[role]) if role in ALONE else pair.processors
    trainer = pair.trainer(there)
    planning = pair.plan_steps(trainer, SINGLE_BEST if role in ALONE else role)
    if role == AUTO:
        planning = verify_training(trainer, pair.feeds, pair.data["labels"], planning).planning
    return Trained(trainer.with_plan(planning.plan), pair.data, facts_of(planning))


def stream(pair: Pair, role: str) -> Job:
    """A stream of inputs through copies or a pipeline, or one after the other on a processor."""
    if role in ALONE:
        planning = pair.plan(SINGLE_BEST, pair.alone(ALONE[role]))
        return OneByOne(pair.session(planning.plan), pair.feeds)
    return pipeline_of(pair) if role == "pipeline" else replicas_of(pair)


def loaded(pair: Pair, role: str) -> Job:
    """Runs while another process takes half of a core."""
    return Adapted(pair) if role == ADAPTED else BestLoaded(pair)


def removed(pair: Pair, role: str) -> Job:
    """A training that loses a processor, or never had it."""
    return TakenAway(pair) if role == ADAPTED else Undisturbed(pair)


ROLES: Mapping[str, Callable[[Pair, str], Job]] = MappingProxyType(
    {
        "layer": inference,
        "model": inference,
        "train": training,
        "stream": stream,
        "loaded": loaded,
        "removed": removed,
    }
)
"""Jobs by the last part of the case's kind."""


class Together:
    """Cases of two processors, all roles of one after the other."""

    def __init__(self) -> None:
        self._spec: Mapping[str, Any] = {}
        self._pair: Pair | None = None

    def describe(self) -> Mapping[str, Any]:
        return {"library": "coexec", "version": coexec.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("its processors are measured by themselves")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        if self._pair is None or case["spec"] != self._spec:
            self._spec, self._pair = case["spec"], Pair(case["spec"])
        return ROLES[case["kind"].rpartition(".")[2]](self._pair, case["role"])


def open_peer(_options: Mapping[str, Any]) -> Together:
    """A peer for all roles."""
    return Together()
