"""Trainings within a budget of memory: refusals, micro-batches, budgets that change, commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import MemoryBudgetError, UsageError
from coexec.core.types import Array
from tests.pipeline.command import coexec as command
from tests.runtimes import THOROUGH

BATCH = 16
RNG = np.random.default_rng(0)
DATA = {"x": RNG.standard_normal((BATCH, 6, 100)).astype(np.float32)}
LABELS = RNG.integers(0, 4, BATCH)


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
    assert [use.technique for use in plan.used] == ["rematerialisation"]
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
    assert "conv.output" in text
    assert "micro-batches cannot be used: 4 BatchNormalization nodes ('block1.bn', ...)" in text
    learner.set_memory(caught.value.least_bytes)
    learner.step(DATA, LABELS)
    assert learner.peak_bytes <= caught.value.least_bytes
    assert learner.steps == 1


def test_ghost_statistics_allow_micro_batches() -> None:
    learner = trainer("100KiB", batch_statistics="ghost")
    with pytest.raises(MemoryBudgetError) as caught:
        learner.step(DATA, LABELS)
    assert "cannot be used" not in str(caught.value)
    learner.set_memory(caught.value.least_bytes)
    assert np.isfinite(learner.step(DATA, LABELS))
    plan = learner.memory_plan
    assert plan is not None
    assert plan.setting.recipe.micro_batches > 1
    assert {use.technique for use in plan.used} >= {"micro-batches"}


def test_a_processor_that_plans_no_memory_and_a_plan_beside_it_are_refused() -> None:
    model = coexec.load(zoo.build("sensor_cnn"))
    parts = (model, SoftmaxCrossEntropy(), SGD(0.01))
    with pytest.raises(UsageError, match=r"reference plan no memory .* use an OpenCL processor"):
        coexec.Trainer(*parts, ["reference"], memory="1MiB").step(DATA, LABELS)
    with pytest.raises(
        UsageError, match="batch statistics 'half' are unknown; known: whole, ghost"
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
    assert small["memory"]["used"][0]["technique"] == "rematerialisation"
    planned = command(
        *("plan", model, "--train", "--memory", budget, "--processors", THOROUGH[0]),
        *("--budget", "0", "--batch-size", str(BATCH), "--json"),
    ).record
    assert planned["memory"]["recomputed"]
    refused = command("plan", model, "--memory", budget, "--processors", THOROUGH[0])
    assert "--memory is the budget of a training step: give --train too" in refused.err
