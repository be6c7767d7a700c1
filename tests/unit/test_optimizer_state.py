"""Optimizer states in 8 bits: the quantisation, and trainings with it."""

from __future__ import annotations

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Adam, AdamW, Optimizer
from coexec.base.errors import UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.optim_8bit import (
    SIGNED,
    UNSIGNED,
    dequantize_state,
    dynamic_values,
    quantize_state,
)
from tests.runtimes import THOROUGH

LARGE = TensorType((64, 100), np.dtype(np.float32))


@pytest.mark.parametrize(
    ("shape", "dtype", "bits", "codes"),
    [
        ((64, 64), "float32", 8, True),
        ((4095,), "float32", 8, False),
        ((64, 64), "float64", 8, False),
        ((64, 64), "float32", 32, False),
    ],
)
def test_states_of_4096_floats_are_the_smallest_in_8_bits(
    shape: tuple[int, ...], dtype: str, bits: int, codes: bool
) -> None:
    parameter = TensorType(shape, np.dtype(dtype))
    kinds = SGD(momentum=0.9, state_bits=bits).slots(parameter)
    assert (kinds["momentum"].dtype == np.uint8) == codes
    assert ("momentum_scale" in kinds) == codes


@pytest.mark.parametrize("unsigned", [SIGNED, UNSIGNED])
def test_the_codes_stand_for_values_of_seven_decades(unsigned: int) -> None:
    """As in the paper's dynamic tree: 256 values, 0 and 1 among them, dense at the top."""
    values = dynamic_values(unsigned)
    assert len(set(values.tolist())) == len(values) == 256
    assert values[0] == 0.0
    assert values.max() == 1.0
    smallest = values[values > 0].min()
    assert 1e-8 < smallest < 1e-6
    assert (values.min() >= 0) == bool(unsigned)
    top = np.sort(values)[-20:]
    assert np.diff(top).max() < 0.02


@pytest.mark.parametrize("unsigned", [SIGNED, UNSIGNED])
def test_quantising_takes_the_nearest_value(unsigned: int, rng: np.random.Generator) -> None:
    state = rng.standard_normal((30, 7)) * 10.0 ** rng.uniform(-6, 0, (30, 7))
    state = np.abs(state) if unsigned else state
    codes, scales = quantize_state(state, 64, unsigned)
    assert codes.dtype == np.uint8
    assert scales.shape == (4,)
    each = np.repeat(scales, 64)[: state.size].reshape(state.shape)
    choices = dynamic_values(unsigned)[:, None, None] * each
    choices = choices[1:] if unsigned else choices  # never to 0
    nearest = np.abs(choices - state).min(axis=0)
    error = np.abs(dequantize_state(codes, scales, 64, unsigned) - state)
    np.testing.assert_allclose(error, nearest, atol=1e-12)


def test_what_is_largest_in_a_block_is_exact_and_zero_stays_zero() -> None:
    state = np.array([0.0, 3.0, -1e-9, 0.5])
    values = dequantize_state(*quantize_state(state, 4, SIGNED), 4, SIGNED)
    assert values[:3].tolist() == [0.0, 3.0, 0.0]
    assert quantize_state(np.zeros(5), 4, SIGNED)[1].tolist() == [0.0, 0.0]


def test_a_second_moment_above_zero_stays_above_zero() -> None:
    codes, _ = quantize_state(np.array([1.0, 1e-30, 0.0]), 4, UNSIGNED)
    assert (codes > 0).tolist() == [True, True, False]


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9, state_bits=8), AdamW(state_bits=8)])
def test_states_take_a_quarter(optimizer: Optimizer) -> None:
    whole = type(optimizer)(**{**vars(optimizer), "state_bits": 32})
    small = sum(kind.nbytes for kind in optimizer.slots(LARGE).values())
    full = sum(kind.nbytes for kind in whole.slots(LARGE).values())
    assert 0.25 < small / full < 0.26
    # Small parameters and other types keep their own.
    for kind in (TensorType((64,), LARGE.dtype), TensorType(LARGE.shape, np.dtype(np.float64))):
        assert optimizer.slots(kind) == whole.slots(kind)


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(UsageError, match="state_bits must be 8 or 32, not 4"):
        Adam(state_bits=4)


@pytest.mark.parametrize("runtime", THOROUGH)
def test_a_training_goes_on_bit_for_bit_from_its_state(
    runtime: str, rng: np.random.Generator
) -> None:
    x, labels = rng.standard_normal((8, 784), np.float32), rng.integers(0, 10, 8)
    through, first = trainer(Adam(state_bits=8), runtime), trainer(Adam(state_bits=8), runtime)
    losses = [through.step({"x": x}, labels) for _ in range(5)]
    begun = [first.step({"x": x}, labels) for _ in range(2)]
    assert first.state()["fc1.weight#first_moment"].dtype == np.uint8
    second = trainer(Adam(state_bits=8), runtime)
    second.load_state(first.state(), first.steps)
    assert begun + [second.step({"x": x}, labels) for _ in range(3)] == losses
    ours, theirs = through.state(), second.state()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize("optimizer", [Adam(2e-3), SGD(0.05, momentum=0.9)], ids=repr)
def test_losses_fall_as_with_whole_states(
    optimizer: Optimizer, runtime: str, rng: np.random.Generator
) -> None:
    x, labels = rng.standard_normal((32, 784), np.float32), rng.integers(0, 10, 32)
    small = type(optimizer)(**{**vars(optimizer), "state_bits": 8})
    curves: list[Array] = []
    for each in (optimizer, small):
        made = trainer(each, runtime)
        curves.append(np.array([made.step({"x": x}, labels) for _ in range(12)]))
    assert curves[0][-1] < 0.3 * curves[0][0]
    np.testing.assert_allclose(curves[1], curves[0], atol=0.05 * curves[0][0])
    assert not np.array_equal(curves[1], curves[0])


def trainer(optimizer: Optimizer, processor: str) -> coexec.Trainer:
    """An MLP whose first weight is large enough for 8 bits."""
    model = coexec.load(zoo.build("mlp"))
    return coexec.Trainer(model, SoftmaxCrossEntropy(), optimizer, [processor])
