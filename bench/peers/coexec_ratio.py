"""The fastest division of a layer between two processors, looked for by running."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.peers.coexec_pair import Pair
from coexec.core.plan import Plan, Split
from coexec.core.types import Array
from coexec.session import Session

PARTS = 32
"""Divisions are looked for in parts of this many: eighths first, then finer around the best."""
WARM_UP, TRIALS, TRIAL_SECONDS = 2, 5, 0.05


@dataclass(frozen=True)
class Ratio:
    """A division of a layer: ``part`` of :data:`PARTS` on the first processor, along ``axis``."""

    axis: int
    part: int


class Search:
    """Runs a model of one node that computes in many divisions; keeps the fastest."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        planning = pair.planning
        problem = planning.planned.problem
        index = max(problem.divisions, key=lambda i: min(problem.times[i]))
        self.name = problem.tasks[index].name
        self.divisions = {division.axis: division for division in problem.divisions[index]}
        self.units = [unit.name for unit in problem.units]
        self.nodes = list(planning.plan.processors)
        self.seconds: dict[Ratio, float] = {}
        self._fastest: Session | None = None

    def run(self) -> tuple[Session, dict[str, Any]]:
        """Eighths on every axis, then sixteenths and finer around the best.

        Raises:
            RuntimeError: no axis divides between the processors.
        """
        for axis in self.divisions:
            for part in range(PARTS // 8, PARTS, PARTS // 8):
                self._try(Ratio(axis, part))
        if self._fastest is None:
            raise RuntimeError(f"{self.name} does not divide")
        for step in (PARTS // 16, PARTS // 32):
            best = self.best
            for part in (best.part - step, best.part + step):
                self._try(replace(best, part=part))
        facts = {
            "tried": len(self.seconds),
            "axis": self.best.axis,
            "first_share": self.best.part / PARTS,
        }
        return self._fastest, facts

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
        session = Session(self.pair.model, self.pair.processors, follow=plan)
        self.seconds[ratio] = min(_timed(session, self.pair.feeds))
        if self.best == ratio:
            self._fastest = session


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
