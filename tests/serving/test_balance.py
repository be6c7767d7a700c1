"""Balancing a pipeline on made-up machines whose processors are not what costs say."""

from __future__ import annotations

import itertools

import pytest

from coexec.core.plan import Plan
from coexec.placement.policies.pipeline import pipeline
from coexec.serving.balance import balance
from tests.placement.made_up import problem

NAMES = [f"n{i}" for i in range(20)]


def test_a_processor_that_is_faster_than_its_costs_gets_more() -> None:
    of = problem(dict.fromkeys(NAMES, (10.0, 10.0)), list(itertools.pairwise(NAMES)))
    real_ms = {"a": 2.0, "b": 8.0}
    measured: list[float] = []

    def measure(plan: Plan) -> dict[str, float]:
        busy = dict.fromkeys(real_ms, 0.0)
        for unit in plan.processors.values():
            busy[unit] += real_ms[unit]
        measured.append(max(busy.values()))
        return busy

    found = balance(of, Plan(dict.fromkeys(NAMES, "a")), measure)
    # 16 nodes at 2 ms beside 4 at 8 ms; the costs alone would have made it 10 and 10.
    assert measured[0] == 80.0
    assert found.per_second == pytest.approx(1e3 / 32)
    assert found.rounds == len(measured) <= 8
    assert list(found.plan.processors.values()).count("a") == 16
    assert found.plan.order == tuple(NAMES)


def test_costs_that_are_wrong_by_another_factor_everywhere_are_found_out() -> None:
    of = problem(dict.fromkeys(NAMES, (10.0, 10.0)), list(itertools.pairwise(NAMES)))
    # The first processor is good at the beginning and bad at the end, the second the reverse.
    real_ms = {"a": [1.0 + i for i in range(20)], "b": [30.0 - i for i in range(20)]}

    def measure(plan: Plan) -> dict[str, float]:
        busy = dict.fromkeys(real_ms, 0.0)
        for number, unit in enumerate(plan.processors.values()):
            busy[unit] += real_ms[unit][number]
        return busy

    found = balance(of, Plan(dict.fromkeys(NAMES, "a")), measure)
    cuts = range(1, 20)
    best = min(max(sum(real_ms["a"][:cut]), sum(real_ms["b"][cut:])) for cut in cuts)
    assert max(found.busy_ms.values()) <= 1.1 * best
    assert measure(found.plan) == found.busy_ms


def test_the_best_that_was_measured_is_kept() -> None:
    of = problem(dict.fromkeys(NAMES, (10.0, 10.0)), list(itertools.pairwise(NAMES)))
    answers = iter([{"a": 5.0, "b": 6.0}, {"a": 9.0, "b": 9.0}, {"a": 9.0, "b": 9.0}])
    found = balance(of, Plan(dict.fromkeys(NAMES, "a")), lambda _plan: next(answers), rounds=2)
    assert found.busy_ms == {"a": 5.0, "b": 6.0}
    assert found.schedule.units == pipeline(of).units
