"""Servings on the virtual clock: figures known by hand or by theory, and laws that always hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coexec.serving.arrivals import Arrivals, Burst, Periodic, Poisson, Stream
from coexec.serving.outcome import Outcome
from coexec.serving.request import Option, Service
from coexec.serving.schedulers.table import SCHEDULERS
from coexec.serving.virtual import Offered, simulate

ONE, TWO = ("a",), ("a", "b")


def service(name: str, *times: float, deadline: float = math.inf) -> Service:
    options = tuple(Option(f"p{p}", (p,), ms) for p, ms in enumerate(times))
    return Service(name, (options,), deadline)


def run(offered: Offered, duration: float, name: str = "heft", drop_late: bool = False) -> Outcome:
    processors = TWO if len(offered[0][0].steps[0]) > 1 else ONE
    return simulate(offered, processors, SCHEDULERS[name], duration, seed=3, drop_late=drop_late)


def test_periodic_requests_that_fit_take_their_own_time() -> None:
    outcome = run([(service("a", 10), Periodic(20))], 1000)
    model = outcome.model("a")
    assert (model.served, model.missed, model.waiting) == (20, 0, 0)
    assert model.latency_ms == (10, 10, 10)
    assert outcome.utilisation[0] == pytest.approx(0.2)


def test_a_burst_queues_up() -> None:
    outcome = run([(service("a", 10, deadline=25), Burst(4, 500, start_ms=100))], 1000)
    assert [each.latency_ms for each in outcome.served] == [10, 20, 30, 40] * 2
    assert outcome.model("a").missed == 4


def test_hopeless_requests_are_dropped_only_if_asked() -> None:
    offered = [(service("a", 10, deadline=25), Burst(4, 500))]
    model = run(offered, 400, drop_late=True).model("a")
    # The third could end at 30 at the earliest.
    assert (model.served, model.dropped, model.missed) == (2, 2, 2)
    model = run(offered, 400).model("a")
    assert (model.served, model.dropped, model.missed) == (4, 0, 2)


def test_a_stream_keeps_both_processors_busy() -> None:
    outcome = run([(service("a", 10, 20), Stream(4))], 1000, "shortest_expected_latency")
    assert outcome.model("a").per_second == pytest.approx(150, rel=0.03)
    assert min(outcome.utilisation) > 0.97


def test_steps_of_a_pipeline_overlap() -> None:
    first, second = Option("a", (0,), 10.0), Option("b", (1,), 10.0)
    staged = Service("a", ((first,), (second,)))
    outcome = simulate([(staged, Stream(3))], TWO, SCHEDULERS["least_slack"], 1000)
    assert outcome.model("a").per_second == pytest.approx(100, rel=0.03)
    assert all(len(each.spans) == 2 for each in outcome.served)


def test_what_is_not_started_in_time_is_waiting_and_missed_if_its_deadline_passed() -> None:
    offered = [(service("a", 100, deadline=150), Burst(5, 1000))]
    outcome = run(offered, 200)
    model = outcome.model("a")
    assert (model.served, model.waiting) == (2, 3)
    assert model.missed == 1 + 3
    assert outcome.elapsed_ms == 200


def test_random_arrivals_wait_as_long_as_queueing_theory_says() -> None:
    # Pollaczek-Khinchine, M/D/1: mean wait = load * service / (2 (1 - load)).
    load, ms = 0.6, 10.0
    outcome = run([(service("a", ms), Poisson(load / ms * 1e3))], 200_000)
    waits = [each.latency_ms - ms for each in outcome.served]
    assert len(waits) > 11_000
    assert np.mean(waits) == pytest.approx(load * ms / (2 * (1 - load)), rel=0.1)


def test_requests_that_come_at_the_same_moment_are_looked_at_together() -> None:
    offered = [(service("short", 10), Burst(2, 1e6)), (service("long", 50), Burst(2, 1e6))]
    order = [each.service.name for each in run(offered, 500, "heft").served]
    assert order == ["long", "long", "short", "short"]
    order = [each.service.name for each in run(offered, 500, "fixed").served]
    assert order == ["short", "short", "long", "long"]


def test_poisson_arrivals_are_the_seed_s() -> None:
    times = [list(Poisson(50).times_ms(2000, seed)) for seed in (1, 1, 2)]
    assert times[0] == times[1] != times[2]
    assert len(times[0]) == pytest.approx(100, abs=40)


ARRIVALS = st.one_of(
    st.builds(Periodic, st.floats(1, 80)),
    st.builds(Burst, st.integers(1, 6), st.floats(20, 400)),
    st.builds(Poisson, st.floats(1, 80)),
    st.builds(Stream, st.integers(1, 4)),
)
TIMES = st.floats(0.5, 60)


@st.composite
def offers(draw: st.DrawFn) -> list[tuple[Service, Arrivals]]:
    offered: list[tuple[Service, Arrivals]] = []
    for number in range(draw(st.integers(1, 3))):
        ways = [Option("a", (0,), draw(TIMES)), Option("b", (1,), draw(TIMES))]
        if draw(st.booleans()):
            ways.append(Option("a + b", (0, 1), draw(TIMES)))
        staged = draw(st.booleans())
        steps = ((ways[0],), (ways[1],)) if staged else (tuple(ways),)
        deadline = draw(st.one_of(st.just(math.inf), st.floats(1, 200)))
        offered.append((Service(f"m{number}", steps, deadline), draw(ARRIVALS)))
    return offered


@settings(max_examples=30, deadline=None)
@given(offered=offers(), drop=st.booleans())
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_request_is_accounted_for_and_no_processor_does_two_things(
    name: str, offered: Offered, drop: bool
) -> None:
    outcome = simulate(offered, TWO, SCHEDULERS[name], 500.0, drop_late=drop)
    left = (*outcome.dropped, *outcome.waiting)
    numbers = [each.number for each in outcome.served] + [each.number for each in left]
    assert sorted(numbers) == list(range(len(numbers)))
    for processor in range(2):
        spans = sorted(outcome.on(processor))
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for each in outcome.served:
        assert each.spans[0].start_ms >= each.arrived_ms
        assert len(each.spans) == len(each.service.steps)
        for before, after in itertools.pairwise(each.spans):
            assert before.end_ms <= after.start_ms
    assert drop or not outcome.dropped
    again = simulate(offered, TWO, SCHEDULERS[name], 500.0, drop_late=drop)
    assert again.served == outcome.served
