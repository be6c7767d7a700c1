"""Convolutions by minimal filtering: its rounding errors are bounded, on odd sizes and edges too.

It rounds more than a direct sum, so the bounds are what its module states, against float64 and
against the naive kernel on the same device.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.kernels import winograd
from coexec.processors.opencl.kernels.conv import FAMILY
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.running import expected_outputs, run_region
from tests.runtimes import RUNTIMES, open_opencl

FLOAT = np.dtype(np.float32)
RMS_ERROR, LARGEST_ERROR = 2e-6, 1.2e-5
"""Of a result, as a share of the results' root mean square."""

Case = tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]
CASES: dict[str, Case] = {
    "whole tiles": ("Conv", (1, 16, 8, 16), (16, 16), (1, 1, 1, 1), True),
    "odd sizes": ("Conv", (3, 17, 9, 7), (20, 17), (1, 1, 1, 1), False),
    "uneven pads": ("Conv", (2, 16, 13, 10), (33, 16), (0, 1, 2, 0), True),
    "many channels": ("Conv", (1, 150, 5, 22), (16, 150), (2, 2, 2, 2), False),
    "few tiles": ("Conv", (1, 20, 7, 7), (70, 20), (1, 1, 1, 1), True),
    "gradient": ("coexec::ConvInputGrad", (2, 24, 9, 11), (24, 19), (1, 0, 1, 2), False),
    "transpose": ("ConvTranspose", (2, 16, 9, 8), (16, 18), (1, 1, 1, 1), True),
}
"""Operator, operand, channels of the weights, pads and whether there is a bias."""


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transforms that pay for the small calls of tests too."""
    for cost in ("FILTER_COST", "BIG_FILTER_COST", "TILE_COST"):
        monkeypatch.setattr(winograd, cost, 0)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_rounding_errors_are_bounded(runtime: str, case: str, rng: np.random.Generator) -> None:
    processor = open_opencl(runtime)
    call = convolution(*CASES[case])
    assert chosen(call, processor.facts) == "winograd"
    check(processor, call, processor.facts, rng)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tiles_for_wide_vectors(runtime: str, rng: np.random.Generator) -> None:
    processor = open_opencl(runtime)
    wide = replace(processor.facts, vector_bytes=64)
    check(processor, convolution(*CASES["uneven pads"]), wide, rng)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_are_transformed_in_rounds_that_fit_a_cache(
    runtime: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    processor = open_opencl(runtime)
    call = convolution(*CASES["uneven pads"])
    facts = replace(processor.facts, vector_bytes=32)
    whole = winograd.lower(call, facts, values(call, facts))
    monkeypatch.setattr(winograd, "FILTER_BYTES", 1)
    rounds = winograd.lower(call, facts, values(call, facts))
    assert (len(whole.calls), len(rounds.calls)) == (2, 6)
    assert rounds.scratch[0] < whole.scratch[0]
    check(processor, call, facts, rng)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("group", [2, 3])
def test_panels_whose_products_are_in_work_together(
    runtime: str, group: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Three panels of rows: two and one, or all of them; one task, so that no unit divides them."""
    processor = open_opencl(runtime)
    call = convolution(*CASES["uneven pads"])
    facts = replace(processor.facts, vector_bytes=32, compute_units=1)
    monkeypatch.setattr(winograd, "CORE_BYTES", 0)
    monkeypatch.setattr(winograd, "PANELS_IN_WORK", group)
    assert values(call, facts)["GROUP"] == group
    check(processor, call, facts, rng)


@pytest.mark.usefixtures("cheap")
def test_large_patches_are_read_once_for_several_panels() -> None:
    facts = replace(open_opencl(RUNTIMES[0]).facts, vector_bytes=64)
    groups = {
        size: values(convolution("Conv", (1, 512, size, size), (512, 512), (1,) * 4, False), facts)
        for size in (14, 28)
    }
    assert (groups[14]["GROUP"], groups[28]["GROUP"]) == (1, 4)


@pytest.mark.parametrize(
    ("x", "channels", "prepared", "pays"),
    [
        ((16, 64, 4, 4), 64, False, True),
        ((4, 64, 4, 4), 64, False, False),  # the transform of the weights is for too few tiles
        ((4, 64, 4, 4), 64, True, True),  # unless it was done before
        ((8, 512, 4, 4), 512, False, False),  # more weights than a cache holds cost more
        ((64, 32, 2, 2), 32, True, False),  # a quarter of each tile
    ],
)
def test_it_is_chosen_where_transforms_save_more_than_they_cost(
    x: tuple[int, ...], channels: int, prepared: bool, pays: bool
) -> None:
    call = convolution("Conv", x, (channels, channels), (1, 1, 1, 1), False)
    if prepared:
        call = replace(call, constants={1: np.zeros(call.input(1).shape, np.float32)})
    assert (chosen(call, open_opencl(RUNTIMES[0]).facts) == "winograd") == pays


def convolution(
    identifier: str,
    x: tuple[int, ...],
    channels: tuple[int, ...],
    pads: tuple[int, ...],
    bias: bool,
) -> OpCall:
    """A call with 3 x 3 weights; a gradient's input is as large as pads and ``x`` say."""
    op = OPERATORS[identifier]
    attributes: dict[str, object] = {"pads": pads}
    if identifier == "coexec::ConvInputGrad":
        size = (x[2] + 2 - pads[0] - pads[2], x[3] + 2 - pads[1] - pads[3])
        attributes["input_shape"] = (x[0], channels[1], *size)
    rows = channels[0] if identifier == "Conv" else channels[1]
    shapes = (x, (*channels, 3, 3), *(((rows,),) if bias else ()))
    types = tuple(TensorType(shape, FLOAT) for shape in shapes)
    return op.typed(OpCall(op.op_type, types, attributes, domain=op.domain))


def chosen(call: OpCall, facts: DeviceFacts) -> str:
    variant, reason = FAMILY.choose(call, facts)
    assert variant is not None, reason
    return variant.name


def values(call: OpCall, facts: DeviceFacts) -> dict[str, int]:
    return dict(named("winograd")(FAMILY, call, facts).values)


def check(
    processor: OpenCLProcessor, call: OpCall, facts: DeviceFacts, rng: np.random.Generator
) -> None:
    """Results of minimal filtering against float64 and against the naive kernel."""
    operands: list[Array | None] = [
        rng.standard_normal(kind.shape).astype(np.float32) for kind in call.inputs if kind
    ]
    (expected,) = expected_outputs(OPERATORS[call.identifier], call, operands)
    region = Region.alone(call)
    feeds = {f"x{i}": operand for i, operand in enumerate(operands) if operand is not None}
    results = [
        run_region(processor, region, compile_region(region, facts, processor.name, name), feeds)[0]
        for name in ("winograd", "naive")
    ]
    for other in (expected, results[1]):
        error = (results[0] - other.astype(np.float64)) / expected.std(dtype=np.float64)
        assert np.abs(error).max() < LARGEST_ERROR
        assert np.sqrt((error**2).mean()) < RMS_ERROR
