"""Schedulers as functions of time, queue and processors, on cases decided by hand."""

from __future__ import annotations

import math

import pytest

from coexec.serving.request import Choice, Option, Request, Service
from coexec.serving.schedulers.fixed import fixed
from coexec.serving.schedulers.heft import heft
from coexec.serving.schedulers.least_slack import least_slack
from coexec.serving.schedulers.shortest_expected_latency import shortest_expected_latency
from coexec.serving.schedulers.table import SCHEDULERS

BUSY = 1e9


def service(
    name: str, *times: float, deadline: float = math.inf, home: int | None = None
) -> Service:
    """A model with a time per processor."""
    options = tuple(Option(f"p{p}", (p,), ms) for p, ms in enumerate(times))
    return Service(name, (options,), deadline, home)


def started(choices: list[Choice]) -> list[tuple[int, str]]:
    return [(choice.request.number, choice.option.name) for choice in choices]


def queue(*services: Service, arrived: float = 0.0) -> list[Request]:
    return [Request(number, each, arrived) for number, each in enumerate(services)]


def test_fixed_keeps_to_the_home_that_is_named_even_if_another_is_idle() -> None:
    waiting = queue(service("a", 1, 9, home=1), service("b", 1, 9), service("c", 1, 9))
    assert started(fixed(0.0, waiting, [0.0, 0.0])) == [(0, "p1"), (1, "p0")]
    assert started(fixed(0.0, waiting, [5.0, 0.0])) == [(0, "p1")]


def test_shortest_expected_latency_waits_for_a_fast_processor_if_that_ends_sooner() -> None:
    waiting = queue(service("a", 10, 100))
    assert started(shortest_expected_latency(0.0, waiting, [50.0, 0.0])) == []
    assert started(shortest_expected_latency(0.0, waiting, [95.0, 0.0])) == [(0, "p1")]


def test_shortest_expected_latency_counts_what_was_booked_before() -> None:
    waiting = queue(*[service("a", 10, 25)] * 4)
    # 10, 20, then 25 on the slow one.
    assert started(shortest_expected_latency(0.0, waiting, [0.0, 0.0])) == [(0, "p0"), (2, "p1")]


def test_least_slack_takes_the_most_urgent_first_and_never_lets_a_processor_idle() -> None:
    waiting = queue(service("easy", 10, 100, deadline=500), service("tight", 10, 100, deadline=20))
    assert started(least_slack(0.0, waiting, [0.0, 0.0])) == [(1, "p0"), (0, "p1")]
    assert started(least_slack(0.0, waiting, [1.0, 0.0])) == [(1, "p1")]


def test_slack_is_less_for_what_takes_longer() -> None:
    waiting = queue(service("short", 10, deadline=50), service("long", 40, deadline=60))
    assert started(least_slack(0.0, waiting, [0.0])) == [(1, "p0")]


def test_heft_places_the_longest_first() -> None:
    waiting = queue(service("short", 10, 12), service("long", 100, 150))
    assert started(heft(0.0, waiting, [0.0, 0.0])) == [(1, "p0"), (0, "p1")]


def test_heft_reserves_a_busy_processor_for_a_long_request() -> None:
    waiting = queue(service("short", 30, 35), service("long", 100, 250))
    # The long one waits for p0, so the short one goes to p1 though p0 is free sooner than both end.
    assert started(heft(0.0, waiting, [2.0, 0.0])) == [(0, "p1")]
    # Without the long one it would wait.
    assert started(heft(0.0, waiting[:1], [2.0, 0.0])) == []


def test_heft_lets_a_short_request_through_when_it_has_waited_long_enough() -> None:
    short, long = service("short", 10), service("long", 100)
    assert started(heft(80.0, [Request(0, short, 0.0), Request(1, long, 79.0)], [0.0])) == [
        (1, "p0")
    ]
    assert started(heft(95.0, [Request(0, short, 0.0), Request(1, long, 94.0)], [0.0])) == [
        (0, "p0")
    ]


def test_a_request_for_two_processors_waits_until_both_are_free() -> None:
    both = Service("split", ((Option("p0 + p1", (0, 1), 10.0),),))
    for scheduler in SCHEDULERS.values():
        assert started(scheduler(0.0, queue(both), [0.0, 5.0])) == []
        assert started(scheduler(5.0, queue(both), [5.0, 5.0])) == [(0, "p0 + p1")]


def test_what_shares_silicon_is_blocked() -> None:
    options = (Option("p0", (0,), 10.0, blocked=(1,)), Option("p1", (1,), 11.0, blocked=(0,)))
    shared = Service("shared", (options,))
    for scheduler in SCHEDULERS.values():
        assert started(scheduler(0.0, queue(shared, shared), [0.0, 0.0])) == [(0, "p0")]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_nothing_starts_on_busy_processors(name: str) -> None:
    waiting = queue(service("a", 1, 2), service("b", 3, 4, deadline=1))
    assert SCHEDULERS[name](0.0, waiting, [BUSY, BUSY]) == []
    assert SCHEDULERS[name](0.0, [], [0.0, 0.0]) == []
