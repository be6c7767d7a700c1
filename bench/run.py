"""A run: suites on everybody who takes part, as one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bench.budget import Budget
from bench.case import Case, Suite
from bench.contenders import SINGLE, Contender
from bench.pool import Pool
from bench.protocol import PeerFailed
from bench.record import Record, case_record, now, suite_record
from bench.rounds import Round
from bench.start import start_times
from bench.turns import Observer, run_case


class Watcher(Protocol):
    """Who follows a run."""

    def tell(self, text: str) -> None:
        """What is going on."""

    def done(self, suite: Suite, case: Record) -> None:
        """A case is measured."""

    def skipped(self, suite: Suite, case: Case, why: str) -> None:
        """A case is not measured."""


@dataclass(frozen=True)
class Choice:
    """What of the suites is wanted. ``turns`` 0 is each suite's own number.

    ``rounds``, by suite, are those that are gone on with.
    """

    quick: bool = False
    pattern: str = ""
    turns: int = 0
    cold: bool = False
    rounds: Mapping[str, Round] = field(default_factory=dict)

    def cases(self, suite: Suite) -> tuple[Case, ...]:
        """Cases that are wanted and not measured yet in the round that is gone on with."""
        done = self.rounds[suite.name].done if suite.name in self.rounds else ()
        return tuple(c for c in suite.chosen(self.quick, self.pattern) if c.name not in done)

    def began(self, suite: Suite) -> str:
        """When the round of a suite began; now, if it is a new one."""
        return self.rounds[suite.name].began if suite.name in self.rounds else now()


def describe(machine: Record, contenders: Sequence[Contender], pool: Pool) -> None:
    """Versions and devices of everybody, or why they are not there; each process is asked once."""
    known: dict[str, Record] = {}
    for contender in contenders:
        if contender.process not in known:
            try:
                known[contender.process] = pool.worker(contender).ask({"do": "describe"})
            except PeerFailed as failure:
                known[contender.process] = {"absent": str(failure)}
            pool.discard(contender)
        machine["contenders"][contender.name] = known[contender.process]


def measure_limits(
    machine: Record, contenders: Sequence[Contender], pool: Pool, tell: Observer
) -> None:
    """Peak and bandwidth of our devices, in this run: the rates are held against them."""
    for contender in contenders:
        taking_part = "absent" not in machine["contenders"].get(contender.name, {"absent": ""})
        if contender.precision == SINGLE and taking_part:
            tell(f"limits of {contender.name}")
            machine["limits"][contender.name] = pool.worker(contender).ask({"do": "measure"})
            pool.discard(contender)


def present(contenders: Sequence[Contender], machine: Record) -> list[Contender]:
    """Those whose library is there."""
    known = machine["contenders"]
    return [c for c in contenders if "absent" not in known[c.name]]


@dataclass
class Run:
    """Everything that the cases of one run share. ``keep`` gets a suite's record so far."""

    machine: Record
    contenders: Sequence[Contender]
    choice: Choice
    pool: Pool
    budget: Budget
    watcher: Watcher
    keep: Callable[[str, Record], None]

    def suite(self, suite: Suite) -> Record:
        """All chosen cases of a suite, as far as time allows."""
        contenders = present(self.contenders, self.machine)
        records: list[Record] = []
        began = self.choice.began(suite)
        found = suite_record(suite, records, self.machine, began)
        for case in self.choice.cases(suite):
            if self.budget.left <= 0:
                self.watcher.skipped(suite, case, "time is up")
                continue
            if not any(c.takes(case.kind, case.spec) for c in contenders):
                self.watcher.skipped(suite, case, "nobody takes part")
                continue
            records.append(self._case(suite, case, contenders))
            found = suite_record(suite, records, self.machine, began)
            self.keep(suite.name, found)
            self.watcher.done(suite, records[-1])
        return found

    def _case(self, suite: Suite, case: Case, contenders: Sequence[Contender]) -> Record:
        def observe(text: str) -> None:
            self.watcher.tell(f"{suite.name}, {case.name}: {text}")

        turns = self.choice.turns or suite.turns
        deadline = self.budget.deadline(suite.name, case.name)
        rows = run_case(suite, case, contenders, self.pool, turns, deadline, observe)
        if case.spec.get("start"):
            measured = [row for row in rows if not row.error]
            start_times(suite, case, measured, self.pool, self.choice.cold, observe)
        return case_record(suite, case, rows)
