"""Pointwise convolutions in place: tails of columns and rows, groups, gradients, what follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import coexec
from coexec.core.events import Trace
from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.ops.opdef import Example, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always, variant_named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.kernels.conv import FAMILY
from coexec.processors.opencl.kernels.pointwise import Pointwise, divide
from tests.graphs import evaluate
from tests.passes.test_fold_batch_norm import feed, with_weights
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES, THOROUGH, open_opencl

Shape = tuple[int, ...]
GRAD = "coexec::ConvInputGrad"
TILE = {"MR": 6, "NV": 2}
"""One program for all cases."""


def case(
    name: str, first: Shape, w: Shape, *third: Shape, **attributes: object
) -> tuple[str, Example]:
    operands = tuple(Sample(shape) for shape in (first, w, *third))
    fixed = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1}
    return name, Example(operands, fixed | attributes)


CASES = {
    "whole tiles, biased": case("Conv", (2, 3, 8, 8), (12, 3, 1, 1), (12,), kernel_shape=(1, 1)),
    "overhanging rows and columns": case(
        "Conv", (2, 5, 11, 17), (17, 5, 1, 1), kernel_shape=(1, 1)
    ),
    "groups": case(
        "Conv", (2, 6, 5, 7), (14, 3, 1, 1), (14,), group=2, kernel_shape=(1, 1)
    ),
    "gradient, groups": case(
        GRAD, (2, 14, 5, 7), (14, 3, 1, 1), group=2, input_shape=(2, 6, 5, 7)
    ),
    "transposed, biased": case(
        "ConvTranspose", (1, 7, 9, 13), (7, 20, 1, 1), (20,), kernel_shape=(1, 1)
    ),
}  # fmt: skip


def run(runtime: str, call: OpCall, operands: list[Array | None], **tuned: int) -> list[Array]:
    """The kernel for vectors of 32 bytes, whether it would be chosen or not."""
    processor = open_opencl(runtime)
    facts = replace(processor.facts, vector_bytes=32)
    variant = variant_named(FAMILY, "pointwise")
    assert variant is not None
    choice = always(Choice(variant, variant.defaults(call, facts) | TILE | tuned))
    region = Region.alone(call)
    executable = compile_region(region, facts, "test", choice)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    return run_region(processor, region, executable, values)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_results_are_those_of_the_reference(
    runtime: str, name: str, rng: np.random.Generator
) -> None:
    identifier, example = CASES[name]
    op, operands = OPERATORS[identifier], example.draw(rng)
    call = example.call(op, operands)
    expected = expected_outputs(op, call, operands)
    for tuned in ({"SPAN": 16}, {"SPAN": 64, "SLOTS": 1}):
        assert_agrees(op, call, run(runtime, call, operands, **tuned), expected)


def test_what_overhangs_is_finished_once() -> None:
    """A sum takes the place of its operand: an element that is finished twice would be wrong."""
    model = with_weights(
        "g (float[1,5,31,31] x, float[23,5,1,1] w, float[23] b, float[23,5,1,1] v)"
        " => (float[1,23,31,31] y) { h = Conv(x, w, b) k = Conv(x, v) m = Softmax<axis=1>(k)"
        " s = Add(h, m) y = Relu(s) }"
    )
    x = feed(model)
    session, trace = coexec.compile(model, [THOROUGH[0]]), Trace()
    (y,) = session.run(x, trace=trace).values()
    assert "Conv+Add+Relu.pointwise" in {event.operator for event in trace.leaves()}
    np.testing.assert_allclose(y, evaluate(model, x)["y"], rtol=1e-4, atol=1e-5)
    assert y.tobytes() == session.run(x)["y"].tobytes()


@pytest.mark.parametrize(
    ("x", "w", "chosen"),
    [
        ((1, 16, 56, 56), (96, 16, 1, 1), True),
        ((1, 192, 28, 28), (32, 192, 1, 1), True),
        ((1, 64, 56, 56), (256, 64, 1, 1), False),
        ((1, 320, 28, 28), (32, 320, 1, 1), False),
        ((1, 16, 7, 7), (96, 16, 1, 1), False),
        ((1, 16, 56, 56), (96, 16, 3, 3), False),
    ],
    ids=["few channels", "few rows", "many of both", "many lines", "few columns", "many taps"],
)
def test_where_nothing_is_copied(x: Shape, w: Shape, chosen: bool) -> None:
    types = (TensorType(x, np.dtype(np.float32)), TensorType(w, np.dtype(np.float32)))
    call = OPERATORS["Conv"].typed(OpCall("Conv", types))
    variant, _ = FAMILY.choose(call, facts_of(2))
    assert variant is not None
    assert (variant.name == "pointwise") == chosen


def facts_of(units: int) -> DeviceFacts:
    """Cores with vectors of 32 bytes."""
    return DeviceFacts("any", "any", False, True, 4096, 1 << 15, units, 64, 32)


@pytest.mark.parametrize(
    ("units", "pixels", "run", "rows"), [(2, 784, 80, 96), (2, 196, 16, 96), (16, 196, 16, 24)]
)
def test_rows_are_divided_where_columns_leave_units_idle(
    units: int, pixels: int, run: int, rows: int
) -> None:
    p = Pointwise(96, 16, pixels, 1, 1, (0, 16, 1))
    found = divide(p, (6, 16), facts_of(units), {"SPAN": 256, "SLOTS": 4})
    assert (found.run, found.span, found.rows) == (run, run, rows)
