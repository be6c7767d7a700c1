"""Predictions that runs of whole programs correct: of the same program, and of others like it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coexec.base.sources import package_digest
from coexec.core.machine import Link, Rates
from coexec.core.processor import ProcessorSpec
from coexec.core.types import OpCall, TensorType
from coexec.cost.distribution import Distribution
from coexec.cost.model import ProcessorCosts
from coexec.cost.store import CostStore
from coexec.cost.whole import (
    ALONE,
    INFERENCE,
    LEAST_CALLS,
    LEAST_FACTOR,
    LEAST_PROGRAMS,
    LEAST_US,
    STEP,
    Correction,
    Program,
    correction,
    learn,
)
from coexec.placement.build_problem import Planned
from coexec.placement.policies.table import DIVIDED, ONE, PLACED, outcome_of, rank
from coexec.placement.problem import Division, Problem, Schedule
from coexec.planning.corrections import (
    Corrections,
    Run,
    alone_corrections,
    alone_us,
    known_corrections,
    learn_alone,
    learn_way,
    learn_ways,
)
from coexec.processors.reference.processor import ReferenceProcessor
from tests.placement.made_up import INF, problem

RATES = Rates(
    {"float32": 100.0}, 10.0, 5.0, 20.0, {"write": Link(10.0, 2.0), "read": Link(30.0, 4.0)}
)
MS = 1000.0


class Named(ReferenceProcessor):
    """The reference under another name; ``kernels`` is the code that it says it has."""

    def __init__(self, name: str, kernels: str = "as first written") -> None:
        super().__init__()
        self.name, self.kernels = name, kernels

    def describe(self) -> ProcessorSpec:
        return replace(super().describe(), name=self.name)

    def code_of(self, call: OpCall) -> str:
        return f"{call.identifier} {self.kernels}"


def costs(name: str, folder: Path, kernels: str = "as first written") -> ProcessorCosts:
    processor = Named(name, kernels)
    return ProcessorCosts(processor, RATES, CostStore(processor.describe(), "1", folder))


def program(size: int, kind: str = INFERENCE, calls: int = 20) -> Program:
    operand = TensorType((size,), np.dtype("float32"))
    return Program((OpCall("Relu", (operand,), {}, (operand,), version=21),) * calls, kind)


def took(ms: float) -> Distribution:
    return Distribution.exactly(ms * MS)


def test_a_program_that_ran_is_corrected_by_its_run_and_by_no_other(tmp_path: Path) -> None:
    here = costs("a", tmp_path)
    learn([here], program(1), ALONE, took(8), Correction(0.8), 10 * MS)
    assert correction([here], program(1), ALONE, 10 * MS) == Correction(0.8)
    assert correction([here], program(2), ALONE, 10 * MS) is None
    assert correction([here], program(1, STEP), ALONE, 10 * MS) is None
    assert correction([here, costs("b", tmp_path)], program(1), DIVIDED, 10 * MS) is None


def test_what_was_measured_counts_if_calls_are_predicted_otherwise_by_now(tmp_path: Path) -> None:
    here = costs("a", tmp_path)
    learn([here], program(1), ALONE, took(8), Correction(0.8), 10 * MS)
    assert correction([here], program(1), ALONE, 5 * MS) == Correction(1.6)


def test_a_run_does_not_hold_for_other_kernels(tmp_path: Path) -> None:
    before = costs("a", tmp_path)
    learn([before], program(1), ALONE, took(8), Correction(0.8), 10 * MS)
    before.store.save()
    assert correction([costs("a", tmp_path)], program(1), ALONE, 10 * MS) == Correction(0.8)
    after = costs("a", tmp_path, "written anew")
    assert correction([after], program(1), ALONE, 10 * MS) is None


def test_a_run_on_several_does_not_hold_for_other_code_that_hands_over(tmp_path: Path) -> None:
    team = [costs("a", tmp_path), costs("b", tmp_path)]
    for size in range(1, 4):
        learn(team, program(size), DIVIDED, took(8), Correction(1.6), 5 * MS, "as it was")
    assert correction(team, program(1), DIVIDED, 5 * MS, "as it was") == Correction(1.6)
    assert correction(team, program(9), DIVIDED, 5 * MS, "as it was") is not None
    for size in (1, 9):
        assert correction(team, program(size), DIVIDED, 5 * MS, "as it is") is None


def test_other_code_of_the_runtime_lets_go_of_ways_and_not_of_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: costs(name, tmp_path) for name in "ab"}
    of = chain((10, 20), (20, 10))
    learned = learn_alone(program(1), known, of, {"a": [24 * MS] * 3, "b": [36 * MS] * 3}, {})
    placed = outcome_of(of, "heft", Schedule((0, 1), (0, 1)))
    learn_way([known["a"], known["b"]], program(1), placed, [30 * MS])
    assert known_corrections(program(1), known, of).ways == {PLACED: Correction(1.5)}

    def mended(name: str) -> str:
        return "mended" if name == "coexec.runtime" else package_digest(name)

    monkeypatch.setattr("coexec.planning.corrections.package_digest", mended)
    assert known_corrections(program(1), known, of) == Corrections(learned)


def test_of_several_plans_of_a_way_the_best_predicted_one_corrects_it(tmp_path: Path) -> None:
    known = {name: costs(name, tmp_path) for name in "ab"}
    of = chain((10, 20), (20, 10))
    good = outcome_of(of, "heft", Schedule((0, 1), (0, 1)))
    bad = outcome_of(of, "fallback_order", Schedule((1, 0), (0, 1)))
    samples = {"bad": [40 * MS] * 3, "good": [30 * MS] * 3, "bad too": [40 * MS] * 3}
    plans = {"bad": bad, "good": good, "bad too": bad}
    learn_ways([known["a"], known["b"]], program(1), plans, samples)
    assert known_corrections(program(1), known, of).ways == {PLACED: Correction(1.5)}


def test_a_program_that_never_ran_is_corrected_by_the_median_of_others(tmp_path: Path) -> None:
    here = costs("a", tmp_path)
    for size, factor in enumerate((0.7, 0.9, 1.5), start=1):
        assert correction([here], program(9), ALONE, 10 * MS) is None
        learn([here], program(size), ALONE, took(10), Correction(factor), 10 * MS)
    assert LEAST_PROGRAMS == 3
    assert correction([here], program(9), ALONE, 10 * MS) == Correction(0.9, programs=3)
    assert correction([here], program(9, STEP), ALONE, 10 * MS) is None


def test_small_networks_say_nothing_of_large_ones_and_layers_nothing_of_layers(
    tmp_path: Path,
) -> None:
    here = costs("a", tmp_path)
    for size in range(1, 4):
        learn([here], program(size, calls=20), ALONE, took(10), Correction(1.3), 10 * MS)
    assert correction([here], program(9, calls=LEAST_CALLS - 1), ALONE, 10 * MS) is None
    assert correction([here], program(9, calls=81), ALONE, 10 * MS) is None
    for calls in (LEAST_CALLS, 20, 80):
        found = correction([here], program(9, calls=calls), ALONE, 10 * MS)
        assert found == Correction(1.3, programs=3)
    for size in range(1, 4):
        learn([here], program(size, calls=1), ALONE, took(10), Correction(1.3), 10 * MS)
    assert correction([here], program(9, calls=1), ALONE, 10 * MS) is None


def test_short_programs_say_nothing_of_others_nor_others_of_them(tmp_path: Path) -> None:
    here = costs("a", tmp_path)
    for size in range(1, 4):
        learn([here], program(size), ALONE, took(0.5), Correction(9.0), 0.05 * MS)
    assert correction([here], program(9), ALONE, 10 * MS) is None
    for size in range(4, 7):
        learn([here], program(size), ALONE, took(10), Correction(0.8), 10 * MS)
    assert correction([here], program(9), ALONE, 10 * MS) == Correction(0.8, programs=3)
    assert correction([here], program(9), ALONE, 0.9 * LEAST_US) is None


def chain(*times_ms: tuple[float, float], latency: float = 0.0) -> Problem:
    names = [f"t{index}" for index in range(len(times_ms))]
    of = {n: (a * MS, b * MS) for n, (a, b) in zip(names, times_ms, strict=True)}
    return problem(of, list(itertools.pairwise(names)), latency=latency, host=True)


def test_a_run_alone_corrects_tasks_and_leaves_the_way_to_the_host() -> None:
    of = chain((10, 30), (10, 30), latency=1 * MS)
    found = alone_corrections(of, {"a": Run(32 * MS), "b": Run(32 * MS)})
    assert found == {"a": Correction(1.5), "b": Correction(0.5)}
    times = of.time_us * [found[unit.name].factor for unit in of.units]
    assert [alone_us(replace(of, time_us=times), unit) for unit in (0, 1)] == [32 * MS, 32 * MS]


def test_no_run_corrects_to_nothing_and_a_short_one_corrects_nothing() -> None:
    of = chain((10, 10), latency=4 * MS)
    assert alone_corrections(of, {"a": Run(3 * MS)}) == {"a": Correction(LEAST_FACTOR)}
    assert alone_corrections(of, {"a": Run(0.9 * LEAST_US)}) == {}


def test_a_processor_that_refuses_something_is_not_corrected() -> None:
    of = chain((10, 10), (INF, 10))
    assert alone_corrections(of, {"a": Run(40 * MS), "b": Run(10 * MS)}) == {"b": Correction(0.5)}


def test_what_passes_between_tasks_is_added_to_each_and_not_multiplied() -> None:
    """Half of a run of 40 ms the processor computes what was predicted to take 16 ms."""
    of = chain((2, 0), (14, 0), (0, 0))
    found = alone_corrections(of, {"a": Run(40 * MS, computes=0.5)})
    assert found == {"a": Correction(1.25, each_us=10 * MS)}
    curve = ((0.0, 0.0), (0.5, 1 * MS), (1.0, 2 * MS))
    halves = Division(0, 2, (), (curve, ()))
    planned = Planned(replace(of, divisions={0: (halves,)}), (), (), ())
    corrected = planned.corrected(found, {PLACED: 1.5}).problem
    assert corrected.time_us[:, 0].tolist() == [12.5 * MS, 27.5 * MS, 0]
    assert corrected.divisions[0][0].times_us[0].tolist() == [0, 11.25 * MS, 12.5 * MS]
    assert corrected.corrections == {PLACED: 1.5}


def test_of_a_single_task_each_share_has_its_part_of_what_its_run_takes_longer() -> None:
    """A run of 10 ms computes for 8, as predicted; 2 ms of ways to the host were not."""
    of = chain((8, 8))
    found = alone_corrections(of, {"a": Run(10 * MS, computes=0.8)})
    assert found == {"a": Correction(1.25)}
    curve = ((0.0, 0.0), (0.5, 4 * MS), (1.0, 8 * MS))
    halves = Division(0, 2, (), (curve, curve))
    planned = Planned(replace(of, divisions={0: (halves,)}), (), (), ())
    corrected = planned.corrected(found, {}).problem
    assert corrected.divisions[0][0].times_us[0].tolist() == [0, 5 * MS, 10 * MS]


def test_a_way_to_the_host_that_is_predicted_too_long_makes_no_task_shorter() -> None:
    """Of 12 ms it computed 10, as predicted; the ways take 1 ms each, not the 5 that are known."""
    of = chain((10, INF), latency=5 * MS)
    assert alone_corrections(of, {"a": Run(12 * MS, computes=10 / 12)}) == {"a": Correction(1.0)}


def test_runs_are_found_again_for_the_same_problem(tmp_path: Path) -> None:
    known = {name: costs(name, tmp_path) for name in "ab"}
    of = chain((10, 20), (20, 10))
    samples = {"a": [24 * MS] * 3, "b": [36 * MS] * 3}
    learned = learn_alone(program(1), known, of, samples, {"a": 0.5})
    assert learned == {"a": Correction(0.4, each_us=6 * MS), "b": Correction(1.2)}
    placed = outcome_of(of, "heft", Schedule((0, 1), (0, 1)))
    learn_way([known["a"], known["b"]], program(1), placed, [30 * MS])
    for each in known.values():
        each.store.save()
    again = {name: costs(name, tmp_path) for name in "ab"}
    found = known_corrections(program(1), again, of)
    assert found == Corrections(learned, {PLACED: Correction(1.5)})
    corrected = found.of(Planned(of, (), (), ())).problem
    assert corrected.time_us.tolist() == [[10 * MS, 24 * MS], [14 * MS, 12 * MS]]


def test_a_plan_is_compared_where_the_machine_is_as_fast_as_its_timeline_says(
    tmp_path: Path,
) -> None:
    """By the clock it took 60 ms, at half the speed: what ran beside it took twice as long."""
    known = {name: costs(name, tmp_path) for name in "ab"}
    of = chain((10, 20), (20, 10))
    placed = outcome_of(of, "heft", Schedule((0, 1), (0, 1)))
    learn_way([known["a"], known["b"]], program(1), placed, [60 * MS], measured_us=30 * MS)
    assert known_corrections(program(1), known, of).ways == {PLACED: Correction(1.5)}


def test_most_runs_of_a_disturbed_minute_correct_nothing_for_later(tmp_path: Path) -> None:
    """A core at half its speed in six of nine turns; what varies as on a quiet machine counts."""
    known = {name: costs(name, tmp_path) for name in "ab"}
    of, members = chain((10, 20), (20, 10)), [known["a"], known["b"]]
    disturbed = [30 * MS] * 3 + [60 * MS] * 6
    learned = learn_alone(program(1), known, of, {"a": disturbed, "b": [31 * MS] * 9}, {})
    assert learned == {"a": Correction(1.0), "b": Correction(31 / 30)}
    placed = outcome_of(of, "heft", Schedule((0, 1), (0, 1)))
    learn_way(members, program(1), placed, disturbed)
    assert known_corrections(program(1), known, of).ways == {PLACED: Correction(1.5)}
    learn_way(members, program(1), placed, [30 * MS] * 3 + [32 * MS] * 6)
    assert known_corrections(program(1), known, of).ways == {PLACED: Correction(1.6)}


def test_a_corrected_way_is_ranked_by_what_runs_of_it_take() -> None:
    """Side by side they would take 10 ms; runs of such plans took 2.5 times as long as said."""
    of = problem({"left": (10 * MS, 10 * MS), "right": (10 * MS, 10 * MS)})
    assert rank(of).chosen.way == PLACED
    wrong = replace(of, corrections={PLACED: 2.5})
    ranking = rank(wrong)
    assert (ranking.chosen.way, ranking.chosen.makespan_us) == (ONE, 20 * MS)
    spread = outcome_of(wrong, "heft", Schedule((0, 1), (0, 1)))
    assert (spread.timeline.makespan_us, spread.makespan_us) == (10 * MS, 25 * MS)
