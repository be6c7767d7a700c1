"""Servings on real threads, with work that does not sleep."""

from __future__ import annotations

import threading

import pytest

from coexec.base.errors import ProcessorError
from coexec.serving.arrivals import Burst, Stream
from coexec.serving.request import Choice, Option, Service
from coexec.serving.schedulers.table import SCHEDULERS
from coexec.serving.serve import serve

SPECS = ("a", "b")
SECONDS = 20.0
"""Of patience with threads."""
EITHER = Service("m", ((Option("a", (0,), 1.0), Option("b", (1,), 1.0)),), 1e6)


@pytest.mark.parametrize("name", ["shortest_expected_latency", "least_slack", "heft"])
def test_processors_work_at_the_same_time_on_threads_of_their_own(name: str) -> None:
    both = threading.Barrier(2)
    threads: dict[str, set[str]] = {"a": set(), "b": set()}

    def work(choice: Choice) -> None:
        threads[choice.option.name].add(threading.current_thread().name)
        both.wait(SECONDS)  # gets by only if the other one runs, too

    outcome = serve([(EITHER, Burst(6, 1e6))], SPECS, SCHEDULERS[name], 30.0, work)
    assert len(outcome.served) == 6
    assert len(threads["a"]) == len(threads["b"]) == 1
    assert threads["a"] != threads["b"]
    assert all(each.spans[0].start_ms >= each.arrived_ms for each in outcome.served)


def test_a_stream_goes_on_until_time_is_up_and_what_runs_is_awaited() -> None:
    count = 0

    def work(_choice: Choice) -> None:
        nonlocal count
        count += 1

    only = Service("m", ((Option("a", (0,), 1.0),),))
    outcome = serve([(only, Stream(1))], SPECS, SCHEDULERS["fixed"], 30.0, work)
    assert len(outcome.served) == count > 3
    assert len(outcome.waiting) <= 1
    assert outcome.elapsed_ms >= 30.0


def test_steps_of_a_request_follow_each_other_on_their_processors() -> None:
    seen: list[tuple[int, int, str]] = []

    def work(choice: Choice) -> None:
        seen.append((choice.request.number, choice.request.step, choice.option.name))

    staged = Service("m", ((Option("a", (0,), 1.0),), (Option("b", (1,), 1.0),)))
    outcome = serve([(staged, Burst(3, 1e6))], SPECS, SCHEDULERS["heft"], 30.0, work)
    assert len(outcome.served) == 3
    assert sorted(seen) == [(n, s, "ab"[s]) for n in range(3) for s in range(2)]


def test_an_error_in_a_thread_is_raised_to_the_caller() -> None:
    def work(_choice: Choice) -> None:
        raise ProcessorError("a is broken")

    with pytest.raises(ProcessorError, match="a is broken"):
        serve([(EITHER, Burst(2, 1e6))], SPECS, SCHEDULERS["heft"], 30.0, work)
