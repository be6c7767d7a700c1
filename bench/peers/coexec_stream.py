"""Streams of inputs on two processors, and one input after the other on one of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from bench.peers.coexec_pair import Pair
from coexec.api import LAST_RESORT
from coexec.core.types import Array
from coexec.placement.policies.table import PIPELINE
from coexec.serving.balance import balanced
from coexec.serving.stages import compile_stages
from coexec.serving.stream import Pipeline, Replicas, Stream
from coexec.serving.threads import own_cores
from coexec.session import Session

INPUTS = 32
"""Of a run: what the last ones leave one processor idle is a few percent of it."""


class OneByOne:
    """A run is as many inputs as a stream's, each when the one before is done."""

    def __init__(self, session: Session, feeds: Mapping[str, Array]) -> None:
        self.session, self.feeds = session, feeds
        self._outputs = list(session.run(feeds).values())

    def run(self, count: int) -> None:
        for _ in range(count * INPUTS):
            self.session.run(self.feeds)

    def outputs(self) -> Sequence[Any]:
        return [np.ravel(y) for y in self._outputs]

    def facts(self) -> Mapping[str, Any]:
        return {"inputs": INPUTS}


class Streamed:
    """A run is a stream of its own, from the first input to the last output."""

    def __init__(
        self, stream: Stream, feeds: Mapping[str, Array], facts: Mapping[str, Any]
    ) -> None:
        self.stream, self.feeds, self._facts = stream, feeds, facts
        (outputs,) = stream.run([feeds])
        self._outputs = list(outputs.values())

    def run(self, count: int) -> None:
        for _ in range(count):
            deque(self.stream.run(repeat(self.feeds, INPUTS)), maxlen=0)

    def outputs(self) -> Sequence[Any]:
        return [np.ravel(y) for y in self._outputs]

    def facts(self) -> Mapping[str, Any]:
        return {"inputs": INPUTS, **self._facts}


def replicas_of(pair: Pair) -> Streamed:
    """A copy of the model on each processor; whoever is free takes the next input."""
    plans = [pair.plan("single_best", pair.alone(number)).plan for number in range(2)]
    sessions = dict(zip(pair.names, (pair.session(plan) for plan in plans), strict=True))
    return Streamed(Replicas(sessions, _cores(pair)), pair.feeds, {})


def pipeline_of(pair: Pair) -> Streamed:
    """Stages on both, balanced by running them."""
    planning = pair.plan(PIPELINE, pair.processors)
    found = balanced(planning, pair.feeds, pair.processors, LAST_RESORT)
    stages = compile_stages(planning.model, found.plan, pair.processors, LAST_RESORT)
    facts = {"stages": len(stages), "rounds": found.rounds}
    return Streamed(Pipeline(stages, _cores(pair)), pair.feeds, facts)


def _cores(pair: Pair) -> dict[str, tuple[tuple[int, ...], ...]]:
    return {name: own_cores(pair.processors[name]) for name in pair.names}
