"""Trainings within a budget of memory: refusals, micro-batches, budgets that change, commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import MemoryBudgetError, UsageError
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.pressure import Pressure, PressureWatch
from coexec.budget.settings import Lowered, Setting
from coexec.budget.techniques import with_state_bits
from coexec.core.types import Array
from coexec.placement.save import load_plan, save_plan
from coexec.planning.planner import PlanOptions, plan_training
from coexec.steps.resident import ResidentPrograms
from tests.pipeline.command import coexec as command
from tests.runtimes import THOROUGH

BATCH = 16
RNG = np.random.default_rng(0)
DATA = {"x": RNG.standard_normal((BATCH, 6, 100)).astype(np.float32)}
LABELS = RNG.integers(0, 4, BATCH)

LESS = 0.95
"""Of what exact techniques need: too little for them, enough for those that lose precision."""


def trainer(memory: str | int | None = None, **options: object) -> coexec.Trainer:
    model = coexec.load(zoo.build("sensor_cnn"))
    how = SGD(0.01, momentum=0.9)
    return coexec.Trainer(
        model,
        SoftmaxCrossEntropy(),
        how,
        [THOROUGH[0]],
        memory=memory,
        **options,  # type: ignore[arg-type]
    )


def states(learner: coexec.Trainer, steps: int) -> dict[str, Array]:
    for _ in range(steps):
        learner.step(DATA, LABELS)
    return learner.state()


def test_a_budget_changes_in_mid_training_and_nothing_else_does() -> None:
    plain, switched = trainer(), trainer()
    expected = states(plain, 4)
    states(switched, 2)
    switched.set_memory(int(plain.peak_bytes * 0.75))
    states(switched, 1)
    plan = switched.memory_plan
    assert plan is not None
    assert switched.peak_bytes == plan.peak_bytes <= plan.budget_bytes < plan.plain_bytes
    assert plan.used
    assert all(use.exact for use in plan.used)
    assert sum(use.saved_bytes for use in plan.used) == plan.plain_bytes - plan.peak_bytes
    switched.set_memory(None)
    found = states(switched, 1)
    assert switched.memory_plan is None
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_nothing_fits_says_what_would_and_what_is_in_the_way() -> None:
    learner = trainer("100KiB")
    with pytest.raises(MemoryBudgetError) as caught:
        learner.step(DATA, LABELS)
    text = str(caught.value)
    assert "no training step fits 100.0 KiB: the plain one takes" in text
    assert ".output kept (" in text or ".output recomputed (" in text
    assert "micro-batches cannot be used: 4 BatchNormalization nodes ('block1.bn', ...)" in text
    learner.set_memory(caught.value.least_bytes)
    learner.step(DATA, LABELS)
    assert learner.peak_bytes <= caught.value.least_bytes
    assert learner.steps == 1


def test_a_refusal_lowers_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = []
    lower = BudgetedSteps._lowered

    def counted(self: BudgetedSteps, setting: Setting, *rest: Any) -> Lowered:
        lowered.append(setting)
        return lower(self, setting, *rest)

    monkeypatch.setattr(BudgetedSteps, "_lowered", counted)
    with pytest.raises(MemoryBudgetError):
        trainer("100KiB", batch_statistics="ghost").plan_memory(DATA)
    assert len(lowered) <= 13


def test_ghost_statistics_allow_micro_batches() -> None:
    learner = trainer("100KiB", batch_statistics="ghost")
    with pytest.raises(MemoryBudgetError) as caught:
        learner.step(DATA, LABELS)
    assert "micro-batches cannot be used" not in str(caught.value)
    learner.set_memory(caught.value.least_bytes)
    assert np.isfinite(learner.step(DATA, LABELS))
    plan = learner.memory_plan
    assert plan is not None
    assert plan.setting.recipe.micro_batches > 1
    assert {use.technique for use in plan.used} >= {"micro-batches"}


def test_a_batch_that_the_model_fixes_is_not_divided() -> None:
    model = coexec.load(zoo.build("sensor_cnn"), {"x": (BATCH, 6, 100)})
    loss, how = SoftmaxCrossEntropy(), SGD(0.01, momentum=0.9)
    where = [THOROUGH[0]]
    learner = coexec.Trainer(model, loss, how, where, memory="100KiB", batch_statistics="ghost")
    with pytest.raises(MemoryBudgetError) as caught:
        learner.step(DATA, LABELS)
    assert f"input 'x' has a fixed batch of {BATCH}" in str(caught.value)


def test_what_loses_precision_is_used_only_where_that_is_allowed() -> None:
    learner = trainer("100KiB")
    with pytest.raises(MemoryBudgetError, match="--memory-lossy would allow") as exact:
        learner.plan_memory(DATA)
    learner.set_memory(int(LESS * exact.value.least_bytes), lossy=True)
    first = learner.step(DATA, LABELS)
    plan = learner.memory_plan
    assert plan is not None
    assert learner.peak_bytes == plan.peak_bytes <= plan.budget_bytes
    assert {use.technique for use in plan.used if not use.exact}
    assert sum(use.saved_bytes for use in plan.used) == plan.plain_bytes - plan.peak_bytes
    assert learner.step(DATA, LABELS) < first


def test_states_go_to_8_bits_and_back_in_mid_training() -> None:
    learner = trainer()
    states(learner, 2)
    plain = learner.state()
    learner.set_memory(learner.peak_bytes)
    steps = learner.memory.steps
    assert steps is not None
    steps.recipe = with_state_bits(steps.recipe, 8)
    states(learner, 1)
    rounded = learner.state()
    large = [name for name in rounded if name.endswith("#momentum_scale")]
    assert large
    assert all(rounded[n.removesuffix("_scale")].dtype == np.uint8 for n in large)
    learner.set_memory(None)
    states(learner, 1)
    assert {n: a.dtype for n, a in learner.state().items()} == {
        n: a.dtype for n, a in plain.items()
    }


def test_a_budget_is_prepared_while_steps_go_on() -> None:
    plain, switched = trainer(), trainer()
    expected = [plain.step(DATA, LABELS) for _ in range(5)]
    losses = [switched.step(DATA, LABELS)]
    switched.set_memory(int(plain.peak_bytes * 0.75), wait=False)
    losses.append(switched.step(DATA, LABELS))
    switched.memory.settle()
    losses.append(switched.step(DATA, LABELS))
    assert switched.memory_plan is not None
    assert switched.peak_bytes == switched.memory_plan.peak_bytes < plain.peak_bytes
    switched.set_memory(1, wait=False)
    switched.memory.settle()
    losses += [switched.step(DATA, LABELS) for _ in range(2)]
    assert losses == expected
    assert [event.kind for event in switched.memory.events] == ["switched", "kept"]
    assert "no training step fits 1 B" in switched.memory.events[-1].text


def test_the_step_that_takes_a_budget_over_compiles_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of that was done in the background; what is left is memory and states."""
    switched = trainer()
    before = switched.step(DATA, LABELS), switched.peak_bytes
    switched.set_memory(int(before[1] * 0.75), wait=False)
    switched.memory.settle()

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a step compiles what was to be ready")

    monkeypatch.setattr(ResidentPrograms, "lower", refuse)
    assert switched.step(DATA, LABELS) < before[0]
    assert switched.peak_bytes < before[1]


def test_a_training_shrinks_while_the_machine_is_short_of_memory() -> None:
    available = [2**30, 2**10, 2**30]
    learner = trainer()
    learner.memory.watch = PressureWatch(
        lambda: Pressure(available.pop(0), 0.0), least_available=2**20, every_seconds=0.0
    )
    states(learner, 2)  # the first step has nothing to shrink yet, the second one finds enough
    before = learner.peak_bytes
    states(learner, 1)
    learner.memory.settle()
    learner.memory.watch.every_seconds = 1e9
    states(learner, 1)
    assert learner.peak_bytes < before
    assert [event.kind for event in learner.memory.events] == ["pressure", "switched"]
    assert "1.0 KiB available" in learner.memory.events[0].text


def test_a_placed_step_keeps_its_budget_and_repeats_anywhere(tmp_path: Path) -> None:
    plain = trainer()
    expected = [plain.step(DATA, LABELS) for _ in range(2)]
    within = trainer(int(0.85 * plain.peak_bytes))
    how = PlanOptions("single_best", 0.0)
    planning = plan_training(within, DATA, how)
    plan = planning.plan
    assert plan.recompute
    again = [n for n in plan.processors if n.endswith("#again") and "relu" in n.lower()]
    assert again
    moved = replace(plan, processors={**plan.processors, **dict.fromkeys(again, "reference")})
    save_plan(planning.model, moved, tmp_path / "plan.onnx")
    placed = within.with_plan(load_plan(tmp_path / "plan.onnx")[1])
    placed.set_memory(plain.peak_bytes)
    assert [placed.step(DATA, LABELS) for _ in range(2)] == expected
    assert placed.plan.processors[again[0]] == "reference"
    kept = placed.memory_plan
    assert kept is not None
    assert [use.technique for use in kept.used] == ["early updates", "rematerialisation"]
    placed.set_memory("100KiB")
    with pytest.raises(
        MemoryBudgetError, match=r"on all processors together.*reference: .*regions"
    ):
        placed.step(DATA, LABELS)


def test_a_processor_that_plans_no_memory_and_a_plan_beside_it_are_refused() -> None:
    model = coexec.load(zoo.build("sensor_cnn"))
    parts = (model, SoftmaxCrossEntropy(), SGD(0.01))
    with pytest.raises(UsageError, match=r"reference plan no memory .* use an OpenCL processor"):
        coexec.Trainer(*parts, ["reference"], memory="1MiB").step(DATA, LABELS)
    with pytest.raises(
        UsageError, match="batch statistics 'half' are unknown; known: whole, ghost, frozen"
    ):
        trainer(batch_statistics="half")


def test_commands_keep_a_budget_and_tell_how(tmp_path: Path) -> None:
    model, data = tmp_path / "m.onnx", tmp_path / "d.npz"
    assert command("zoo", "sensor_cnn", "--out", model).status == 0
    np.savez(data, x=DATA["x"], labels=LABELS)
    learner = trainer()
    learner.step(DATA, LABELS)
    budget = f"{int(learner.peak_bytes * 0.8)}B"
    how = ("--batch-size", str(BATCH), "-p", THOROUGH[0], "--epochs", "2", "--json")
    plain = command("train", model, "--data", data, *how).record
    small = command("train", model, "--data", data, *how, "--memory", budget).record
    assert small["loss_last"] == plain["loss_last"]
    assert small["peak_bytes"] == small["memory"]["peak_bytes"] <= 0.8 * learner.peak_bytes
    assert [use["exact"] for use in small["memory"]["used"]]
    planned = command(
        *("plan", model, "--train", "--memory", budget, "--processors", THOROUGH[0]),
        *("--budget", "0", "--batch-size", str(BATCH), "--json"),
    ).record
    assert planned["memory"]["recomputed"]
    refused = command("plan", model, "--memory", budget, "--processors", THOROUGH[0])
    assert "--memory is the budget of a training step: give --train too" in refused.err


def test_where_no_plan_on_several_fits_one_processor_trains_by_all_techniques(
    tmp_path: Path,
) -> None:
    model, data = tmp_path / "m.onnx", tmp_path / "d.npz"
    assert command("zoo", "sensor_cnn", "--out", model).status == 0
    np.savez(data, x=DATA["x"], labels=LABELS)
    with pytest.raises(MemoryBudgetError) as exact:
        trainer("100KiB").plan_memory(DATA)
    budget = int(LESS * exact.value.least_bytes)
    how = ("--data", data, "--batch-size", str(BATCH), "--epochs", "1", "--budget", "0", "--json")
    pair = ("--processors", f"{THOROUGH[0]},reference", "--memory", f"{budget}B", "--memory-lossy")
    done = command("train", model, *how, *pair)
    assert done.record["plan"] is None
    assert done.record["memory"]["used"]
    assert done.record["peak_bytes"] <= budget
    assert "alone, no plan on several fits" in done.err
