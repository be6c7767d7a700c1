"""Processors that work on the thread of their caller, beside others that follow them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from coexec.base.errors import ProcessorError
from coexec.core.events import LAUNCH, RUN, SYNC, Event, Trace
from coexec.core.types import Array
from coexec.frontend import load
from coexec.runtime.executor import Executor
from tests.graphs import parse
from tests.queues import Broken, executor, queues, working_here

CHAIN = parse(
    "g (float[5] a) => (float[5] y) { [first] t = Neg(a) [second] u = Exp(t) [third] y = Neg(u) }"
)
CHAINED = {"first": "one", "second": "two", "third": "one"}
FORK = parse(
    "g (float[5] a) => (float[5] y) { [left] l = Neg(a) [right] r = Relu(a) [join] y = Add(l, r) }"
)
FORKED = {"left": "one", "right": "two", "join": "one"}


def test_one_of_them_can_work_on_the_callers_thread() -> None:
    on = queues("one", "two")
    on["one"], here = working_here("one")
    runs = executor(load(FORK, {}), FORKED, on)
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(runs.run({"a": x})["y"], np.maximum(x, 0) - x)
    assert here.placed == 2
    assert here.done_by == {threading.current_thread().name}
    assert not on["one"].submitted_by


def test_work_that_follows_the_caller_is_handed_over_before_he_begins() -> None:
    """From the second run on: the first one binds kernels, which may wait for what is ahead."""
    on = queues("one", "two")
    on["one"], _ = working_here("one")
    runs = executor(load(CHAIN, {}), CHAINED, on)
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    followed = []
    for _ in range(3):
        np.testing.assert_array_equal(runs.run({"a": x})["y"], -np.exp(-x))
        followed.append(on["two"].followed)
    assert followed == [0, 1, 2]


def test_a_failure_on_the_callers_thread_releases_who_follows_it() -> None:
    on = queues("one", "two")
    on["one"], here = working_here("one")
    runs = executor(load(CHAIN, {}), CHAINED, on)
    x = np.ones(5, np.float32)
    runs.run({"a": x})
    submit = here.submit

    def fail() -> Callable[[], Event]:
        raise ProcessorError("one is broken")

    here.submit = lambda *_: here.keep(fail)  # type: ignore[method-assign]
    with pytest.raises(ProcessorError, match="one is broken"):
        runs.run({"a": x})
    assert all(done.done() for done in on["two"].handed_over)
    here.submit = submit  # type: ignore[method-assign]
    np.testing.assert_array_equal(runs.run({"a": x})["y"], -np.exp(-x))


def test_a_failure_elsewhere_leaves_nothing_for_the_callers_thread() -> None:
    on = queues("one")
    (on["one"], here), on["two"] = working_here("one"), Broken("two")
    runs = executor(load(CHAIN, {}), CHAINED, on)
    for _ in range(2):
        with pytest.raises(ProcessorError, match="two is broken"):
            runs.run({"a": np.ones(5, np.float32)})
    assert here.newest is None


def test_two_threads_share_processors_one_run_after_the_other() -> None:
    on = queues("one", "two")
    on["one"], here = working_here("one")
    x = np.linspace(-1, 1, 5, dtype=np.float32)

    def repeat(runs: Executor) -> list[Array]:
        return [runs.run({"a": x})["y"] for _ in range(50)]

    both = [executor(load(CHAIN, {}), CHAINED, on) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for results in pool.map(repeat, both, timeout=60):
            assert all((y == -np.exp(-x)).all() for y in results)
    assert here.placed == 100


def test_the_hosts_track_says_when_the_caller_waits_or_works() -> None:
    on = queues("one", "two")
    on["one"], _ = working_here("one")
    runs = executor(load(CHAIN, {}), CHAINED, on)
    for _ in range(2):
        trace = Trace()
        runs.run({"a": np.ones(5, np.float32)}, trace=trace)
        (whole,) = [event for event in trace.host() if event.kind == RUN]
        waits = [event for event in trace.host() if event.kind == SYNC]
        launched = [event for event in trace.leaves() if event.kind == LAUNCH]
        assert {event.track for event in launched} == {"one", "two"}
        for event in launched:
            assert whole.start_ns <= event.start_ns <= event.end_ns <= whole.end_ns
        for event in launched:
            if event.track == "one":
                assert any(w.start_ns <= event.start_ns <= event.end_ns <= w.end_ns for w in waits)
