"""Gradients of convolutions' inputs as a product and the sum of its rows: planes, lines, pieces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.kernels import col2im
from coexec.processors.opencl.kernels.conv import FAMILY
from coexec.processors.opencl.kernels.window import Window
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES, open_opencl, runs_everything

FLOAT, HALF = np.dtype(np.float32), np.dtype(np.float16)
GRADIENT, TRANSPOSE = "coexec::ConvInputGrad", "ConvTranspose"
Shape = tuple[int, ...]

CASES: dict[str, tuple[str, Shape, Shape, dict[str, Any]]] = {
    "lines of vectors": (GRADIENT, (1, 5, 10, 9), (5, 8, 3, 3), {"pads": (1,) * 4}),
    "short lines, several images": (GRADIENT, (3, 6, 7, 6), (6, 7, 3, 3), {"pads": (1,) * 4}),
    "even and odd elements": (
        GRADIENT,
        (2, 6, 10, 13),
        (6, 9, 3, 3),
        {"pads": (1,) * 4, "strides": (2, 2), "input_shape": (2, 9, 20, 25)},
    ),
    "parts of a long sum": (GRADIENT, (2, 260, 3, 5), (260, 7, 1, 1), {}),
    "pieces of a plane": (GRADIENT, (2, 3, 40, 40), (3, 5, 1, 1), {}),
    "taps far outside": (
        GRADIENT,
        (2, 5, 11, 6),
        (5, 4, 3, 5),
        {"pads": (1, 4, 1, 0), "dilations": (1, 2)},
    ),
    "elements that no tap reaches": (
        GRADIENT,
        (2, 5, 4, 3),
        (5, 4, 2, 2),
        {"strides": (3, 3), "input_shape": (2, 4, 12, 10)},
    ),
    "three axes": (GRADIENT, (1, 4, 3, 4, 5), (4, 3, 3, 3, 3), {"pads": (1,) * 6}),
    "bias": (TRANSPOSE, (2, 6, 5, 6), (6, 7, 3, 3), {"pads": (1,) * 4, "strides": (2, 2)}),
}
"""Operator, gradient of the result, weights, and what differs from strides of 1 without padding."""


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small calls of tests take this variant too."""
    monkeypatch.setattr(col2im, "LAUNCH_COST", 1 << 40)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", CASES)
def test_sums_meet_where_taps_place_them(runtime: str, name: str, rng: np.random.Generator) -> None:
    check(runtime, convolution(*CASES[name]), rng)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if open_opencl(r).facts.fp16])
@pytest.mark.parametrize("name", CASES)
def test_sums_of_float16_are_float32(runtime: str, name: str, rng: np.random.Generator) -> None:
    check(runtime, convolution(*CASES[name], dtype=HALF), rng)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if runs_everything(r)])
def test_tiles_for_wide_vectors(runtime: str, rng: np.random.Generator) -> None:
    check(runtime, convolution(*CASES["short lines, several images"]), rng, vector_bytes=64)


def test_tasks_keep_their_sums_in_a_cache_and_busy_all_units() -> None:
    facts = open_opencl(RUNTIMES[0]).facts
    w = Window.of(convolution(GRADIENT, (32, 512, 14, 14), (512, 512, 3, 3), {"pads": (1,) * 4}))
    params = {name: values[0] for name, values in col2im.SPACE.items()}
    d = col2im.divide(w, facts, params)
    assert d.rows * d.pitch <= col2im.MOST_SUMS
    assert d.tasks >= 4 * facts.compute_units


@pytest.mark.parametrize(
    ("y", "weights", "attributes", "pays"),
    [
        ((1, 512, 7, 7), (512, 512, 3, 3), {"pads": (1,) * 4}, True),
        ((1, 1280, 7, 7), (1280, 320, 1, 1), {}, True),
        ((32, 512, 7, 7), (512, 2048, 1, 1), {}, False),  # weights are turned once for all images
        ((1, 64, 224, 224), (64, 8, 3, 3), {"pads": (1,) * 4}, False),  # sums leave the cache
        ((1, 512, 7, 7), (512, 16, 3, 3), {"pads": (1,) * 4, "group": 2}, False),
    ],
)
def test_it_is_chosen_where_turning_weights_costs_more(
    y: Shape, weights: Shape, attributes: dict[str, Any], pays: bool
) -> None:
    call = convolution(GRADIENT, y, weights, attributes)
    assert (col2im.refuse(call, open_opencl(RUNTIMES[0]).facts) is None) == pays


def convolution(
    identifier: str,
    y: Shape,
    weights: Shape,
    attributes: dict[str, Any],
    dtype: np.dtype[np.generic] = FLOAT,
) -> OpCall:
    """A call; a gradient's input is as large as strides of 1 make it, unless told."""
    op, axes = OPERATORS[identifier], len(y) - 2
    given: dict[str, Any] = {
        "strides": (1,) * axes,
        "dilations": (1,) * axes,
        "group": 1,
        "pads": (0,) * 2 * axes,
    } | attributes
    if identifier == GRADIENT and "input_shape" not in given:
        size = (
            y[2 + i] + given["dilations"][i] * (weights[2 + i] - 1) - sum(given["pads"][i::axes])
            for i in range(axes)
        )
        given["input_shape"] = (y[0], weights[1] * given["group"], *size)
    shapes = (y, weights, *(((weights[1],),) if identifier == TRANSPOSE else ()))
    types = tuple(TensorType(shape, dtype) for shape in shapes)
    return op.typed(OpCall(op.op_type, types, given, domain=op.domain))


def check(runtime: str, call: OpCall, rng: np.random.Generator, vector_bytes: int = 0) -> None:
    """Results agree with float64 and with the naive kernel."""
    processor, op, region = open_opencl(runtime), OPERATORS[call.identifier], Region.alone(call)
    facts = processor.facts
    facts = replace(facts, vector_bytes=vector_bytes or facts.vector_bytes)
    assert col2im.refuse(call, facts) is None
    operands: list[Array | None] = [
        rng.standard_normal(kind.shape).astype(kind.dtype) for kind in call.inputs if kind
    ]
    feeds = {f"x{i}": operand for i, operand in enumerate(operands) if operand is not None}
    results = [
        run_region(processor, region, compile_region(region, facts, processor.name, name), feeds)
        for name in ("col2im", FAMILY.naive.name)
    ]
    assert_agrees(op, call, results[0], expected_outputs(op, call, operands))
    assert_agrees(op, call, results[0], results[1])
