"""Small outputs of several processors, which the host copies once these have ended."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.events import COPY, HOST, Trace
from coexec.frontend import load
from coexec.runtime import small_outputs
from coexec.runtime.executor import Executor
from tests.graphs import parse
from tests.queues import Queued, executor, queues

FORK = parse("g (float[5] a) => (float[5] x, float[5] y) { [x] x = Neg(a) [y] y = Exp(a) }")
PLAN = {"x": "one", "y": "two"}
A = np.linspace(-1, 1, 5, dtype=np.float32)


def program_on(on: dict[str, Queued], *, sees: bool = True) -> Executor:
    """Two outputs, one of each processor; whether these show the host what they have written."""
    for each in on.values():
        each.sees = sees
    return executor(load(FORK, {}), PLAN, on)


def reads_of(runs: Executor) -> set[tuple[str, str]]:
    """Who copied outputs, and which."""
    trace = Trace()
    results = runs.run({"a": A}, trace=trace)
    np.testing.assert_array_equal(results["x"], -A)
    np.testing.assert_array_equal(results["y"], np.exp(A))
    copies = [event for event in trace.events if event.kind == COPY]
    return {(event.track, event.name) for event in copies if event.name.startswith("read")}


def test_the_host_copies_them_where_it_sees_what_was_written() -> None:
    assert reads_of(program_on(queues("one", "two"))) == {(HOST, "read x"), (HOST, "read y")}


def test_processors_copy_them_where_it_does_not() -> None:
    found = reads_of(program_on(queues("one", "two"), sees=False))
    assert {track for track, _ in found} == {"one", "two"}


def test_processors_copy_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_outputs, "LARGEST", A.nbytes - 1)
    assert {track for track, _ in reads_of(program_on(queues("one", "two")))} == {"one", "two"}


def test_results_do_not_change_in_the_next_run() -> None:
    runs = program_on(queues("one", "two"))
    before = runs.run({"a": A})
    runs.run({"a": A + 1})
    np.testing.assert_array_equal(before["x"], -A)


def test_those_that_nobody_wants_are_not_copied() -> None:
    runs = program_on(queues("one", "two"))
    for _ in range(3):
        assert runs.run({"a": A}, fetch=["y"]).keys() == {"y"}
        assert runs.run({"a": A}, fetch=[]) == {}
