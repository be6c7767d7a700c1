"""Optimizers against PyTorch's algorithms, written out in NumPy in float64, over several steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import pytest

from coexec.autodiff.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from coexec.base.errors import UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from tests.graphs import evaluate

RATES = [0.1, 0.1, 0.05, 0.05, 0.2, 0.01]
"""A changing rate, so that one that is kept from the first step shows."""

Trajectory = Callable[[Array, list[Array]], Iterator[Array]]


def coexec_trajectory(optimizer: Optimizer, start: Array, grads: list[Array]) -> Iterator[Array]:
    """Parameters after each step of the update graph, states carried over."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="update")
    g = GraphBuilder(graph, "optimizer")
    kind = TensorType.of(start)
    parameter, gradient = g.input("parameter", kind), g.input("gradient", kind)
    slots = {name: g.input(name, kind) for name in optimizer.slots(kind)}
    rate = g.input("rate", TensorType((), np.dtype(np.float32)))
    update = optimizer.update(g, parameter, gradient, slots.__getitem__, rate, g.step_counter())
    assert set(update.slots) == set(slots)
    graph.outputs.extend([update.parameter, *update.slots.values()])
    model = ir.Model(graph, ir_version=10)
    inputs = {str(value.name) for value in graph.inputs}
    state = {"parameter": start, **{name: np.zeros_like(start) for name in slots}}
    for step, value in enumerate(grads):
        known = {"gradient": value, "rate": np.float32(RATES[step]), "step": np.int64(step)}
        feeds = {name: np.asarray(v) for name, v in (state | known).items() if name in inputs}
        results = evaluate(model, feeds)
        assert all(value.dtype == start.dtype for value in results.values())
        names = ("parameter", *update.slots)
        state = dict(zip(names, results.values(), strict=True))
        yield state["parameter"]


def torch_sgd(
    momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
) -> Trajectory:
    """torch.optim.SGD with dampening 0."""

    def run(p: Array, grads: list[Array]) -> Iterator[Array]:
        buffer = None
        for rate, gradient in zip(RATES, grads, strict=True):
            d = gradient + weight_decay * p
            if momentum:
                buffer = d if buffer is None else momentum * buffer + d
                d = d + momentum * buffer if nesterov else buffer
            p = p - np.float32(rate) * d
            yield p

    return run


def torch_adam(
    epsilon: float,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> Trajectory:
    """torch.optim.Adam, or AdamW if ``decoupled``."""

    def run(p: Array, grads: list[Array]) -> Iterator[Array]:
        m, v = np.zeros_like(p), np.zeros_like(p)
        for step, (rate, gradient) in enumerate(zip(RATES, grads, strict=True), start=1):
            lr = np.float64(np.float32(rate))
            g = gradient if decoupled else gradient + weight_decay * p
            p = p * (1 - lr * weight_decay) if decoupled else p
            m = betas[0] * m + (1 - betas[0]) * g
            v = betas[1] * v + (1 - betas[1]) * g * g
            corrected = np.sqrt(v) / np.sqrt(1 - betas[1] ** step) + epsilon
            p = p - lr / (1 - betas[0] ** step) * m / corrected
            yield p

    return run


CASES: list[tuple[Optimizer, Trajectory]] = [
    (SGD(), torch_sgd()),
    (SGD(weight_decay=0.1), torch_sgd(weight_decay=0.1)),
    (SGD(momentum=0.9), torch_sgd(0.9)),
    (SGD(momentum=0.5, weight_decay=0.1), torch_sgd(0.5, weight_decay=0.1)),
    (SGD(momentum=0.9, nesterov=True), torch_sgd(0.9, nesterov=True)),
    (
        SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
        torch_sgd(0.9, nesterov=True, weight_decay=0.1),
    ),
    # Without an epsilon, ONNX's Adam and PyTorch's are the same function.
    (Adam(epsilon=0), torch_adam(0)),
    (Adam(beta1=0.8, beta2=0.95, epsilon=0), torch_adam(0, (0.8, 0.95))),
    (Adam(epsilon=0, weight_decay=0.1), torch_adam(0, weight_decay=0.1)),
    (AdamW(epsilon=0), torch_adam(0, weight_decay=0.01, decoupled=True)),
    (AdamW(epsilon=0, weight_decay=0.3), torch_adam(0, weight_decay=0.3, decoupled=True)),
]


@pytest.mark.parametrize(("optimizer", "expected"), CASES, ids=[repr(case[0]) for case in CASES])
@pytest.mark.parametrize("shape", [(7,), (3, 4)])
def test_trajectory_is_that_of_torch(
    optimizer: Optimizer, expected: Trajectory, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    start = rng.standard_normal(shape)
    grads = [rng.standard_normal(shape) for _ in RATES]
    actual = list(coexec_trajectory(optimizer, start, grads))
    # AdamW multiplies by 1 - rate * decay in float32, the type of the rate.
    for ours, theirs in zip(actual, expected(start, grads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-8)
    assert np.abs(actual[-1] - start).min() > 1e-4


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES], ids=repr)
def test_float32_stays_float32(optimizer: Optimizer, rng: np.random.Generator) -> None:
    start = rng.standard_normal(5)
    grads = [rng.standard_normal(5) for _ in RATES]
    wide = list(coexec_trajectory(optimizer, start, grads))
    narrow = coexec_trajectory(
        optimizer, start.astype(np.float32), [g.astype(np.float32) for g in grads]
    )
    for ours, expected in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", [Adam(), AdamW(weight_decay=0)])
def test_adam_with_its_epsilon_stays_by_torch(
    optimizer: Optimizer, rng: np.random.Generator
) -> None:
    """ONNX adds epsilon before the bias correction, PyTorch behind it: close, not equal."""
    start = rng.standard_normal(50)
    grads = [rng.standard_normal(50) for _ in RATES]
    actual = coexec_trajectory(optimizer, start, grads)
    for ours, theirs in zip(actual, torch_adam(1e-8)(start, grads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_adam_adds_epsilon_to_the_raw_second_moment() -> None:
    """First step of ONNX's formula by hand: v = (1 - beta2) g^2, corrected outside of epsilon."""
    (moved,) = coexec_trajectory(Adam(epsilon=0.1), np.array([1.0]), [np.array([2.0])])
    rate, v = float(np.float32(RATES[0])), 0.001 * 4
    expected = 1 - rate * np.sqrt(1 - 0.999) / (1 - 0.9) * (0.1 * 2) / (np.sqrt(v) + 0.1)
    assert float(moved[0]) == pytest.approx(expected, rel=1e-9)


def test_adam_without_gradient_does_not_move() -> None:
    zeros = [np.zeros(3) for _ in RATES]
    for value in coexec_trajectory(Adam(), np.ones(3), zeros):
        np.testing.assert_array_equal(value, 1)


@pytest.mark.parametrize("bad", [-1, "a", float("nan"), float("inf"), None, 1j])
@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        *((SGD, name) for name in ("learning_rate", "momentum", "weight_decay")),
        *((Adam, name) for name in ("learning_rate", "beta1", "beta2", "epsilon")),
        *((AdamW, name) for name in ("learning_rate", "weight_decay")),
        *((RMSprop, name) for name in ("learning_rate", "alpha", "momentum", "epsilon")),
        *((Adagrad, name) for name in ("learning_rate", "rate_decay", "epsilon")),
    ],
)
def test_numbers_that_make_no_sense_are_named(
    optimizer: Callable[..., Optimizer], name: str, bad: object
) -> None:
    with pytest.raises(UsageError, match=rf"^{name} is .*; it has to be a finite number"):
        optimizer(**{name: bad})


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [(SGD, "momentum"), (Adam, "beta1"), (AdamW, "beta2"), (RMSprop, "alpha")],
)
def test_averages_that_forget_nothing_are_refused(
    optimizer: Callable[..., Optimizer], name: str
) -> None:
    with pytest.raises(UsageError, match=rf"^{name} is 1; .* at least 0 and below 1$"):
        optimizer(**{name: 1})


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(UsageError, match="nesterov needs a momentum"):
        SGD(nesterov=True)
