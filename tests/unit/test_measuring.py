"""What is measured again because it may have been disturbed, and what of it is kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coexec.core.types import OpCall
from coexec.cost import measuring
from coexec.cost.distribution import Distribution
from coexec.cost.key import call_key
from coexec.cost.measuring import (
    DOUBTED_VISITS,
    HEAVY_VISITS,
    WAY_VISITS,
    measure,
    measure_doubted,
)
from coexec.cost.model import LINKS, ProcessorCosts, pair_key, slowdown_key
from coexec.cost.model import SLOWDOWN as SLOWED
from coexec.cost.store import MOST_VISITS, CostStore, Entry
from coexec.cost.transfer import HostLink, Line
from coexec.processors.reference.processor import ReferenceProcessor
from tests.unit.test_cost import RATES, SPEC, nothing, relu

QUIET, BUSY = Distribution(100.0, 98.0, 110.0), Distribution(250.0, 120.0, 900.0)


def costs_of(folder: Path) -> ProcessorCosts:
    return ProcessorCosts(ReferenceProcessor(), RATES, CostStore(SPEC, "1", folder))


def scripted(monkeypatch: pytest.MonkeyPatch, times: Callable[[str], Distribution]) -> list[str]:
    """Names of calls in the order in which they are measured, with times by name."""
    visited: list[str] = []

    def measured(_processor: object, call: OpCall, _sweep: object) -> Distribution:
        visited.append(call.name)
        return times(call.name)

    monkeypatch.setattr(measuring, "measure_call", measured)
    return visited


def entry(costs: ProcessorCosts, call: OpCall) -> Entry:
    found = costs.measured(call)
    assert found is not None
    return found


def test_a_time_is_unsure_if_it_varied_more_than_on_a_quiet_machine() -> None:
    assert not Entry(QUIET).unsure
    assert Entry(Distribution(100.0, 80.0, 110.0)).unsure
    assert Entry(Distribution(100.0, 98.0, 200.0)).unsure
    assert not Entry(BUSY, visits=MOST_VISITS).unsure


def test_of_two_measurements_the_faster_one_is_kept() -> None:
    kept = Entry(BUSY, "Relu", code="c").or_quieter(Entry(QUIET, "Relu", code="c"))
    assert kept == Entry(QUIET, "Relu", code="c", visits=2)
    assert kept.or_quieter(Entry(BUSY)).time == QUIET


def test_of_several_visits_of_a_call_the_middle_one_counts_and_of_two_the_faster(
    tmp_path: Path,
) -> None:
    times = [Distribution.exactly(us) for us in (1000.0, 690.0, 710.0, 600.0, 720.0)]
    entries = [Entry(time, "Relu", code="c") for time in times]
    kept = list(itertools.accumulate(entries, Entry.or_usual))
    assert [each.time.median_us for each in kept] == [1000.0, 690.0, 710.0, 690.0, 710.0]
    assert (kept[-1].visits, kept[-1].code) == (5, "c")
    store = CostStore(SPEC, "1", tmp_path)
    store.put("key", kept[-1])
    store.save()
    again = CostStore(SPEC, "1", tmp_path).get("key")
    assert again is not None
    assert again.or_usual(entries[0]) == kept[-1].or_usual(entries[0])


def test_a_visit_that_finds_less_than_a_run_contradicted_is_what_is_kept() -> None:
    slow, quick = (Entry(Distribution.exactly(us)) for us in (1000.0, 700.0))
    doubted = slow.or_usual(slow).or_usual(slow).or_quieter(quick)
    assert doubted.time.median_us == 700.0
    assert doubted.or_usual(quick).time.median_us == 700.0


def test_a_call_that_was_disturbed_is_visited_again_after_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "HEAVY", 1.0)
    big, small = relu(1 << 20), relu(8)
    of_big: Iterator[Distribution] = iter([BUSY, QUIET])
    visited = scripted(monkeypatch, lambda name: next(of_big) if name == big.name else QUIET)
    costs = costs_of(tmp_path)
    measure([small, big], [costs], 60.0, nothing)
    assert visited == [big.name, small.name, big.name]
    assert (entry(costs, big).time, entry(costs, big).visits) == (QUIET, 2)
    kept = CostStore(SPEC, "1", tmp_path).get(call_key(big))
    assert kept is not None
    assert kept.visits == 2


def test_what_always_varies_is_visited_a_few_times_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited = scripted(monkeypatch, lambda _name: BUSY)
    costs = costs_of(tmp_path)
    for _ in range(2 * MOST_VISITS):
        measure([relu(8)], [costs], 60.0, nothing)
    assert len(visited) == MOST_VISITS


def test_a_call_that_takes_much_of_the_time_is_visited_again_however_little_it_varied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole first visit was slow, evenly."""
    big, small = relu(1 << 20), relu(8)
    of_big = [1000.0, 700.0, *[710.0] * (HEAVY_VISITS - 2)]
    times = iter(of_big)
    visited = scripted(
        monkeypatch,
        lambda name: Distribution.exactly(next(times) if name == big.name else 1.0),
    )
    costs = costs_of(tmp_path)
    for _ in range(HEAVY_VISITS):
        measure([small, big], [costs], 60.0, nothing)
    assert visited == [big.name, small.name, *[big.name] * (HEAVY_VISITS - 1)]
    assert entry(costs, big).time.median_us == 710.0


def test_a_link_is_measured_twice_and_in_later_plannings_and_its_middle_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter(
        [
            HostLink(Line(BUSY, 7e-4), Line(QUIET, 1e-4)),
            HostLink(Line(QUIET, 5e-5), Line(BUSY, 2e-4)),
            *[HostLink(Line(QUIET, 1e-3), Line(QUIET, 1e-3))] * (WAY_VISITS - 2),
        ]
    )
    monkeypatch.setattr(measuring, "measure_link", lambda _processor: next(found))
    costs = costs_of(tmp_path)
    visits = []
    for _ in range(WAY_VISITS):
        measure([], [costs], 60.0, nothing)
        assert costs.link() == HostLink(Line(QUIET, 5e-5), Line(QUIET, 1e-4))
        entries = [costs.store.get(key) for key in LINKS]
        visits.append([each.visits for each in entries if each is not None])
    assert visits[:3] == [[2, 2], [3, 3], [4, 4]]
    assert visits[-2:] == [[WAY_VISITS] * 2] * 2


def test_a_slowdown_is_that_of_the_heaviest_calls_else_as_most_others_are(tmp_path: Path) -> None:
    costs = costs_of(tmp_path)
    calls = [relu(8), relu(9)]
    for call, us in zip(calls, (10.0, 20.0), strict=True):
        time = Distribution.exactly(us)
        costs.store.put(call_key(call), Entry(time, code=costs.code(call)))
    assert costs.slowdown(costs, calls) == 1.0
    for number, factor in enumerate((1.1, 1.2, 1.6)):
        key = f"{pair_key(SLOWED, costs)} {number}"
        costs.store.put(key, Entry(Distribution.exactly(1.0), "", (factor,)))
    assert costs.slowdown(costs, calls) == 1.2
    own = slowdown_key(costs, calls[1], calls[1])
    costs.store.put(own, Entry(Distribution.exactly(1.0), "", (1.4,)))
    assert costs.slowdown(costs, calls) == 1.4


def test_a_time_that_runs_contradict_is_measured_again_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big, small = relu(1 << 20), relu(8)
    times = iter([1000.0] * HEAVY_VISITS + [700.0] * DOUBTED_VISITS)
    visited = scripted(
        monkeypatch,
        lambda name: Distribution.exactly(next(times) if name == big.name else 1.0),
    )
    costs = costs_of(tmp_path)
    for _ in range(HEAVY_VISITS):
        measure([small, big], [costs], 60.0, nothing)
    assert entry(costs, big).visits == HEAVY_VISITS
    assert measure_doubted([small, big], costs, 60.0)
    assert entry(costs, big).time.median_us == 700.0
    assert visited.count(small.name) == 1
    for _ in range(DOUBTED_VISITS):
        assert not measure_doubted([small, big], costs, 60.0)
    assert entry(costs, big).visits == DOUBTED_VISITS


def test_a_processors_own_calls_come_first_and_what_they_replace_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced, other = relu(1 << 20), relu(64)
    own = replace(replaced, attributes={"whole": 1}, name="own", like=replaced)
    visited = scripted(monkeypatch, lambda _name: QUIET)
    costs = costs_of(tmp_path)
    measure([replaced, other], [costs], 60.0, nothing, own={costs.name: [own, other]})
    assert list(dict.fromkeys(visited)) == [own.name, other.name, replaced.name]
    # The other processors do not know it.
    visited.clear()
    (tmp_path / "b").mkdir()
    measure([replaced, other], [costs_of(tmp_path / "b")], 60.0, nothing, own={"b": [own]})
    assert own.name not in visited
    assert set(visited) == {replaced.name, other.name}
