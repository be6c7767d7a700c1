"""Runs that go on where the last one stopped, and contenders that share a process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.budget import Budget
from bench.case import Case, Suite
from bench.contenders import Contender
from bench.protocol import PeerEnded, PeerFailed
from bench.record import Record, merged
from bench.rounds import round_of
from bench.run import Choice, Run, describe
from bench.turns import run_case
from bench.worker import Job, Server

CASES = tuple(Case(name, "k", {}) for name in "abc")
SUITE = Suite("suite", "Suite", CASES, pause=0.0, turns=1, fewest=1)
ONE = Contender("one", "m", kinds=("",), worker="both", role="first")
TWO = Contender("two", "m", ours=True, kinds=("",), worker="both", role="second")


class Worker:
    """One process for all contenders: answers at once, refuses or ends when it is told to."""

    def __init__(self, refuses: str = "", ends: str = "") -> None:
        self.refuses, self.ends = refuses, ends
        self.asked: list[tuple[str, str]] = []

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        who, what = request.get("who", ""), request["do"]
        self.asked.append((who, what))
        if who == self.refuses:
            raise PeerFailed("cannot")
        if who == self.ends:
            raise PeerEnded("the process ended, status 1")
        if what == "outputs":
            np.savez(request["path"], np.ones(1))
        timed = {"calls": [1.0], "facts": {}, "passed": 1.0, "others": 0.0}
        return timed if what == "time" else {}


class Pool:
    """Starts the only worker there is."""

    def __init__(self, worker: Worker) -> None:
        self.only, self.ended = worker, 0

    def worker(self, _contender: Contender) -> Worker:
        return self.only

    def discard(self, _contender: Contender) -> None:
        self.ended += 1


class Quiet:
    """Keeps what was skipped."""

    def __init__(self) -> None:
        self.left_out: list[str] = []

    def tell(self, text: str) -> None: ...

    def done(self, suite: Suite, case: Record) -> None: ...

    def skipped(self, suite: Suite, case: Case, why: str) -> None:
        self.left_out.append(case.name)


def run(record: Record | None, cases: int, *, resume: bool) -> tuple[Record, list[str]]:
    """A run with time for some cases; the record that it leaves, and what it skipped."""
    machine: Record = {"limits": {}, "contenders": {"one": {}}}
    kept = [merged(record, machine, {})]
    old = kept[-1]["suites"].get("suite")
    choice = Choice(rounds={"suite": round_of(old, "2099")} if resume else {})
    budget = Budget.of(60.0, {"suite": (SUITE, choice.cases(SUITE))})

    def keep(name: str, found: Record) -> None:
        kept.append(merged(kept[-1], machine, {name: found}))
        if len(found["cases"]) == cases:
            budget.seconds = 0.0

    watcher = Quiet()
    # The pool's type is that of real processes.
    pool: Any = Pool(Worker())
    Run(machine, [ONE], choice, pool, budget, watcher, keep).suite(SUITE)
    return kept[-1], watcher.left_out


def names(record: Record) -> list[str]:
    return [case["name"] for case in record["suites"]["suite"]["cases"]]


def test_a_run_whose_time_is_up_goes_on_with_what_it_left_out() -> None:
    first, skipped = run(None, cases=2, resume=False)
    assert (names(first), skipped) == (["a", "b"], ["c"])
    second, skipped = run(first, cases=9, resume=True)
    assert (names(second), skipped) == (["a", "b", "c"], [])
    before = {case["name"]: case["date"] for case in first["suites"]["suite"]["cases"]}
    after = {case["name"]: case["date"] for case in second["suites"]["suite"]["cases"]}
    assert {name: after[name] for name in before} == before
    assert second["suites"]["suite"]["began"] == first["suites"]["suite"]["began"]
    assert round_of(second["suites"]["suite"], "2099").done == {"a", "b", "c"}


def test_what_was_measured_in_an_earlier_round_is_measured_again() -> None:
    first, _ = run(None, cases=9, resume=False)
    old = first["suites"]["suite"]
    old["cases"] = [case | {"date": "2000-01-01T00:00:00+00:00"} for case in old["cases"]]
    assert round_of(old, "2099").done == frozenset()
    del old["began"]  # as records of earlier versions
    assert round_of(old, "2099").began == "2099"


def test_contenders_of_one_worker_take_turns_in_it_and_a_refusal_leaves_the_others() -> None:
    worker = Worker(refuses="one")
    pool = Pool(worker)
    one, two = run_case(SUITE, CASES[0], [ONE, TWO], pool, turns=1)
    assert (one.error, two.turns, pool.ended) == ("cannot", [1.0], 0)
    assert [what for who, what in worker.asked if who == "two"] == [
        *("prepare", "outputs", "time", "time", "drop")
    ]


def test_a_worker_that_ends_is_started_again() -> None:
    pool = Pool(Worker(ends="one"))
    one, two = run_case(SUITE, CASES[0], [ONE, TWO], pool, turns=1)
    assert ("ended" in one.error, two.turns, pool.ended) == (True, [1.0], 1)


def test_a_process_of_several_contenders_is_asked_once_who_it_is() -> None:
    worker = Worker()
    machine: Record = {"contenders": {}}
    pool: Any = Pool(worker)
    describe(machine, [ONE, TWO], pool)
    assert [*machine["contenders"]] == ["one", "two"]
    assert worker.asked == [("", "describe")]


def test_a_server_keeps_the_cases_of_several_contenders() -> None:
    class Fixed:
        def __init__(self, role: str) -> None:
            self.role = role

        def run(self, count: int) -> None: ...

        def outputs(self) -> list[Any]:
            return []

        def facts(self) -> dict[str, Any]:
            return {"role": self.role}

    class Peer:
        def describe(self) -> dict[str, Any]:
            return {}

        def measure(self) -> dict[str, Any]:
            return {}

        def prepare(self, case: Mapping[str, Any]) -> Job:
            return Fixed(case["role"])

    server = Server(Peer())
    for who in (ONE, TWO):
        server.answer({"do": "prepare", "who": who.name, "case": {"role": who.role}})
    found = [server.answer({"do": "time", "who": w, "seconds": 0.0})["ok"] for w in ("one", "two")]
    assert [each["facts"]["role"] for each in found] == ["first", "second"]
    server.answer({"do": "drop", "who": "one"})
    assert "no case" in server.answer({"do": "time", "who": "one", "seconds": 0.0})["error"]
