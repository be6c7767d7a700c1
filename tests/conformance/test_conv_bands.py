"""Convolutions on bands of rows: tails of positions, rows and bands, strides, phases, groups."""

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
from coexec.processors.opencl.kernels.conv import FAMILY
from tests.graphs import evaluate
from tests.passes.test_fold_batch_norm import feed, with_weights
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES, THOROUGH, open_opencl, runs_everything

Shape = tuple[int, ...]
GRAD = "coexec::ConvInputGrad"


def case(
    name: str, first: Shape, w: Shape, *third: Shape, **attributes: object
) -> tuple[str, Example]:
    fixed = {"dilations": (1,) * (len(w) - 2), "group": 1}
    operands = tuple(Sample(shape) for shape in (first, w, *third))
    return name, Example(operands, fixed | attributes)


CASES = {
    # A grid of one KiB holds bands of one row; 23 columns and 17 rows leave parts of tiles empty.
    "image": case(
        "Conv", (2, 3, 21, 45), (17, 3, 7, 7), (17,),
        kernel_shape=(7, 7), strides=(2, 2), pads=(3, 3, 3, 3),
    ),
    "three axes, dilated, groups, pads that differ": case(
        "Conv", (1, 4, 9, 7, 19), (12, 2, 3, 2, 3), (12,), group=2,
        kernel_shape=(3, 2, 3), strides=(2, 1, 1), pads=(1, 0, 2, 0, 1, 1), dilations=(2, 1, 2),
    ),
    "columns of a stride of three": case(
        "Conv", (1, 4, 11, 61), (6, 4, 3, 4), kernel_shape=(3, 4), strides=(2, 3), pads=(1, 0, 0, 2)
    ),
    "gradient": case(
        GRAD, (2, 7, 13, 21), (7, 3, 3, 3),
        input_shape=(2, 3, 13, 21), strides=(1, 1), pads=(1, 1, 1, 1),
    ),
    "gradient, a stride on rows, of which one has no tap": case(
        GRAD, (1, 5, 5, 21), (5, 3, 2, 3),
        input_shape=(1, 3, 13, 21), strides=(3, 1), pads=(1, 1, 0, 1),
    ),
    "gradient of an image": case(
        GRAD, (2, 7, 11, 23), (7, 3, 7, 7),
        input_shape=(2, 3, 21, 45), strides=(2, 2), pads=(3, 3, 3, 3),
    ),
    "gradient, three axes, phases of three": case(
        GRAD, (1, 6, 4, 6, 8), (6, 3, 3, 2, 2), group=2,
        input_shape=(1, 6, 7, 7, 22), strides=(2, 1, 3), pads=(1, 0, 0, 1, 0, 0),
    ),
}  # fmt: skip
OF_EACH_KIND = ("image", "gradient of an image")
"""For runtimes that build slowly; the others have the same programs, or less in them."""


def run(runtime: str, call: OpCall, operands: list[Array | None], **tuned: int) -> list[Array]:
    """The kernel for vectors of 32 bytes, whether it would be chosen or not."""
    processor = open_opencl(runtime)
    facts = replace(processor.facts, vector_bytes=32)
    variant = variant_named(FAMILY, "bands")
    assert variant is not None
    choice = always(Choice(variant, variant.defaults(call, facts) | tuned))
    region = Region.alone(call)
    executable = compile_region(region, facts, "test", choice)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    return run_region(processor, region, executable, values)


@pytest.mark.parametrize(
    ("runtime", "name"),
    [(r, name) for r in RUNTIMES for name in CASES if runs_everything(r) or name in OF_EACH_KIND],
)
def test_results_are_those_of_the_reference(
    runtime: str, name: str, rng: np.random.Generator
) -> None:
    identifier, example = CASES[name]
    op, operands = OPERATORS[identifier], example.draw(rng)
    call = example.call(op, operands)
    expected = expected_outputs(op, call, operands)
    for grid in (192, 1):
        assert_agrees(op, call, run(runtime, call, operands, GRID=grid), expected)


def test_results_are_finished_with_the_sum_and_the_activation_behind_them() -> None:
    """The sum takes the place of an operand of the result, each element of which is read once."""
    model = with_weights(
        "g (float[2,3,9,38] x, float[24,3,3,3] w, float[24] b, float[24,3,2,2] v)"
        " => (float[2,24,4,36] y) { h = Conv<strides=[2,1]>(x, w, b)"
        " k = Conv<strides=[2,1]>(x, v) m = Sigmoid(k) n = MaxPool<kernel_shape=[1,2]>(m)"
        " s = Add(h, n) y = Relu(s) }"
    )
    x = feed(model)
    session, trace = coexec.compile(model, [THOROUGH[0]]), Trace()
    (y,) = session.run(x, trace=trace).values()
    assert "Conv+Add+Relu.bands" in {event.operator for event in trace.leaves()}
    np.testing.assert_allclose(y, evaluate(model, x)["y"], rtol=1e-4, atol=1e-5)
    assert y.tobytes() == session.run(x)["y"].tobytes()


@pytest.mark.parametrize(
    ("x", "w", "chosen"),
    [
        ((2, 3, 32, 32), (64, 3, 3, 3), True),
        ((2, 16, 8, 32, 32), (48, 16, 3, 3, 3), True),
        ((2, 64, 32, 32), (64, 64, 3, 3), False),
        ((2, 3, 32, 32), (64, 3, 1, 1), False),
        ((2, 3, 32, 2), (64, 3, 3, 2), False),
    ],
    ids=["image", "three axes", "many channels", "one tap", "columns that fill no vector"],
)
def test_where_bands_are_chosen(x: Shape, w: Shape, chosen: bool) -> None:
    facts = replace(open_opencl(RUNTIMES[0]).facts, vector_bytes=32)
    types = (TensorType(x, np.dtype(np.float32)), TensorType(w, np.dtype(np.float32)))
    call = OPERATORS["Conv"].typed(OpCall("Conv", types))
    variant, _ = FAMILY.choose(call, facts)
    assert variant is not None
    assert (variant.name == "bands") == chosen
