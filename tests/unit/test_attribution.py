"""Attribution: what is injected is found, every category is hit, and the parts add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coexec.core.events import DISPATCH, LAUNCH, RUN, SYNC, Event, Trace
from coexec.report.attribution import (
    BANDWIDTH,
    CATEGORIES,
    COMPUTE,
    DISPATCHING,
    IDLE,
    LAYOUT_TIME,
    MAPPING,
    SYNCING,
    TRANSFER,
    attribute,
    roof_ns,
)
from tests.synthetic import (
    ELEMENTS,
    RATES,
    TRACK,
    US,
    Costs,
    copy,
    host,
    kernel,
    synthetic_trace,
)

TOLERANCE = 0.05
BASE = Costs()
EXTRA = 5000 * US
MOVED = 2 * 4 * ELEMENTS
"""Bytes of the two copies."""


def found(trace: Trace) -> dict[str, int]:
    """Categories of the one track."""
    attribution = attribute(trace, {TRACK: RATES})
    times = attribution.tracks[TRACK].categories
    assert sum(times.values()) == attribution.wall_ns
    assert set(times) == set(CATEGORIES)
    return dict(times)


@pytest.mark.parametrize(
    ("field", "category"),
    [
        ("compute", COMPUTE),
        ("bandwidth", BANDWIDTH),
        ("layout", LAYOUT_TIME),
        ("latency", TRANSFER),
        ("launch", DISPATCHING),
        ("wake", SYNCING),
        ("host", IDLE),
    ],
)
def test_an_injected_cost_lands_in_its_category_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, field: str, category: str
) -> None:
    base = found(synthetic_trace(monkeypatch, BASE))
    costs = replace(BASE, **{field: getattr(BASE, field) + EXTRA})
    slower = found(synthetic_trace(monkeypatch, costs))
    # A write and a read have latency twice; the write's hides a part of the dispatch behind it.
    count = 2 if field == "latency" else 1
    hidden = base[DISPATCHING] - slower[DISPATCHING] if field == "latency" else 0
    assert slower[category] - base[category] == pytest.approx(count * EXTRA, rel=TOLERANCE)
    assert 0 <= hidden <= BASE.launch
    for other in set(CATEGORIES) - {category, DISPATCHING if field == "latency" else category}:
        assert abs(slower[other] - base[other]) <= TOLERANCE * EXTRA, other


def test_every_injected_cost_is_found_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    times = found(synthetic_trace(monkeypatch, BASE))
    assert times[COMPUTE] == pytest.approx(BASE.compute, rel=TOLERANCE)
    assert times[BANDWIDTH] == pytest.approx(BASE.bandwidth, rel=TOLERANCE)
    assert times[LAYOUT_TIME] == pytest.approx(BASE.layout, rel=TOLERANCE)
    expected = 2 * BASE.latency + MOVED / BASE.gbps
    assert times[TRANSFER] == pytest.approx(expected, rel=TOLERANCE)
    # The write is under way while the host launches: that much of the launch costs nothing.
    hidden = min(BASE.latency + MOVED / 2 / BASE.gbps, BASE.launch)
    assert times[DISPATCHING] == pytest.approx(BASE.launch - hidden, rel=TOLERANCE)
    assert times[SYNCING] == pytest.approx(BASE.wake, rel=TOLERANCE)
    assert times[IDLE] == pytest.approx(BASE.host, rel=TOLERANCE)


def test_mapping_is_its_own_category(monkeypatch: pytest.MonkeyPatch) -> None:
    times = found(synthetic_trace(monkeypatch, replace(BASE, map=EXTRA)))
    assert times[MAPPING] == pytest.approx(2 * EXTRA, rel=TOLERANCE)
    assert times[TRANSFER] == 0


@pytest.mark.parametrize(("mapped", "category"), [(0, TRANSFER), (EXTRA, MAPPING)])
def test_what_it_costs_to_start_a_copy_belongs_to_the_copy(
    monkeypatch: pytest.MonkeyPatch, mapped: int, category: str
) -> None:
    costs = replace(BASE, map=mapped, launch=0)
    base = attribute(synthetic_trace(monkeypatch, costs), {TRACK: RATES}).tracks[TRACK]
    trace = synthetic_trace(monkeypatch, replace(costs, start_copy=EXTRA))
    slower = attribute(trace, {TRACK: RATES}).tracks[TRACK]
    # That of the read is hidden behind the kernels but for what lasts longer than they do.
    added = slower.categories[category] - base.categories[category]
    assert EXTRA <= added <= 2 * EXTRA
    assert slower.categories[DISPATCHING] == base.categories[DISPATCHING] == 0
    if category == TRANSFER:
        assert slower.latency_ns - base.latency_ns == pytest.approx(added, rel=TOLERANCE)


@pytest.mark.parametrize("latency_us", [0, 100, 5000])
def test_latency_of_transfers_is_told_from_bandwidth(
    monkeypatch: pytest.MonkeyPatch, latency_us: int
) -> None:
    trace = synthetic_trace(monkeypatch, replace(BASE, latency=latency_us * US))
    times = attribute(trace, {TRACK: RATES}).tracks[TRACK]
    assert times.latency_ns == pytest.approx(2 * latency_us * US, rel=TOLERANCE, abs=10 * US)
    bandwidth = times.categories[TRANSFER] - times.latency_ns
    assert bandwidth == pytest.approx(MOVED / BASE.gbps, rel=TOLERANCE)


def test_a_slow_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = synthetic_trace(monkeypatch, replace(BASE, bandwidth=9000 * US))
    attribution = attribute(trace, {TRACK: RATES})
    assert attribution.operators[0].name == "Relu"
    assert attribution.operators[0].ns == pytest.approx(9000 * US, rel=TOLERANCE)
    assert attribution.operators[0].bound == BANDWIDTH
    assert attribution.layers[0].name == "relu"
    assert attribution.operators[0].roofline == pytest.approx(1.0, rel=TOLERANCE)


def test_work_hidden_behind_a_kernel_costs_nothing() -> None:
    trace = Trace(
        [
            host(RUN, 0, 100),
            host(DISPATCH, 0, 80),
            kernel("Conv", 10, 50, flop=5_000_000, moved=1000),
            copy(20, 60, 1000),
        ]
    )
    times = found(trace)
    assert times[COMPUTE] == 50 * US
    assert times[TRANSFER] == 20 * US
    assert times[DISPATCHING] == 10 * US
    assert times[IDLE] == 20 * US


def test_what_lies_outside_of_runs_does_not_count() -> None:
    trace = Trace(
        [
            host(RUN, 100, 50),
            host(RUN, 120, 100),
            host(SYNC, 0, 400),
            kernel("Conv", 50, 100, flop=10_000_000, moved=1000),
        ]
    )
    attribution = attribute(trace, {TRACK: RATES})
    assert attribution.wall_ns == 120 * US
    assert attribution.tracks[TRACK].categories[COMPUTE] == 50 * US
    assert attribution.tracks[TRACK].categories[SYNCING] == 70 * US


def test_gaps_between_the_kernels_of_one_launch_are_dispatch() -> None:
    parts = (kernel("A", 10, 20, moved=100), kernel("B", 40, 20, moved=100))
    launch = Event("2", LAUNCH, TRACK, 10 * US, 60 * US, parts=parts)
    times = found(Trace([host(RUN, 0, 100), host(SYNC, 5, 95), launch]))
    assert times[DISPATCHING] == 10 * US
    assert times[BANDWIDTH] == 40 * US
    assert times[SYNCING] == 45 * US
    assert times[IDLE] == 5 * US


def test_kernels_of_one_node_are_judged_together() -> None:
    # A first kernel does the work, a second one adds up; the work stands at the second.
    parts = (kernel("Conv", 0, 90), kernel("Conv", 90, 10, flop=9_000_000, moved=10_000))
    launch = Event("2", LAUNCH, TRACK, 0, 100 * US, parts=parts)
    attribution = attribute(Trace([host(RUN, 0, 100), launch]), {TRACK: RATES})
    assert attribution.tracks[TRACK].categories[COMPUTE] == 100 * US
    assert len(attribution.points) == 1
    assert attribution.points[0].ns == 100 * US
    assert attribution.points[0].roof_ns / attribution.points[0].ns == pytest.approx(0.9)


@pytest.mark.parametrize(("half", "peak"), [(38.0, 400.0), (800.0, 800.0)])
def test_float16_has_at_least_the_peak_of_float32(half: float, peak: float) -> None:
    """A device that emulates it computes in float32 on what it stores in 16 bits."""
    rates = replace(RATES, peak_gflops={"float32": 400.0, "float16": half, "float64": 200.0})
    assert rates.gflops("float16") == peak
    assert rates.gflops("float64") == 200.0
    assert rates.gflops("int64") == 400.0
    assert roof_ns(80_000, 1, "float16", rates) == 80_000 / peak


def test_the_ridge_is_that_of_the_element_type() -> None:
    work = {"flop": 15_000, "moved": 1000}  # 15 FLOP per byte: ridges are at 10 and 20
    single = Trace([host(RUN, 0, 10), kernel("Conv", 0, 10, **work)])
    half = Trace([host(RUN, 0, 10), kernel("Conv", 0, 10, **work, dtype="float16")])
    assert found(single)[COMPUTE] == 10 * US
    assert found(half)[BANDWIDTH] == 10 * US


def test_kernels_without_counted_work_are_bandwidth_bound() -> None:
    assert found(Trace([host(RUN, 0, 10), kernel("X", 0, 10)]))[BANDWIDTH] == 10 * US


def test_rows_add_up_to_the_busy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    attribution = attribute(synthetic_trace(monkeypatch, BASE), {TRACK: RATES})
    busy = attribution.tracks[TRACK].busy_ns
    for rows in (attribution.operators, attribution.layers, attribution.phases):
        assert sum(row.ns for row in rows) == busy


def test_a_trace_without_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no run"):
        attribute(Trace([kernel("X", 0, 10)]), {TRACK: RATES})


def test_a_track_without_rates_is_refused() -> None:
    with pytest.raises(ValueError, match=TRACK):
        attribute(Trace([host(RUN, 0, 10), kernel("X", 0, 10)]), {})
