"""The pipeline policy against all pipelines there are, and rates of streams by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coexec.placement.policies import pipeline as module
from coexec.placement.policies.pipeline import pipeline, stages
from coexec.placement.policies.table import rank
from coexec.placement.problem import Problem, Schedule, Unit
from coexec.placement.stream import stream_rates
from tests.placement.made_up import INF, problem, random_problem

CORE = frozenset({"core"})


def chain(times: Mapping[str, Sequence[float]], **how: object) -> Problem:
    return problem(times, list(itertools.pairwise(times)), host=True, **how)  # type: ignore[arg-type]


def test_equal_processors_take_halves() -> None:
    of = chain(dict.fromkeys("abcdef", (10, 10)))
    assert sorted(stage.last - stage.first for stage in stages(of)) == [3, 3]
    rates = stream_rates(of, pipeline(of))
    assert rates.pipeline == pytest.approx(1e6 / 30)
    assert rates.alone == pytest.approx(1e6 / 60)
    assert rates.replicas == pytest.approx(1e6 / 30)
    assert rates.copies == (0.5, 0.5)


def test_a_pipeline_of_specialists_beats_copies() -> None:
    of = chain({"a": (10, 40), "b": (10, 40), "c": (40, 10), "d": (40, 10)})
    assert pipeline(of).units == (0, 0, 1, 1)
    rates = stream_rates(of, pipeline(of))
    assert rates.pipeline == pytest.approx(1e6 / 20)
    assert rates.replicas == pytest.approx(2e6 / 100)


def test_the_slower_processor_may_come_first() -> None:
    of = chain({"a": (10, 20), "b": (10, 20), "c": (30, 60), "d": (10, 90)})
    assert pipeline(of).units == (1, 1, 0, 0)


def test_what_a_cut_moves_counts() -> None:
    of = chain(dict.fromkeys("ab", (10, 10)), latency=1)
    # Each stage: 10 us of work, 1 us to take in, 1 us to give away.
    assert stream_rates(of, pipeline(of)).pipeline == pytest.approx(1e6 / 12)
    # Halves would pass two tensors on, c and b for e; behind b there is only one.
    edges = [*itertools.pairwise("abcdef"), ("b", "e")]
    dear = problem(dict.fromkeys("abcdef", (10, 10)), edges, us_per_byte=0.03, host=True)
    assert [stage.last for stage in stages(dear)] == [2, 6]
    assert stream_rates(dear, pipeline(dear)).pipeline == pytest.approx(1e6 / 100)


def test_calm_cuts_are_at_the_ends_of_blocks() -> None:
    # Two blocks with a residual each: a -> d and d -> h pass over everything inside.
    edges = [*itertools.pairwise("abcdefghi"), ("a", "d"), ("d", "h")]
    times = dict.fromkeys("abcdefghi", (10, 10)) | {"a": (5, 5), "i": (15, 15)}
    of = problem(times, edges, host=True)
    assert {stage.first for stage in stages(of)} == {0, 5}
    assert {stage.first for stage in stages(of, calm=True)} == {0, 4}
    pipeline(of, calm=True).check(of)


def test_processors_that_slow_each_other_down_work_together_only_if_it_pays() -> None:
    times = dict.fromkeys("abcd", (10.0, 10.0))
    of = chain(times, slowdown=1.5)
    assert len(stages(of)) == 2
    assert stream_rates(of, pipeline(of)).pipeline == pytest.approx(1e6 / 30)
    assert len(stages(chain(times, slowdown=2.5))) == 1


def test_processors_on_the_same_silicon_are_no_pipeline() -> None:
    of = chain(dict.fromkeys("abcd", (10, 12)), units=(Unit("x", CORE), Unit("y", CORE)))
    assert pipeline(of).units == (0, 0, 0, 0)
    rates = stream_rates(of, pipeline(of))
    assert rates.replicas == rates.alone == rates.pipeline


def test_a_refused_task_goes_elsewhere_and_the_schedule_is_valid() -> None:
    of = chain({"a": (10, INF), "b": (10, INF), "c": (INF, 10), "d": (INF, 10), "e": (10, INF)})
    schedule = pipeline(of)
    schedule.check(of)
    assert schedule.units == (0, 0, 1, 1, 0)
    assert stream_rates(of, schedule).alone == 0.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(1, 7), units=st.integers(1, 3))
def test_no_pipeline_of_a_chain_is_faster(seed: int, tasks: int, units: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"n{i}" for i in range(tasks)]
    times = rng.integers(1, 40, (tasks, units)).astype(float)
    of = chain(
        {name: tuple(row) for name, row in zip(names, times.tolist(), strict=True)},
        units=[Unit(f"u{i}") for i in range(units)],
        latency=float(rng.integers(0, 10)),
        us_per_byte=0.002,
        slowdown=1.0 + float(rng.integers(0, 3)) / 10,
    )
    found = stream_rates(of, pipeline(of)).pipeline
    best = max(stream_rates(of, each).pipeline for each in _all_pipelines(of))
    assert found == pytest.approx(best)


def _all_pipelines(of: Problem) -> list[Schedule]:
    """Every way to cut the tasks into runs on different processors."""
    count, units = len(of.tasks), range(len(of.units))
    found = []
    for size in range(1, min(count, len(units)) + 1):
        for cuts in itertools.combinations(range(1, count), size - 1):
            sizes = np.diff([0, *cuts, count])
            for team in itertools.permutations(units, size):
                placed = np.repeat(team, sizes).tolist()
                found.append(Schedule(tuple(placed), tuple(range(count))))
    return found


def test_long_graphs_are_cut_at_fewer_places_and_lose_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = random_problem(np.random.default_rng(5), 1_000, 2, refusals=0.0)
    thinned = stream_rates(of, pipeline(of)).pipeline
    monkeypatch.setattr(module, "CUTS", 1_000)
    assert thinned > 0.97 * stream_rates(of, pipeline(of)).pipeline


def test_the_table_of_policies_has_it_only_if_it_is_named() -> None:
    of = chain(dict.fromkeys("abcd", (10, 10)), latency=1)
    ranking = rank(of, "pipeline")
    assert ranking.chosen.policy == "pipeline"
    assert "inputs/s" in ranking.chosen.note
    assert "--policy pipeline" in rank(of, "auto").left_out["pipeline"]
    assert "pipeline" in {each.policy for each in rank(of, "all").outcomes}
