"""The exponential of kernels in vector code: its accuracy, its limits, and softmax on top of it."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import Array
from coexec.ops.opdef import Example
from coexec.ops.table import OPERATORS
from tests.running import assert_agrees, expected_outputs, run_call
from tests.runtimes import RUNTIMES, open_opencl

LIMITS = np.array([np.nan, -np.inf, np.inf, 88.8, 1e30, -104.5, -1e30, 0.0, -0.0], np.float32)


def result_of(runtime: str, identifier: str, x: Array, **attributes: int) -> Array:
    """What the first variant makes of ``x``, checked against the reference."""
    op = OPERATORS[identifier]
    call = Example((x,), attributes).call(op, [x])
    actual = run_call(open_opencl(runtime), call, [x])
    with np.errstate(over="ignore"):
        assert_agrees(op, call, actual, expected_outputs(op, call, [x]))
    return actual[0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_exponentials_are_accurate_to_two_units_over_the_whole_range(runtime: str) -> None:
    x = np.concatenate([np.linspace(-87, 88.7, 4090, dtype=np.float32), LIMITS])
    y = result_of(runtime, "Exp", x)
    exact = np.exp(x[: -len(LIMITS)].astype(np.float64))
    assert np.max(np.abs(y[: -len(LIMITS)] - exact) / exact) < 2 * np.finfo(np.float32).eps
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y[-len(LIMITS) :], np.exp(LIMITS))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("length", [5, 16, 37])
def test_softmax_takes_rows_of_any_length_and_masked_elements(
    runtime: str, length: int, rng: np.random.Generator
) -> None:
    x = rng.uniform(-20, 20, (3, length)).astype(np.float32)
    x[0, -2:] = -np.inf
    y = result_of(runtime, "Softmax", x, axis=-1)
    assert not y[0, -2:].any()
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
    result_of(runtime, "LogSoftmax", x[1:], axis=-1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_softmax_is_accurate_however_small_its_elements(runtime: str) -> None:
    x = np.linspace(-87, 0, 640, dtype=np.float32).reshape(40, 16)
    x[:, 0] = 0
    (x[0, 1], x[1, 1]) = (-200, -1e30)
    y = result_of(runtime, "Softmax", x, axis=-1)
    exact = np.exp(x.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    assert not y[:2, 1].any()
    normal = exact > np.finfo(np.float32).tiny
    errors = np.abs(y - exact)[normal] / exact[normal]
    assert np.max(errors) < 4 * np.finfo(np.float32).eps
