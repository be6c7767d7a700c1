"""A run: suites on everybody who takes part, as one record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.budget import Budget
from bench.case import Case, Suite
from bench.contenders import SINGLE, Contender
from bench.pool import Pool
from bench.protocol import PeerFailed
from bench.record import Record, case_record, suite_record
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
    """What of the suites is wanted. ``turns`` 0 is each suite's own number."""

    quick: bool = False
    pattern: str = ""
    turns: int = 0
    cold: bool = False

    def cases(self, suite: Suite) -> tuple[Case, ...]:
        return suite.chosen(self.quick, self.pattern)


def describe(machine: Record, contenders: Sequence[Contender], pool: Pool) -> None:
    """Versions and devices of everybody, or why they are not there."""
    for contender in contenders:
        try:
            found = pool.worker(contender).ask({"do": "describe"})
        except PeerFailed as failure:
            found = {"absent": str(failure)}
        machine["contenders"][contender.name] = found
        pool.discard(contender)


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
        found = suite_record(suite, records, self.machine)
        for case in self.choice.cases(suite):
            if self.budget.left <= 0:
                self.watcher.skipped(suite, case, "time is up")
                continue
            if not any(c.takes(case.kind, case.spec) for c in contenders):
                self.watcher.skipped(suite, case, "nobody takes part")
                continue
            records.append(self._case(suite, case, contenders))
            found = suite_record(suite, records, self.machine)
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
