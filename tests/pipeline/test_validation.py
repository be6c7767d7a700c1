"""Held-out data while a training goes on: evaluated, waited for, the best parameters kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec.autodiff.losses import MeanSquaredError, SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import CheckpointError, DataError, UsageError
from coexec.core.types import Array
from coexec.training.data import Dataset
from coexec.training.evaluation import evaluate
from coexec.training.fit import FitOptions, Result, fit
from tests.pipeline.small import CLASSES, FEATURES, arrays, network

BATCH = 8


def data(count: int, seed: int = 0, *, shuffled: bool = False) -> Dataset:
    """Samples with labels; shuffled ones cannot be learned."""
    found = arrays(count)
    labels = np.random.default_rng(seed).permutation(found["labels"]) if shuffled else None
    return Dataset({"x": found["x"]}, found["labels"] if labels is None else labels)


def trainer(rate: float = 0.05) -> coexec.Trainer:
    loss = SoftmaxCrossEntropy()
    return coexec.Trainer(coexec.load(network()), loss, SGD(rate, 0.9), ["reference"])


def train(trainer: coexec.Trainer, held_out: Dataset, epochs: int = 6, **options: Any) -> Result:
    return fit(trainer, data(20), held_out, FitOptions(epochs, BATCH, **options))


def log_loss(trainer: coexec.Trainer, held_out: Dataset) -> float:
    """By NumPy, over all samples at once."""
    y = trainer.predict({"x": held_out.inputs["x"]})["y"].astype(np.float64)
    p = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    return float(-np.log(p[np.arange(len(y)), held_out.truth]).mean())


def test_the_loss_is_that_of_all_samples_whatever_the_batches() -> None:
    model, held_out = trainer(), data(21)
    found = [evaluate(model, held_out, size) for size in (BATCH, 21, 4)]
    for each in found:
        assert each.loss == pytest.approx(log_loss(model, held_out), rel=1e-5)
        assert each.accuracy == found[0].accuracy


def test_regression_has_a_loss_on_held_out_data(rng: np.random.Generator) -> None:
    """Its accuracy is none."""
    loss, x = MeanSquaredError(), rng.standard_normal((10, FEATURES), np.float32)
    model = coexec.Trainer(coexec.load(network()), loss, SGD(0.1), ["reference"])
    labels: Array = np.zeros((10, CLASSES), np.float32)
    expected = float((model.predict({"x": x})["y"].astype(np.float64) ** 2).mean())
    found = evaluate(model, Dataset({"x": x}, labels), BATCH)
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert found.accuracy is None


@pytest.mark.parametrize(("every", "steps"), [(0, [12]), (1, [2, 4, 6, 8, 10, 12]), (4, [8, 12])])
def test_held_out_data_are_evaluated_every_so_many_epochs(every: int, steps: list[int]) -> None:
    model, held_out = trainer(), data(21)
    result = train(model, held_out, validate_every=every)
    assert [each.step for each in result.validations] == steps
    assert result.validation_loss == pytest.approx(log_loss(model, held_out), rel=1e-5)
    assert result.kept_step == 12


def test_evaluations_change_nothing() -> None:
    often, never = trainer(), trainer()
    train(often, data(21), validate_every=1)
    train(never, data(21), validate_every=0)
    for name, value in never.state().items():
        np.testing.assert_array_equal(often.state()[name], value)


def test_a_training_ends_when_patience_does() -> None:
    """Labels that cannot be learned: what fits the training data only becomes worse on them."""
    model = trainer()
    result = train(model, data(21, shuffled=True), epochs=50, patience=3)
    losses = [each.loss for each in result.validations]
    assert result.steps < 100
    assert np.argmin(losses) == len(losses) - 4
    assert any("3 evaluations without a lower loss" in note for note in result.notes)
    assert result.kept_step == result.steps


def test_the_best_parameters_are_kept() -> None:
    held_out = data(21, shuffled=True)
    model = trainer()
    result = train(model, held_out, epochs=12, keep_best=True)
    best = min(result.validations, key=lambda each: each.loss)
    assert best.step < result.steps
    assert (result.kept_step, result.validation_loss) == (best.step, best.loss)
    assert log_loss(model, held_out) == pytest.approx(best.loss, rel=1e-5)


def test_an_interrupted_training_resumes_with_its_best_parameters(tmp_path: Path) -> None:
    held_out, how = data(21, shuffled=True), {"keep_best": True, "patience": 8}
    whole = trainer()
    expected = train(whole, held_out, epochs=12, **how)
    first = trainer()
    train(first, held_out, epochs=7, checkpoint=tmp_path, **how)
    second = trainer()
    found = train(second, held_out, epochs=12, checkpoint=tmp_path, resume=True, **how)
    assert found.validations == expected.validations
    assert found.kept_step == expected.kept_step
    for name, value in whole.state().items():
        np.testing.assert_array_equal(second.state()[name], value, err_msg=name)


def test_best_parameters_that_were_not_kept_cannot_be_resumed_with(tmp_path: Path) -> None:
    train(trainer(), data(21), epochs=2, checkpoint=tmp_path, validate_every=1)
    with pytest.raises(CheckpointError, match=r"were not kept in .*best"):
        train(trainer(), data(21), epochs=3, checkpoint=tmp_path, resume=True, keep_best=True)


def test_a_new_training_leaves_the_checkpoints_of_another_one_alone(tmp_path: Path) -> None:
    """Its own, of fewer steps, would be taken for older ones and dropped."""
    train(trainer(), data(21), epochs=4, checkpoint=tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"checkpoint-000000008.npz: --resume goes on from"):
        train(trainer(0.01), data(21), epochs=1, checkpoint=tmp_path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("options", [{"patience": 1}, {"keep_best": True}])
def test_without_held_out_data_there_is_no_best(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="go by the loss on held-out data"):
        fit(trainer(), data(20), None, FitOptions(1, BATCH, **options))


@pytest.mark.parametrize("options", [{"patience": 1}, {"keep_best": True}])
def test_one_evaluation_at_the_end_is_nothing_to_choose_from(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="with validate_every 0 there is one, at the end"):
        train(trainer(), data(21), validate_every=0, **options)
