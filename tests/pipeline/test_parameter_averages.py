"""Exponential moving averages of parameters: kept beside them, evaluated, saved, resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import coexec
from coexec.autodiff.average import average_name
from coexec.autodiff.losses import MeanSquaredError, SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.ops.node import constant_of
from coexec.training.data import Dataset
from coexec.training.fit import FitOptions, fit
from tests.graphs import parse
from tests.pipeline.command import coexec as command
from tests.pipeline.small import (
    CLASSES,
    FEATURES,
    arrays,
    network,
    parameters,
    write_data,
    write_network,
)
from tests.pipeline.test_mixed_precision import ABLE as HALVES
from tests.runtimes import DRIVERS, THOROUGH

DECAY = 0.9
BATCH = 8
DATA = arrays(48)
STATISTICS = ("bn.mean", "bn.var")


def trainer(processor: str = THOROUGH[0], **options: Any) -> coexec.Trainer:
    how = {"ema": DECAY, **options}
    model = coexec.load(network())
    optimizer = SGD(0.05, momentum=0.9)
    return coexec.Trainer(model, SoftmaxCrossEntropy(), optimizer, [processor], **how)


def steps(learner: coexec.Trainer, count: int = 1) -> dict[str, Array]:
    """The state after so many steps more."""
    for _ in range(count):
        first = learner.steps * BATCH % 48
        rows = slice(first, first + BATCH)
        learner.step({"x": DATA["x"][rows]}, DATA["labels"][rows])
    return learner.state()


def initial(learner: coexec.Trainer) -> dict[str, Array]:
    found = {n: constant_of(v) for n, v in learner.model.graph.initializers.items()}
    return {name: array for name, array in found.items() if array is not None}


@pytest.mark.parametrize("options", [{}, {"micro_batches": 2}, {"updates": "early"}], ids=str)
@pytest.mark.parametrize("runtime", DRIVERS)
def test_averages_follow_the_parameters_and_change_nothing(
    runtime: str, options: dict[str, Any]
) -> None:
    learner, plain = trainer(runtime, **options), trainer(runtime, ema=None, **options)
    expected = {n: a.astype(np.float64) for n, a in initial(learner).items()}
    for _ in range(4):
        state, same = steps(learner), steps(plain)
        for name, array in same.items():
            if "#gradient" not in name:
                np.testing.assert_array_equal(state[name], array, err_msg=name)
        for name in learner.step_graph.trainable:
            expected[name] += (1 - DECAY) * (state[name] - expected[name])
            found = state[average_name(name)]
            np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-7)
    assert average_name("bn.mean") not in learner.state()


def test_predictions_and_saved_models_have_the_averages() -> None:
    learner = trainer()
    untrained = learner.predict({"x": DATA["x"]})["y"]  # before there is any step
    np.testing.assert_array_equal(untrained, trainer(ema=None).predict({"x": DATA["x"]})["y"])
    state = steps(learner, 3)
    saved = learner.trained_model()
    values = {name: constant_of(value) for name, value in saved.graph.initializers.items()}
    assert values.keys() == initial(learner).keys()
    for name in learner.step_graph.trainable:
        np.testing.assert_array_equal(values[name], state[average_name(name)])
    for name in STATISTICS:
        np.testing.assert_array_equal(values[name], state[name])
    session = coexec.compile(saved, [THOROUGH[0]])
    y = learner.predict({"x": DATA["x"]})["y"]
    np.testing.assert_allclose(session.run({"x": DATA["x"]})["y"], y, rtol=1e-5, atol=1e-6)
    assert not np.allclose(y, untrained, rtol=1e-3)


def test_channels_that_are_not_trained_keep_every_bit_of_their_average() -> None:
    learner = trainer(trainable=("fc1.weight[0:8]",))
    average = steps(learner, 3)[average_name("fc1.weight")]
    before = initial(learner)["fc1.weight"]
    np.testing.assert_array_equal(average[:, 8:], before[:, 8:])
    assert not np.any(average[:, :8] == before[:, :8])


def half(processor: str, **options: Any) -> coexec.Trainer:
    """A trainer of a layer in float16."""
    net = parse("g (float16[N,12] x) => (float16[N,4] y) { y = MatMul(x, w) }")
    weight = np.linspace(0.5, 1.5, FEATURES * CLASSES).reshape(FEATURES, CLASSES)
    net.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), "w"))
    how: dict[str, Any] = {"ema": 0.999, **options}
    return coexec.Trainer(coexec.load(net), MeanSquaredError(), SGD(0.05), [processor], **how)


@pytest.mark.parametrize("processor", HALVES)
def test_averages_of_parameters_in_float16_follow_them_in_float32(processor: str) -> None:
    """A thousandth of a difference is less than float16 can add to a number."""
    learner = half(processor)
    x, labels = DATA["x"][:BATCH].astype(np.float16), np.zeros((BATCH, 4), np.float16)
    expected = initial(learner)["w"].astype(np.float64)
    begin, state = expected.copy(), learner.state()
    for _ in range(20):
        learner.step({"x": x}, labels)
        state = learner.state()
        assert state["w"].dtype == np.float16
        expected += 0.001 * (state["w"] - expected)
    average = state[average_name("w")]
    assert average.dtype == np.float32
    np.testing.assert_allclose(average, expected, rtol=1e-6)
    assert np.abs(average - begin).max() > 1e-3
    saved = constant_of(learner.trained_model().graph.initializers["w"])
    np.testing.assert_array_equal(saved, average.astype(np.float16))
    y = learner.predict({"x": x})["y"]
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, x.astype(np.float64) @ saved, rtol=2e-2, atol=2e-2)


def test_averages_of_parameters_in_float16_are_resumed_from_either_type() -> None:
    first, second, third = half("reference"), half("reference"), half("reference", ema=None)
    x, labels = DATA["x"][:BATCH].astype(np.float16), np.zeros((BATCH, 4), np.float16)
    for each in (first, third):
        each.step({"x": x}, labels)
    state = first.state()
    second.load_state(state, 1)
    np.testing.assert_array_equal(second.state()[average_name("w")], state[average_name("w")])
    second.load_state(third.state(), 1)  # without: it begins at the parameter
    assert second.state()[average_name("w")].dtype == np.float32
    for _ in range(2):
        second.step({"x": x}, labels)
    narrow = state[average_name("w")].astype(np.float16)
    second.load_state({**state, average_name("w"): narrow}, 1)
    np.testing.assert_array_equal(second.state()[average_name("w")], narrow.astype(np.float32))


def test_averages_begin_at_parameters_that_are_loaded_without() -> None:
    plain, learner = trainer(ema=None), trainer()
    state = steps(plain, 2)
    learner.load_state(state, plain.steps)
    y = plain.predict({"x": DATA["x"]})["y"]
    np.testing.assert_array_equal(learner.predict({"x": DATA["x"]})["y"], y)
    after = steps(learner)
    for name in learner.step_graph.trainable:
        mean = DECAY * state[name] + (1 - DECAY) * after[name]
        np.testing.assert_allclose(after[average_name(name)], mean, rtol=1e-5, atol=1e-7)


def test_their_memory_is_counted() -> None:
    learner, plain = trainer(), trainer(ema=None)
    steps(learner)
    steps(plain)
    trained = sum(initial(learner)[name].nbytes for name in learner.step_graph.trainable)
    assert learner.peak_bytes - plain.peak_bytes >= trained


def test_the_best_averages_are_put_back_with_their_parameters(tmp_path: Path) -> None:
    learner = trainer()
    x, labels = DATA["x"], DATA["labels"]
    held_out = Dataset({"x": x[:8]}, (labels[:8] + 1) % 4)  # gets worse
    options = FitOptions(3, BATCH, validate_every=1, keep_best=True, checkpoint=tmp_path)
    result = fit(learner, Dataset({"x": x}, labels), held_out, options)
    assert result.kept_step < result.steps
    best = np.load(tmp_path / "best" / f"checkpoint-{result.kept_step:09d}.npz")
    saved = learner.trained_model().graph.initializers
    for name in learner.step_graph.trainable:
        kept = constant_of(saved[name])
        np.testing.assert_array_equal(kept, best[average_name(name)])
        np.testing.assert_array_equal(learner.state()[name], best[name])


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_what_is_no_decay_is_refused(decay: float) -> None:
    with pytest.raises(UsageError, match=r"ema is .*at least 0 and below 1"):
        trainer(ema=decay)


def test_the_command_saves_averages_and_resumes_exactly(tmp_path: Path) -> None:
    model, data = write_network(tmp_path / "m.onnx"), write_data(tmp_path / "d.npz", 24)
    how = ["train", str(model), "--data", str(data), "--batch-size", "4", "--json"]
    how += ["-p", THOROUGH[0], "--optimizer", "adam"]
    plain, whole, halves = (tmp_path / f"{name}.onnx" for name in ("plain", "whole", "halves"))
    command(*how, "--epochs", "2", "--out", str(plain))
    how += ["--ema", "0.9"]
    assert command(*how, "--epochs", "2", "--out", str(whole)).record["ema"] == 0.9
    kept = ["--checkpoint", str(tmp_path / "c"), "--out", str(halves), "--resume"]
    command(*how, *kept, "--epochs", "1")
    assert command(*how, *kept, "--epochs", "2").record["notes"] == ["resumed after step 6"]
    assert parameters(halves) == parameters(whole)
    before, after = parameters(plain), parameters(whole)
    assert {name for name in before if after[name] == before[name]} == set(STATISTICS)
