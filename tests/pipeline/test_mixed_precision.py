"""Training in float16 with a loss scale: it follows float32, and an overflow changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.loss_scale import LossScale
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.processors.find import list_processors
from coexec.steps.builder import Updates
from tests.pipeline.command import coexec as run
from tests.pipeline.small import write_data, write_network

BATCH = 16
OPENCL = [c for c in list_processors() if c.spec is not None and c.name.startswith("opencl:")]
ABLE = [
    "reference",
    *(c.name for c in OPENCL if c.spec and c.spec.features["fp16"] and "oclgrind" not in c.name),
]
UNABLE = [c.name for c in OPENCL if c.spec and not c.spec.features["fp16"]]


def trainer_on(processor: str, precision: Any = "mixed") -> coexec.Trainer:
    model = coexec.load(zoo.build("digits_cnn", batch=BATCH))
    loss, optimizer = SoftmaxCrossEntropy(), SGD(0.01, momentum=0.9)
    return coexec.Trainer(model, loss, optimizer, [processor], precision=precision)


def batch(number: int) -> tuple[dict[str, Array], Array]:
    rng = np.random.default_rng(number)
    x = rng.standard_normal((BATCH, 1, 8, 8)).astype(np.float32)
    return {"x": x}, rng.integers(0, 10, BATCH)


def losses(trainer: coexec.Trainer, steps: int = 8) -> list[float]:
    return [trainer.step(*batch(number % 2)) for number in range(steps)]


@pytest.mark.parametrize("processor", ABLE)
def test_the_loss_follows_float32(processor: str) -> None:
    mixed, single = trainer_on(processor), trainer_on(processor, "float32")
    found, expected = losses(mixed), losses(single)
    np.testing.assert_allclose(found, expected, rtol=0.02)
    assert found != expected
    assert mixed.loss_scale.overflows == 0


def mlp_on(processor: str, micro_batches: int, updates: Updates = "together") -> coexec.Trainer:
    return coexec.Trainer(
        coexec.load(zoo.build("mlp")),
        SoftmaxCrossEntropy(),
        SGD(0.01),
        [processor],
        precision="mixed",
        micro_batches=micro_batches,
        updates=updates,
    )


@pytest.mark.parametrize("processor", ABLE)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_an_overflow_changes_nothing_but_the_scale(processor: str, micro_batches: int) -> None:
    trainer = mlp_on(processor, micro_batches)
    x = {"x": np.random.default_rng(0).standard_normal((BATCH, 784)).astype(np.float32)}
    labels = np.arange(BATCH) % 10
    trainer.step(x, labels)
    before = trainer.state()
    trainer.loss_scale = LossScale(2.0**40)
    trainer.step(x, labels)
    assert trainer.loss_scale == LossScale(2.0**39, 0, 1)
    after = trainer.state()
    for name in before:
        if name != "#loss_scale":
            np.testing.assert_array_equal(before[name], after[name])
    never = mlp_on(processor, micro_batches)
    never.load_state(before, 1)
    for each in (trainer, never):
        each.loss_scale = LossScale(1024.0)
        each.step(x, labels)
    changed, expected = trainer.state(), never.state()
    for name in trainer.step_graph.trainable:
        assert np.any(changed[name] != before[name])
        np.testing.assert_array_equal(changed[name], expected[name])


@pytest.mark.parametrize("updates", ["together", "early"])
@pytest.mark.parametrize("large", [0, 1])
def test_gradients_of_one_part_that_overflow_take_the_others_with_them(
    large: int, updates: Updates
) -> None:
    """Early, sums have taken them in before anybody can look: they are cleared."""
    trainer, never = mlp_on("reference", 2, updates), mlp_on("reference", 2, updates)
    x = np.random.default_rng(0).standard_normal((2, BATCH // 2, 784)).astype(np.float32)
    good, labels = {"x": x.reshape(BATCH, 784).copy()}, np.arange(BATCH) % 10
    x[large] *= 2000
    trainer.loss_scale = LossScale(1024.0)
    trainer.step({"x": x.reshape(BATCH, 784)}, labels)
    assert trainer.loss_scale == LossScale(512.0, 0, 1)
    assert trainer.step_graph.early == (updates == "early")
    for each in (trainer, never):
        each.loss_scale = LossScale(512.0)
        each.step(good, labels)
    found, expected = trainer.state(), never.state()
    for name in trainer.step_graph.trainable:
        np.testing.assert_array_equal(found[name], expected[name])


def test_training_goes_on_bit_by_bit_from_a_saved_state() -> None:
    whole = trainer_on(ABLE[-1])
    expected = losses(whole)
    first = trainer_on(ABLE[-1])
    losses(first, 4)
    second = trainer_on(ABLE[-1])
    second.load_state(first.state(), first.steps)
    assert second.loss_scale == first.loss_scale
    assert [second.step(*batch(number % 2)) for number in range(4, 8)] == expected[4:]


@pytest.mark.parametrize("processor", UNABLE)
def test_a_device_without_float16_is_refused(processor: str) -> None:
    with pytest.raises(UsageError, match=f"needs float16, which {processor}"):
        trainer_on(processor)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="'half' is unknown for training; known: float32, mixed"):
        trainer_on("reference", "half")


def test_the_command_reports_overflows(tmp_path: Path) -> None:
    write_network(tmp_path / "model.onnx")
    write_data(tmp_path / "data.npz", 32)
    common = ("train", tmp_path / "model.onnx", "--data", tmp_path / "data.npz", "--epochs", "1")
    done = run(*common, "-p", "reference", "--precision", "mixed", "--json")
    assert done.record["overflows"] == 0
    assert run(*common, "-p", "reference", "--json").record["overflows"] is None
