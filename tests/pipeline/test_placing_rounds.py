"""Plans within a budget on several processors: what is asked for again when more is recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.budget.budgeted import BudgetedSteps
from coexec.core.machine import Machine, Rates
from coexec.core.types import Array
from coexec.passes.order_for_memory import order_for_memory
from coexec.placement.policies.batch_parallel import balanced_rows
from coexec.placement.policies.table import BATCH_PARALLEL, Ranking, rank
from coexec.placement.problem import Problem
from coexec.planning import batch, planner
from coexec.planning.planner import PlanOptions, plan_training
from tests.runtimes import DRIVERS

if "opencl:intel" not in DRIVERS:
    pytest.skip("needs an OpenCL runtime that divides a CPU", allow_module_level=True)

BATCH = 16
DATA = {"x": np.zeros((BATCH, 6, 100), np.float32)}
PAIR = ["opencl:intel?cores=1&first=0", "opencl:intel?cores=1"]


def trainer(specs: list[str], memory: int | None = None) -> coexec.Trainer:
    model = coexec.load(zoo.build("sensor_cnn"))
    how = SGD(0.01, momentum=0.9)
    return coexec.Trainer(model, SoftmaxCrossEntropy(), how, specs, memory=memory)


@pytest.fixture(autouse=True)
def _known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans must not depend on what else runs while a device is measured for the first time."""

    def machine_rates(specs: Sequence[str], observe: object = None) -> Machine:
        quick, slow = (
            Rates({"float32": 60.0}, 20.0, 3.0, 5.0),
            Rates({"float32": 1.0}, 1.0, 1.0, 1.0),
        )
        known = {name: slow if name == "reference" else quick for name in specs}
        return Machine("known", "2026-01-01", known)

    monkeypatch.setattr("coexec.processor_costs.machine_rates", machine_rates)


def test_policies_and_shares_are_sought_once_and_followed_when_more_is_recomputed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recomputed = BudgetedSteps.recomputed
    ranked: list[str] = []
    goals: list[tuple[str, int]] = []
    begun: list[int] = []

    def ranking(problem: Problem, policy: str, seconds: float, only: str) -> Ranking:
        ranked.append(only)
        return rank(problem, policy, seconds, only)

    def asked(self: BudgetedSteps, arrays: Mapping[str, Array], goal: int, *rest: Any) -> Any:
        goals.append((self.recipe.updates, goal))
        return recomputed(self, arrays, goal, *rest)

    def rows(whole_us: Mapping[str, float], size: int) -> dict[str, int]:
        begun.append(size)
        return balanced_rows(whole_us, size)

    monkeypatch.setattr(planner, "rank", ranking)
    monkeypatch.setattr(BudgetedSteps, "recomputed", asked)
    monkeypatch.setattr(batch, "balanced_rows", rows)
    budget = int(0.93 * trainer(PAIR[:1]).planned_bytes(DATA))
    planning = plan_training(trainer(PAIR, budget), DATA, PlanOptions(seconds=0.0))
    assert planning.plan.recompute
    assert ranked.count("") == 1
    assert BATCH_PARALLEL in ranked
    assert len(goals) == len(set(goals))
    assert begun == [BATCH]


def test_updates_at_the_end_are_not_placed_where_one_processor_recomputes_no_less_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed: list[bool] = []

    def ordering(graph: ir.Graph, state: Mapping[str, str], *, early: bool) -> None:
        placed.append(early)
        order_for_memory(graph, state, early=early)

    monkeypatch.setattr(planner, "order_for_memory", ordering)
    budget = int(0.93 * trainer(PAIR[:1]).planned_bytes(DATA))
    planning = plan_training(trainer(PAIR, budget), DATA, PlanOptions(seconds=0.0))
    assert planning.plan.recompute
    assert planning.plan.early
    assert placed
    assert all(placed)
