"""Weights of quantised operators become integers again for an NPU: the same that they were."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from coexec.core.types import Array, TensorType
from coexec.ops.whole_weights import quantised
from coexec.processors.ort.inline import LEAST_OPSET, Step
from coexec.processors.ort.integer_weights import with_integer_weights
from coexec.processors.ort.model import build_model

X = TensorType((1, 3, 6, 6), np.dtype(np.float32))
Y = TensorType((1, 4, 6, 6), np.dtype(np.float32))


def step(op_type: str, inputs: str, output: str) -> Step:
    name = f"{op_type} {output}"
    return Step(op_type, name, tuple(inputs.split()), (output,), {}, LEAST_OPSET, 0)


STEPS = [
    step("QuantizeLinear", "x s z", "q"),
    step("DequantizeLinear", "q s z", "a"),
    step("Conv", "a w b", "c"),
    step("QuantizeLinear", "c t z", "r"),
    step("DequantizeLinear", "r t z", "y"),
]


@pytest.mark.parametrize("by_channel", [False, True])
def test_integers_and_scales_are_found_again(rng: np.random.Generator, by_channel: bool) -> None:
    values = rng.integers(-127, 128, (4, 3, 1, 1)).astype(np.int8)
    values[:, 0] = 127
    scale = np.array([0.01, 0.02, 0.03, 0.04] if by_channel else 0.01, np.float32)
    found = quantised(values * scale.reshape(-1, 1, 1, 1), by_channel=True)
    assert found is not None
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-6)


def test_weights_that_are_all_zero_have_a_scale() -> None:
    found = quantised(np.zeros((2, 2), np.float32), by_channel=False)
    assert found is not None
    assert not found.values.any()
    assert found.scale == 1


def test_weights_that_were_never_integers_stay_floats(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((4, 3, 1, 1)).astype(np.float32)
    assert quantised(weights, by_channel=True) is None
    steps, more = with_integer_weights(STEPS, constants_of(rng) | {"w": weights})
    assert steps == STEPS
    assert more["w"] is weights


def constants_of(rng: np.random.Generator) -> dict[str, Array]:
    weights = rng.integers(-127, 128, (4, 3, 1, 1)).astype(np.float32)
    weights[:, 0] = 127
    return {
        "w": weights * np.float32(0.01),
        "b": np.array([3, 0, -2, 7], np.float32) * np.float32(0.01 * 0.02),
        "s": np.asarray(0.02, np.float32),
        "t": np.asarray(0.05, np.float32),
        "z": np.asarray(128, np.uint8),
    }


def test_a_quantised_convolution_computes_the_same(rng: np.random.Generator) -> None:
    constants = constants_of(rng)
    steps, more = with_integer_weights(STEPS, constants)
    assert [s.op_type for s in steps].count("DequantizeLinear") == 4
    assert {"w", "b"}.isdisjoint(more)
    x = rng.uniform(-1, 1, X.shape).astype(np.float32)
    before, after = (
        run(build_model(s, ["x"], ["y"], {"x": X, "y": Y}, c).text, x)
        for s, c in ((STEPS, constants), (steps, more))
    )
    # Rounding may fall to the other side.
    assert np.abs(before - after).max() < 0.051
    assert np.abs(before - after).mean() < 1e-3


def test_what_is_not_quantised_on_both_sides_stays(rng: np.random.Generator) -> None:
    constants = constants_of(rng)
    steps, more = with_integer_weights(STEPS[:3], constants)
    assert steps == STEPS[:3]
    assert more.keys() == {"s", "z", "w", "b"}


RELU = [
    *STEPS[:3],
    step("Relu", "c", "d"),
    step("QuantizeLinear", "d t l", "r"),
    step("DequantizeLinear", "r t l", "y"),
]


@pytest.mark.parametrize(("least", "whole"), [(0, True), (128, False)])
def test_a_relu_stays_between_where_quantising_does_it_anyway(
    rng: np.random.Generator, least: int, whole: bool
) -> None:
    constants = constants_of(rng) | {"l": np.asarray(least, np.uint8)}
    steps, _ = with_integer_weights(RELU, constants)
    assert (steps != RELU) == whole


def test_what_somebody_reads_as_floats_keeps_its_weights(rng: np.random.Generator) -> None:
    also = [*STEPS, step("Sigmoid", "c", "e")]
    assert with_integer_weights(also, constants_of(rng))[0] == also


def run(text: bytes, x: Array) -> Array:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return np.asarray(ort.InferenceSession(text, options).run(["y"], {"x": x})[0])


@pytest.mark.parametrize("largest", [63, 64, 127, 128])
def test_quantisers_that_leave_out_the_largest_numbers_are_understood(
    rng: np.random.Generator, largest: int
) -> None:
    values = rng.integers(-largest, min(largest, 127) + 1, (4, 30)).astype(np.int8)
    values[:, 0] = -largest
    found = quantised(values * np.float32(0.013), by_channel=True)
    assert found is not None
    np.testing.assert_array_equal(found.values, values)
