"""The fastest division of a layer between two processors, looked for by running."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeVar

from bench.peers.coexec_pair import Pair
from coexec.core.plan import Plan, Split
from coexec.core.types import Array
from coexec.session import Session

PARTS = 32
"""Divisions are looked for in parts of this many: eighths first, then finer around the best."""
WARM_UP, TRIALS, TRIAL_SECONDS = 2, 5, 0.05
FINALISTS, TURNS, TURN_SECONDS = 3, 9, 0.03
"""The fastest divisions by their trials take so many turns: one may have had a lucky trial."""
Runs = TypeVar("Runs")


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
        # Those of the fastest only: each has weights of its own.
        self._sessions: dict[Ratio, Session] = {}

    def run(self) -> tuple[Session, dict[str, Any]]:
        """Eighths on every axis, then sixteenths and finer around the best, then a final.

        Raises:
            RuntimeError: no axis divides between the processors.
        """
        for axis in self.divisions:
            for part in range(PARTS // 8, PARTS, PARTS // 8):
                self._try(Ratio(axis, part))
        if not self._sessions:
            raise RuntimeError(f"{self.name} does not divide")
        for step in (PARTS // 16, PARTS // 32):
            best = self.best
            for part in (best.part - step, best.part + step):
                self._try(replace(best, part=part))
        winner = in_turns(self._sessions, self._turn)
        facts = {
            "tried": len(self.seconds),
            "axis": winner.axis,
            "first_share": winner.part / PARTS,
        }
        return self._sessions[winner], facts

    @property
    def best(self) -> Ratio:
        return min(self.seconds, key=lambda ratio: self.seconds[ratio])

    def _turn(self, session: Session) -> float:
        return median(_timed(session, self.pair.feeds, TURN_SECONDS))

    def _try(self, ratio: Ratio) -> None:
        division = self.divisions[ratio.axis]
        count = round(ratio.part / PARTS * division.count)
        if ratio in self.seconds or not 0 < count < division.count:
            return
        counts = zip(self.units, (count, division.count - count), strict=True)
        split = Split(ratio.axis, {unit: n * division.quantum for unit, n in counts})
        plan = Plan(dict.fromkeys(self.nodes, self.units[0]), splits={self.name: split})
        session = Session(self.pair.model, self.pair.processors, follow=plan)
        self.seconds[ratio] = min(_timed(session, self.pair.feeds, TRIAL_SECONDS))
        self._sessions[ratio] = session
        if len(self._sessions) > FINALISTS:
            del self._sessions[max(self._sessions, key=lambda known: self.seconds[known])]


def in_turns(divided: Mapping[Ratio, Runs], turn: Callable[[Runs], float]) -> Ratio:
    """The division with the least median of the seconds of its turns."""
    found: dict[Ratio, list[float]] = {ratio: [] for ratio in divided}
    for _ in range(TURNS):
        for ratio, runs in divided.items():
            found[ratio].append(turn(runs))
    return min(found, key=lambda ratio: median(found[ratio]))


def _timed(session: Session, feeds: Mapping[str, Array], seconds: float) -> Iterator[float]:
    """Times of some runs, which take so many seconds together."""
    for _ in range(WARM_UP):
        session.run(feeds)
    begin = time.perf_counter()
    count = 0
    while count < TRIALS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        session.run(feeds)
        yield time.perf_counter() - start
        count += 1
