"""Losses, optimizers, schedules and clipping on OpenCL devices against PyTorch's formulas.

A layer of ``y = x W^T + b`` is trained beside a few lines of NumPy in float64 that say what each
of them has to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import (
    L1,
    BinaryCrossEntropyWithLogits,
    Huber,
    Loss,
    MeanSquaredError,
    SoftmaxCrossEntropy,
)
from coexec.autodiff.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from coexec.autodiff.schedules import Cosine, Linear, OneCycle, StepDecay, Warmup
from coexec.base.errors import UsageError
from coexec.core.types import Array
from tests.pipeline.small import network
from tests.runtimes import THOROUGH

SAMPLES, FEATURES, OUTPUTS = 6, 5, 4

Formula = Callable[[Array, Array], tuple[float, Array]]
"""Loss and its derivative by the logits."""


def softmax(y: Array) -> Array:
    e = np.exp(y - y.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def cross_entropy(smoothing: float = 0.0, ignore: int | None = None) -> Formula:
    def formula(y: Array, labels: Array) -> tuple[float, Array]:
        soft = labels.ndim == 2
        target = labels if soft else np.eye(OUTPUTS)[np.where(labels == ignore, 0, labels)]
        target = target * (1 - smoothing) + smoothing / OUTPUTS
        counted = np.ones(len(y)) if soft else (labels != ignore).astype(np.float64)
        p = softmax(y)
        value = -(counted * (target * np.log(p)).sum(1)).sum() / counted.sum()
        return float(value), (p - target) * counted[:, None] / counted.sum()

    return formula


def squared(y: Array, labels: Array) -> tuple[float, Array]:
    return float(((y - labels) ** 2).mean()), 2 * (y - labels) / y.size


def absolute(y: Array, labels: Array) -> tuple[float, Array]:
    return float(np.abs(y - labels).mean()), np.sign(y - labels) / y.size


def huber(y: Array, labels: Array) -> tuple[float, Array]:
    error = y - labels
    size = np.abs(error)
    value = np.where(size <= 0.5, error**2 / 2, 0.5 * (size - 0.25)).mean()
    return float(value), np.clip(error, -0.5, 0.5) / y.size


def binary(y: Array, labels: Array) -> tuple[float, Array]:
    p = 1 / (1 + np.exp(-y))
    value = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    return float(value), (p - labels) / y.size


def class_labels(rng: np.random.Generator) -> Array:
    labels = rng.integers(1, OUTPUTS, SAMPLES)
    labels[:2] = 0
    return labels


def distributions(rng: np.random.Generator) -> Array:
    return rng.dirichlet(np.ones(OUTPUTS), SAMPLES).astype(np.float32)


def values(rng: np.random.Generator) -> Array:
    return rng.standard_normal((SAMPLES, OUTPUTS), np.float32)


def probabilities(rng: np.random.Generator) -> Array:
    return rng.uniform(0, 1, (SAMPLES, OUTPUTS)).astype(np.float32)


LOSSES: list[tuple[Loss, Formula, Callable[[np.random.Generator], Array]]] = [
    (SoftmaxCrossEntropy(), cross_entropy(), class_labels),
    (SoftmaxCrossEntropy(label_smoothing=0.2), cross_entropy(0.2), class_labels),
    (SoftmaxCrossEntropy(ignore_index=0), cross_entropy(ignore=0), class_labels),
    (SoftmaxCrossEntropy(0.2, ignore_index=0), cross_entropy(0.2, ignore=0), class_labels),
    (SoftmaxCrossEntropy(soft_targets=True), cross_entropy(), distributions),
    (SoftmaxCrossEntropy(0.2, soft_targets=True), cross_entropy(0.2), distributions),
    (MeanSquaredError(), squared, values),
    (L1(), absolute, values),
    (Huber(delta=0.5), huber, values),
    (BinaryCrossEntropyWithLogits(), binary, probabilities),
]


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize(("loss", "formula", "draw"), LOSSES, ids=[repr(c[0]) for c in LOSSES])
def test_losses_train_as_their_formulas(
    loss: Loss,
    formula: Formula,
    draw: Callable[[np.random.Generator], Array],
    runtime: str,
    rng: np.random.Generator,
) -> None:
    trainer = layer_trainer(loss, SGD(0.3), runtime)
    x, labels = values_of_input(rng), draw(rng)
    w, b = layer(trainer.model)
    for _ in range(8):
        expected, slope = formula(x @ w.T + b, labels)
        assert trainer.step({"x": x}, labels) == pytest.approx(expected, rel=1e-5)
        w, b = w - 0.3 * slope.T @ x, b - 0.3 * slope.sum(0)
    assert_parameters(trainer, w, b)


class NumpySGD:
    """torch.optim.SGD."""

    def __init__(self, momentum: float, nesterov: bool, weight_decay: float) -> None:
        self.momentum, self.nesterov, self.decay = momentum, nesterov, weight_decay
        self.buffer: Array | None = None

    def step(self, p: Array, g: Array, rate: float) -> Array:
        g = g + self.decay * p
        self.buffer = g if self.buffer is None else self.momentum * self.buffer + g
        return np.asarray(
            p - rate * (g + self.momentum * self.buffer if self.nesterov else self.buffer)
        )


class NumpyAdam:
    """torch.optim.Adam, or AdamW if ``decoupled``."""

    def __init__(self, weight_decay: float, decoupled: bool) -> None:
        self.decay, self.decoupled = weight_decay, decoupled
        self.m: Array | float = 0.0
        self.v: Array | float = 0.0
        self.count = 0

    def step(self, p: Array, g: Array, rate: float) -> Array:
        self.count += 1
        if self.decoupled:
            p = p * (1 - rate * self.decay)
        else:
            g = g + self.decay * p
        self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g * g
        m, v = self.m / (1 - 0.9**self.count), self.v / (1 - 0.999**self.count)
        return np.asarray(p - rate * m / (np.sqrt(v) + 1e-8))


class NumpyRMSprop:
    """torch.optim.RMSprop, not centred."""

    def __init__(self, momentum: float, weight_decay: float) -> None:
        self.momentum, self.decay = momentum, weight_decay
        self.mean: Array | float = 0.0
        self.buffer: Array | float = 0.0

    def step(self, p: Array, g: Array, rate: float) -> Array:
        g = g + self.decay * p
        self.mean = 0.9 * self.mean + 0.1 * g * g
        self.buffer = self.momentum * self.buffer + g / (np.sqrt(self.mean) + 1e-8)
        return np.asarray(p - rate * self.buffer)


class NumpyAdagrad:
    """torch.optim.Adagrad; a rate decay of 0.1."""

    def __init__(self, weight_decay: float) -> None:
        self.decay, self.count = weight_decay, 0
        self.total: Array | float = 0.0

    def step(self, p: Array, g: Array, rate: float) -> Array:
        self.count += 1
        g = g + self.decay * p
        self.total = self.total + g * g
        rate = rate / (1 + (self.count - 1) * 0.1)
        return np.asarray(p - rate * g / (np.sqrt(self.total) + 1e-10))


Numpy = NumpySGD | NumpyAdam | NumpyRMSprop | NumpyAdagrad
RATE = Warmup(StepDecay(0.1, every=4, factor=0.3), steps=3)

OPTIMIZERS: list[tuple[Optimizer, Callable[[], Numpy]]] = [
    (SGD(RATE, 0.9), lambda: NumpySGD(0.9, False, 0.0)),
    (SGD(RATE, 0.9, weight_decay=0.1), lambda: NumpySGD(0.9, False, 0.1)),
    (SGD(RATE, 0.9, nesterov=True), lambda: NumpySGD(0.9, True, 0.0)),
    (SGD(RATE, weight_decay=0.1), lambda: NumpySGD(0.0, False, 0.1)),
    (Adam(RATE), lambda: NumpyAdam(0.0, False)),
    (Adam(RATE, weight_decay=0.1), lambda: NumpyAdam(0.1, False)),
    (AdamW(RATE, weight_decay=0.3), lambda: NumpyAdam(0.3, True)),
    (AdamW(Cosine(0.1, steps=8, final=0.01)), lambda: NumpyAdam(0.01, True)),
    (RMSprop(RATE, alpha=0.9), lambda: NumpyRMSprop(0.0, 0.0)),
    (RMSprop(RATE, 0.9, momentum=0.8, weight_decay=0.1), lambda: NumpyRMSprop(0.8, 0.1)),
    (Adagrad(OneCycle(0.1, steps=12), rate_decay=0.1), lambda: NumpyAdagrad(0.0)),
    (Adagrad(Linear(0.1, 9), rate_decay=0.1, weight_decay=0.1), lambda: NumpyAdagrad(0.1)),
]


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize(("optimizer", "make"), OPTIMIZERS, ids=[repr(o[0]) for o in OPTIMIZERS])
def test_optimizers_and_schedules_train_as_their_formulas(
    optimizer: Optimizer, make: Callable[[], Numpy], runtime: str, rng: np.random.Generator
) -> None:
    trainer = layer_trainer(MeanSquaredError(), optimizer, runtime)
    x, labels = values_of_input(rng), values(rng)
    w, b = layer(trainer.model)
    weights, biases = make(), make()
    for step in range(12):
        expected, slope = squared(x @ w.T + b, labels)
        assert trainer.step({"x": x}, labels) == pytest.approx(expected, rel=1e-4)
        rate = optimizer.schedule.at(step)
        w, b = weights.step(w, slope.T @ x, rate), biases.step(b, slope.sum(0), rate)
    assert_parameters(trainer, w, b)


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_some_parameters_have_another_rate_and_no_decay(
    runtime: str, micro_batches: int, rng: np.random.Generator
) -> None:
    """As parameter groups of torch.optim.AdamW."""
    optimizer = AdamW(
        RATE, weight_decay=0.3, no_decay=("vectors",), rates=(("fc1.w*", 0.25), ("*", 2.0))
    )
    trainer = layer_trainer(MeanSquaredError(), optimizer, runtime, micro_batches=micro_batches)
    x, labels = values_of_input(rng), values(rng)
    w, b = layer(trainer.model)
    weights, biases = NumpyAdam(0.3, True), NumpyAdam(0.0, True)
    for step in range(6):
        _, slope = squared(x @ w.T + b, labels)
        trainer.step({"x": x}, labels)
        rate = optimizer.schedule.at(step)
        w, b = weights.step(w, slope.T @ x, rate / 4), biases.step(b, slope.sum(0), 2 * rate)
    assert_parameters(trainer, w, b)


def test_patterns_about_no_parameter_are_refused() -> None:
    for optimizer in (SGD(no_decay=("norm.*",)), SGD(rates=(("norm.*", 0.1),))):
        with pytest.raises(UsageError, match=r"'norm\.\*' matches no parameter; known: fc1"):
            layer_trainer(MeanSquaredError(), optimizer, "reference")


@pytest.mark.parametrize("rates", [{"fc1.*": 0.1}, ("fc1.*", 0.1), ((3, 0.1),)])
def test_rates_that_are_no_pairs_are_refused(rates: Any) -> None:
    with pytest.raises(UsageError, match=r"rates is .*; it has to be a tuple of pairs"):
        SGD(rates=rates)


def test_statistics_are_no_parameters_that_a_pattern_is_about() -> None:
    """They would be listed as known, and the option would do nothing."""
    how = SGD(no_decay=("bn.mean",))
    with pytest.raises(
        UsageError, match=r"known: fc1\.weight, fc1\.bias, bn\.scale, bn\.bias, fc2"
    ):
        coexec.Trainer(coexec.load(network()), MeanSquaredError(), how, ["reference"])


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize("limit", [0.01, 0.5, 1e6])
def test_clipping_bounds_the_joint_norm(
    limit: float, runtime: str, rng: np.random.Generator
) -> None:
    """torch.nn.utils.clip_grad_norm_, but without its 1e-6 in the denominator."""
    trainer = layer_trainer(MeanSquaredError(), SGD(0.1, 0.9), runtime, clip_norm=limit)
    x, labels = values_of_input(rng), values(rng)
    w, b = layer(trainer.model)
    weights, biases = NumpySGD(0.9, False, 0.0), NumpySGD(0.9, False, 0.0)
    for _ in range(5):
        _, slope = squared(x @ w.T + b, labels)
        gw, gb = slope.T @ x, slope.sum(0)
        scale = min(1.0, limit / float(np.sqrt((gw**2).sum() + (gb**2).sum())))
        assert (scale < 1) == (limit < 1e6)
        trainer.step({"x": x}, labels)
        w, b = weights.step(w, gw * scale, 0.1), biases.step(b, gb * scale, 0.1)
    assert_parameters(trainer, w, b)


@pytest.mark.parametrize("options", [{}, {"micro_batches": 3}, {"updates": "early"}], ids=str)
@pytest.mark.parametrize("runtime", THOROUGH)
def test_clipping_bounds_each_number(
    runtime: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    """torch.nn.utils.clip_grad_value_, on the gradients of the whole batch."""
    optimizer = SGD(0.1, 0.9)
    trainer = layer_trainer(MeanSquaredError(), optimizer, runtime, clip_value=0.1, **options)
    x, labels = values_of_input(rng), values(rng)
    w, b = layer(trainer.model)
    weights, biases = NumpySGD(0.9, False, 0.0), NumpySGD(0.9, False, 0.0)
    for _ in range(5):
        _, slope = squared(x @ w.T + b, labels)
        gw, gb = slope.T @ x, slope.sum(0)
        assert np.abs(gw).max() > 0.1 > np.abs(gw).min()
        trainer.step({"x": x}, labels)
        w, b = weights.step(w, gw.clip(-0.1, 0.1), 0.1), biases.step(b, gb.clip(-0.1, 0.1), 0.1)
    assert_parameters(trainer, w, b)


def test_a_limit_out_of_reach_changes_no_bit(rng: np.random.Generator) -> None:
    x, labels = values_of_input(rng), values(rng)
    plain, clipped = (
        layer_trainer(MeanSquaredError(), SGD(0.1, 0.9), THOROUGH[0], clip_norm=limit)
        for limit in (None, 1e6)
    )
    for trainer in (plain, clipped):
        for _ in range(3):
            trainer.step({"x": x}, labels)
    assert_identical(plain.state(), clipped.state())


@pytest.mark.parametrize("runtime", THOROUGH)
def test_accumulated_micro_batches_are_one_step(runtime: str, rng: np.random.Generator) -> None:
    """Clipping and momentum see the mean gradient of the whole batch, once."""
    x, labels = values_of_input(rng), values(rng)
    whole, split = (
        layer_trainer(
            MeanSquaredError(), SGD(0.1, 0.9), runtime, clip_norm=0.5, micro_batches=count
        )
        for count in (1, 3)
    )
    for _ in range(4):
        loss = whole.step({"x": x}, labels)
        assert split.step({"x": x}, labels) == pytest.approx(loss, rel=1e-5)
    for name in ("fc1.weight", "fc1.bias", "fc1.weight#momentum"):
        np.testing.assert_allclose(split.state()[name], whole.state()[name], rtol=1e-4, atol=1e-6)


def layer_trainer(
    loss: Loss, optimizer: Optimizer, processor: str, **options: Any
) -> coexec.Trainer:
    """A trainer of y = x W^T + b."""
    model = zoo.build("mlp", classes=OUTPUTS, sizes=(FEATURES,))
    return coexec.Trainer(coexec.load(model), loss, optimizer, [processor], **options)


def values_of_input(rng: np.random.Generator) -> Array:
    return rng.standard_normal((SAMPLES, FEATURES), np.float32)


def layer(model: ir.Model) -> tuple[Array, Array]:
    """Initial weight and bias in float64."""
    values = initial(model)
    return values["fc1.weight"].astype(np.float64), values["fc1.bias"].astype(np.float64)


def assert_parameters(trainer: coexec.Trainer, w: Array, b: Array) -> None:
    state = trainer.state()
    np.testing.assert_allclose(state["fc1.weight"], w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["fc1.bias"], b, rtol=1e-4, atol=1e-5)


def initial(model: ir.Model) -> dict[str, Array]:
    """Initializers of a model."""
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def assert_identical(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name, strict=True)
