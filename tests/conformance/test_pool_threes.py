"""3 x 3 windows at stride 2 on vectors: padding, ends of rows, ties, infinities and NaN.

The examples of the operators are smaller than a vector; these rows have several, the last of which
overlaps its neighbour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import Example
from coexec.ops.pool_geometry import PoolGeometry
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.kernels.pool import FAMILY
from tests.running import assert_agrees, expected_outputs, run_call
from tests.runtimes import RUNTIMES, open_opencl, runs_everything

Shape = tuple[int, ...]
WINDOWS: tuple[tuple[Shape, Shape], ...] = (
    ((2, 3, 10, 42), (1, 1, 1, 1)),  # as in residual networks
    ((1, 3, 9, 41), (1, 1, 1, 1)),  # the last windows reach past the end
    ((1, 2, 10, 42), (0, 0, 0, 0)),  # a row and a column in no window
    ((1, 2, 8, 42), (0, 0, 1, 1)),
)
"""Shapes of X and paddings."""

CASES = [
    pytest.param(runtime, shape, pads, id=f"{runtime}-{shape[2]}x{shape[3]}-{sum(pads)}")
    for runtime in RUNTIMES
    for shape, pads in (WINDOWS if runs_everything(runtime) else WINDOWS[:1])
]


def check(runtime: str, identifier: str, operands: list[Array], attributes: dict[str, Any]) -> None:
    """The variant for these windows is taken, and agrees with the reference."""
    op, processor = OPERATORS[identifier], open_opencl(runtime)
    call = Example(tuple(operands), attributes).call(op, operands)
    variant, reason = FAMILY.choose(call, processor.facts)
    assert variant is not None, reason
    assert variant.name == "threes"
    actual = run_call(processor, call, operands)
    assert_agrees(op, call, actual, expected_outputs(op, call, operands))


def windows(shape: Shape, pads: Shape) -> tuple[dict[str, Any], Shape]:
    """Attributes of the windows, and the shape of Y."""
    attributes = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": pads}
    call = OpCall("MaxPool", (TensorType(shape, np.dtype(np.float32)),), attributes)
    return attributes, PoolGeometry.of(call).out_shape


@pytest.mark.parametrize(("runtime", "shape", "pads"), CASES)
def test_maxima_and_their_gradient(
    runtime: str, shape: Shape, pads: Shape, rng: np.random.Generator
) -> None:
    attributes, small = windows(shape, pads)
    dy = rng.uniform(1, 2, small).astype(np.float32)
    ties = rng.integers(0, 3, shape).astype(np.float32)
    nothing = np.where(rng.random(shape) < 0.7, -np.inf, ties).astype(np.float32)
    lost = np.where(rng.random(shape) < 0.1, np.nan, nothing).astype(np.float32)
    for x in (ties, nothing, lost):
        check(runtime, "MaxPool", [x], attributes)
        check(runtime, "coexec::MaxPoolGrad", [x, dy], attributes)


@pytest.mark.parametrize("include_pad", [0, 1])
@pytest.mark.parametrize(("runtime", "shape", "pads"), CASES)
def test_averages_and_their_gradient(
    runtime: str, shape: Shape, pads: Shape, include_pad: int, rng: np.random.Generator
) -> None:
    attributes, small = windows(shape, pads)
    attributes["count_include_pad"] = include_pad
    x, dy = rng.standard_normal(shape), rng.standard_normal(small)
    check(runtime, "AveragePool", [x.astype(np.float32)], attributes)
    attributes["input_shape"] = shape
    check(runtime, "coexec::AveragePoolGrad", [dy.astype(np.float32)], attributes)
