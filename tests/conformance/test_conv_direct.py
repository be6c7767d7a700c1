"""Convolutions with channels in lanes: tails of positions, rows, sums and planes, all vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import coexec
from coexec.core.events import Trace
from coexec.core.types import OpCall, Region, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.kernels.conv import FAMILY
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.graphs import evaluate
from tests.passes.test_fold_batch_norm import feed, with_weights
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import DRIVERS, RUNTIMES, open_opencl

FLOAT = np.dtype(np.float32)
OP = OPERATORS["Conv"]
Case = tuple[tuple[int, ...], tuple[int, ...], dict[str, object], bool]
CASES: dict[str, Case] = {
    # 90 positions: three blocks of 24 and one of 18; 2 images, pads that differ, stride 2.
    "image": ((2, 3, 19, 17), (26, 3, 3, 3), {"strides": [2, 2], "pads": [1, 0, 1, 2]}, True),
    "no pads, dilated": ((1, 2, 9, 8), (32, 2, 3, 2), {"dilations": [2, 1]}, False),
    # More terms than are summed at a time, more rows than a panel, few positions, groups.
    "product": ((1, 280, 7, 7), (64, 140, 1, 1), {"group": 2}, True),
    "one axis": ((1, 4, 50), (32, 4, 5), {"strides": [3], "pads": [2, 2]}, True),
}


def convolution(case: str, rng: np.random.Generator) -> OpCall:
    """A call with known weights."""
    x, w, attributes, bias = CASES[case]
    shapes = (x, w, *(((w[0],),) if bias else ()))
    constants = {i: rng.standard_normal(shapes[i], np.float32) for i in range(1, len(shapes))}
    kinds = tuple(TensorType(shape, FLOAT) for shape in shapes)
    return OP.typed(OpCall("Conv", kinds, attributes, constants=constants))


def check(processor: OpenCLProcessor, call: OpCall, facts: DeviceFacts) -> None:
    """The kernels for a device of such facts compute what the reference does."""
    x = np.random.default_rng(1).standard_normal(call.input(0).shape, np.float32)
    region = Region.alone(call)
    executable = compile_region(region, facts, "test", named("direct"))
    processor.prepare(executable)
    actual = run_region(processor, region, executable, {"x0": x})
    operands = [x, *(call.constants[i] for i in range(1, len(call.inputs)))]
    assert_agrees(OP, call, actual, expected_outputs(OP, call, operands))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_the_reference(
    runtime: str, case: str, rng: np.random.Generator
) -> None:
    processor = open_opencl(runtime)
    call = convolution(case, rng)
    check(processor, call, processor.facts)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("vector_bytes", [16, 64])
def test_vectors_of_other_widths(runtime: str, vector_bytes: int, rng: np.random.Generator) -> None:
    processor = open_opencl(runtime)
    check(processor, convolution("image", rng), replace(processor.facts, vector_bytes=vector_bytes))


@pytest.mark.parametrize("runtime", DRIVERS)
def test_results_are_finished_with_the_sum_and_the_activation_behind_them(runtime: str) -> None:
    model = with_weights(
        "g (float[1,3,12,12] x, float[32,3,3,3] w, float[32] b, float[32,3,2,2] v)"
        " => (float[1,32,5,5] y) { h = Conv<strides=[2,2]>(x, w, b)"
        " k = Conv<strides=[2,2]>(x, v) m = MaxPool<kernel_shape=[2,2]>(k)"
        " s = Add(h, m) y = Relu(s) }"
    )
    x = feed(model)
    session, trace = coexec.compile(model, [runtime]), Trace()
    (y,) = session.run(x, trace=trace).values()
    assert "Conv+Add+Relu.direct" in {event.operator for event in trace.leaves()}
    np.testing.assert_allclose(y, evaluate(model, x)["y"], rtol=1e-4, atol=1e-5)


def test_weights_that_change_are_left_to_packed_tiles(rng: np.random.Generator) -> None:
    call = replace(convolution("image", rng), constants={})
    variant, _ = FAMILY.choose(call, open_opencl(RUNTIMES[0]).facts)
    assert variant is not None
    assert variant.name != "direct"


@pytest.mark.parametrize(
    ("vector_bytes", "side", "channels", "chosen"),
    [
        (32, 7, 640, True),
        (32, 9, 640, False),
        (32, 7, 1024, False),
        (64, 14, 704, True),  # asked for a block ahead
        (64, 14, 768, False),
        (64, 7, 1024, True),
    ],
)
def test_weights_that_fit_no_cache_are_read_once_or_left_to_packed_tiles(
    vector_bytes: int, side: int, channels: int, chosen: bool
) -> None:
    shapes = (1, channels, side, side), (channels, channels, 1, 1)
    kinds = tuple(TensorType(shape, FLOAT) for shape in shapes)
    weights = np.zeros(kinds[1].shape, np.float32)
    call = OP.typed(OpCall("Conv", kinds, constants={1: weights}))
    facts = replace(open_opencl(RUNTIMES[0]).facts, vector_bytes=vector_bytes)
    variant, _ = FAMILY.choose(call, facts)
    assert variant is not None
    assert (variant.name == "direct") == chosen
