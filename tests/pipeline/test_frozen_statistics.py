"""Training by the stored statistics of batch normalisation, which stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import MeanSquaredError, SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.ops.batch_norm import EPSILON
from coexec.ops.node import constant_of
from tests.graphs import parse
from tests.pipeline.command import coexec as command
from tests.pipeline.small import CLASSES, FEATURES, parameters, write_data, write_network
from tests.pipeline.test_train_exported import training_form
from tests.runtimes import DRIVERS, THOROUGH

RATE = 0.1
NORM = (
    "g (float[N,3,4] x) => (float[N,3,4] y) "
    "<float[3] s = {1, 2, 0.5}, float[3] b = {0, 1, 2}, "
    "float[3] m = {1, -2, 0.5}, float[3] v = {4, 0.25, 1}> "
    "{ n = BatchNormalization(x, s, b, m, v) y = Mul(n, n) }"
)
STATISTICS = ("bn.mean", "bn.var")


def frozen(model: Any, processor: str, **options: Any) -> coexec.Trainer:
    loss = options.pop("loss", MeanSquaredError())
    how = {"batch_statistics": "frozen", **options}
    return coexec.Trainer(coexec.load(model), loss, SGD(RATE), [processor], **how)


def initial(model: ir.Model) -> dict[str, Array]:
    found = {name: constant_of(value) for name, value in model.graph.initializers.items()}
    return {name: array for name, array in found.items() if array is not None}


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("runtime", DRIVERS)
def test_scale_and_bias_follow_their_gradients_by_stored_statistics(
    runtime: str, samples: int, rng: np.random.Generator
) -> None:
    """Against central differences of the loss of predictions, in float64."""
    x = rng.standard_normal((samples, 3, 4))
    stored = {"m": np.array([1, -2, 0.5]), "v": np.array([4, 0.25, 1])}
    first = {"s": np.array([1, 2, 0.5]), "b": np.array([0, 1, 2.0])}

    def loss(values: dict[str, Array]) -> float:
        column = {name: v[:, None] for name, v in {**stored, **values}.items()}
        normal = (x - column["m"]) / np.sqrt(column["v"] + EPSILON)
        return float(np.mean((normal * column["s"] + column["b"]) ** 4))

    trainer = frozen(parse(NORM), runtime)
    found = trainer.step({"x": x.astype(np.float32)}, np.zeros(x.shape, np.float32))
    assert found == pytest.approx(loss(first), rel=1e-5)
    state = trainer.state()
    assert sorted(state) == ["b", "s"]
    for name, value in first.items():
        for i in range(3):
            ends = [{**first, name: value + h * (np.arange(3) == i)} for h in (1e-5, -1e-5)]
            slope = (loss(ends[0]) - loss(ends[1])) / 2e-5
            assert state[name][i] == pytest.approx(value[i] - RATE * slope, rel=2e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("trainable", "once"), [(("s", "b"), True), (("b",), False), (("s",), False)], ids=str
)
def test_one_pass_makes_both_sums_where_both_are_wanted(
    trainable: tuple[str, ...], *, once: bool
) -> None:
    trainer = frozen(parse(NORM), "reference", trainable=trainable)
    graph = trainer.build_step({"x": np.ones((5, 3, 4), np.float32)}).model.graph
    kinds = [node.op_type for node in graph]
    assert kinds.count("BatchNormalizationSums") == once


@pytest.mark.parametrize("form", ["inference", "training"])
def test_models_of_both_forms_train_as_they_predict_and_keep_their_statistics(
    form: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = training_form() if form == "training" else write_network(tmp_path / "m.onnx")
    trainer = frozen(model, THOROUGH[0], trainable=("bn.*", "fc*"))
    before = initial(trainer.model)
    x, truth = rng.standard_normal((4, FEATURES), np.float32), np.ones((4, CLASSES), np.float32)
    if form == "inference":  # no dropout: a step predicts what a prediction does
        expected = np.mean((trainer.predict({"x": x})["y"] - truth) ** 2)
        assert trainer.step({"x": x}, truth) == pytest.approx(expected, rel=1e-5)
    trainer.step({"x": x}, truth)
    after = initial(trainer.trained_model())
    for name in STATISTICS:
        np.testing.assert_array_equal(after[name], before[name])
    assert not np.array_equal(after["bn.scale"], before["bn.scale"])


def test_parts_of_a_batch_are_the_batch() -> None:
    model, rng = zoo.build("sensor_cnn"), np.random.default_rng(0)
    x, labels = rng.standard_normal((8, 6, 100), np.float32), rng.integers(0, 4, 8)
    states = []
    for count in (1, 4):
        how = {"loss": SoftmaxCrossEntropy(), "micro_batches": count}
        trainer = frozen(model, THOROUGH[0], **how)
        trainer.step({"x": x}, labels)
        states.append(trainer.state())
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_budget_divides_the_batch() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((16, 6, 100), np.float32), rng.integers(0, 4, 16)
    how = {"loss": SoftmaxCrossEntropy()}
    plain = frozen(zoo.build("sensor_cnn"), THOROUGH[0], **how)
    plain.step({"x": x}, labels)
    within = frozen(zoo.build("sensor_cnn"), THOROUGH[0], memory=plain.peak_bytes // 3, **how)
    within.step({"x": x}, labels)
    assert within.memory_plan is not None
    assert within.memory_plan.setting.recipe.micro_batches > 1
    for name, array in plain.state().items():
        np.testing.assert_allclose(within.state()[name], array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize("activations", ["bits", "int8"])
def test_activations_may_be_kept_in_fewer_bytes(
    runtime: str, activations: str, rng: np.random.Generator
) -> None:
    """Images large enough for codes that a kernel of batch statistics would write itself."""
    model = coexec.load(zoo.build("digits_cnn", classes=3))
    x = {"x": rng.standard_normal((64, 1, 8, 8), np.float32)}
    labels = np.arange(64) % 3
    how = {"loss": SoftmaxCrossEntropy()}
    whole = frozen(model, runtime, **how)
    less = frozen(model, runtime, activations=activations, **how)
    assert less.step(x, labels) == pytest.approx(whole.step(x, labels), rel=1e-5)
    for name, value in whole.state().items():
        np.testing.assert_allclose(less.state()[name], value, rtol=0.02, atol=0.02, err_msg=name)


def test_a_model_that_reads_new_statistics_is_refused() -> None:
    model = parse(
        "g (float[N,2] x) => (float[N,2] y, float[2] t) "
        "<float[2] s = {1, 1}, float[2] b = {0, 0}, float[2] m = {0, 0}, float[2] v = {1, 1}> "
        "{ y, t, u = BatchNormalization<training_mode = 1>(x, s, b, m, v) }"
    )
    x = np.ones((4, 2), np.float32)
    with pytest.raises(UsageError, match="batch statistics cannot be frozen: the model reads"):
        frozen(model, "reference").step({"x": x}, x)


def test_the_command_keeps_the_statistics_and_resumes_exactly(tmp_path: Path) -> None:
    model, data = write_network(tmp_path / "m.onnx"), write_data(tmp_path / "d.npz", 24)
    how = ["train", str(model), "--data", str(data), "--batch-size", "4", "--json"]
    how += ["--batch-statistics", "frozen", "-p", "reference"]
    whole, halves = tmp_path / "whole.onnx", tmp_path / "halves.onnx"
    assert command(*how, "--epochs", "2", "--out", str(whole)).record["steps"] == 12
    kept = ["--checkpoint", str(tmp_path / "c"), "--out", str(halves), "--resume"]
    command(*how, *kept, "--epochs", "1")
    assert command(*how, *kept, "--epochs", "2").record["notes"] == ["resumed after step 6"]
    assert parameters(halves) == parameters(whole)
    before, after = parameters(model), parameters(whole)
    assert {name for name in before if after[name] == before[name]} == set(STATISTICS)
