"""Forms of a step within a budget are run before a training begins, and never while it goes on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.knobs import RUN_SECONDS, SEARCH_APART
from coexec.budget import budgeted, runs, search
from coexec.budget.apart import Request
from coexec.budget.runs import RUN, StepRuns
from coexec.budget.settings import MemoryPlan
from coexec.cost.store import CostStore, Entry
from coexec.processor_costs import processor_costs
from tests.runtimes import THOROUGH

BATCH = 16
DATA = {"x": np.random.default_rng(0).standard_normal((BATCH, 6, 100), np.float32)}
LABELS = np.zeros(BATCH, np.int64)


def trainer(memory: str | int) -> coexec.Trainer:
    model = coexec.load(zoo.build("sensor_cnn"))
    how = SGD(0.01, momentum=0.9)
    return coexec.Trainer(model, SoftmaxCrossEntropy(), how, [THOROUGH[0]], memory=memory)


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A budget that several forms keep; times of their runs are forgotten before and after."""
    monkeypatch.setenv(SEARCH_APART.name, "1")
    monkeypatch.setenv(RUN_SECONDS.name, "2")
    forget()
    yield int(0.8 * trainer("64MiB").planned_bytes(DATA))
    forget()


def store() -> CostStore:
    return processor_costs(trainer("64MiB").processors)[THOROUGH[0]].store


def times_kept() -> dict[str, Entry]:
    return {key: entry for key, entry in store().entries.items() if key.startswith(RUN)}


def forget() -> None:
    found = store()
    for key in times_kept():
        found.drop(key)
    found.save()


def no_run(_self: StepRuns, _settings: object) -> list[list[float]]:
    raise AssertionError("a form of a step is run in the process that trains")


def test_the_fastest_form_that_was_run_is_taken(budget: int) -> None:
    plan = trainer(budget).plan_memory(DATA)
    assert plan is not None
    assert len(plan.ran) > 1
    assert list(plan.ran.values()) == sorted(plan.ran.values())
    used = [f"{use.technique} ({use.detail})" for use in plan.used]
    assert next(iter(plan.ran)) == ", ".join(used)
    assert plan.peak_bytes <= budget


def test_a_resumed_training_comes_to_the_same_form_without_a_run(budget: int) -> None:
    learner = trainer(budget)
    learner.step(DATA, LABELS)
    learner.step(DATA, LABELS)
    state = learner.state()
    learner.step(DATA, LABELS)
    kept = times_kept()
    again = trainer(budget)
    again.load_state(state, 2)
    again.step(DATA, LABELS)
    assert times_kept() == kept != {}
    assert again.memory_plan == learner.memory_plan
    for name, value in learner.state().items():
        np.testing.assert_array_equal(again.state()[name], value, err_msg=name)


def test_nothing_is_run_beside_a_training_that_goes_on(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def plan_apart(_model: object, request: Request) -> MemoryPlan | None:
        asked.append(request)
        return None

    monkeypatch.setattr(budgeted, "plan_apart", plan_apart)
    monkeypatch.setattr(StepRuns, "_run_all", no_run)
    learner = trainer(budget)
    learner.step(DATA, LABELS)
    learner.step({"x": DATA["x"][:8]}, LABELS[:8])
    learner.set_memory(int(1.1 * budget))
    learner.step(DATA, LABELS)
    resumed = trainer(budget)
    resumed.load_state(learner.state(), 3)
    resumed.step(DATA, LABELS)
    assert [each.runs for each in asked] == [True, False, False, False]


def test_no_other_form_is_looked_for_where_none_may_be_run(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SEARCH_APART.name, "0")
    monkeypatch.setattr(search, "finalists", lambda _found: pytest.fail("looked for others"))
    plan = trainer(budget).plan_memory(DATA)
    assert plan is not None
    assert plan.ran == {}
    assert plan.peak_bytes <= budget < plan.plain_bytes


def test_a_form_that_fails_is_left_out(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = trainer(budget)
    steps = learner.memory.steps
    assert steps is not None
    request = steps._request(DATA)
    timed, failed = runs._timed, list[object]()

    def first_fails(*how: object) -> float:
        if not failed:
            failed.append(how[0])
        if how[0] is failed[0]:
            raise coexec.base.errors.NonFiniteLoss("the loss is inf")
        return timed(*how)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "_timed", first_fails)
    plan = steps.search(request)
    assert failed
    assert plan.ran == {}
    assert plan.peak_bytes <= budget
