"""Gradients of 3 x 3 weights by minimal filtering: bounded rounding errors, the same bits again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.kernels import winograd_weight
from coexec.processors.opencl.kernels.conv import FAMILY
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.running import expected_outputs, run_region
from tests.runtimes import RUNTIMES, open_opencl

RMS_ERROR, LARGEST_ERROR = 1e-6, 5e-6
"""Of a result against float64, as shares of the results' root mean square."""
LARGEST_DIFFERENCE = 1.5e-5
"""From the naive kernel's result, whose long sums round more."""

Case = tuple[tuple[int, ...], int, tuple[int, ...]]
CASES: dict[str, Case] = {
    "whole tiles": ((1, 16, 8, 16), 16, (1, 1, 1, 1)),
    "odd sizes": ((3, 17, 9, 7), 20, (1, 1, 1, 1)),
    "uneven pads": ((1, 24, 9, 10), 33, (0, 1, 2, 0)),
    "blocks of channels and rows": ((1, 26, 5, 9), 34, (2, 2, 2, 2)),
    "parts of many tiles": ((36, 16, 5, 5), 16, (1, 1, 1, 1)),
    "one position": ((5, 16, 3, 3), 16, (0, 0, 0, 0)),
}
"""Shape of x, channels of y, pads."""


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Direct sums that cost more than the transforms of small calls too."""
    monkeypatch.setattr(winograd_weight, "DIRECT_COST", 1e6)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_rounding_errors_are_bounded(runtime: str, case: str, rng: np.random.Generator) -> None:
    processor = open_opencl(runtime)
    call = gradient(*CASES[case])
    assert chosen(call, processor.facts) == "winograd_weight"
    check(processor, call, processor.facts, rng)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tiles_for_wide_vectors(runtime: str, rng: np.random.Generator) -> None:
    processor = open_opencl(runtime)
    wide = replace(processor.facts, vector_bytes=64)
    check(processor, gradient(*CASES["uneven pads"]), wide, rng)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_parts_are_added_in_the_same_order_each_time(
    runtime: str, rng: np.random.Generator
) -> None:
    processor = open_opencl(runtime)
    call = gradient(*CASES["parts of many tiles"])
    facts = replace(processor.facts, compute_units=6)
    variant = next(v for v in FAMILY.variants if v.name == "winograd_weight")
    lowering = variant.lower(call, facts, variant.defaults(call, facts))
    assert lowering.calls[0].global_size == (6,)
    operands = drawn(call, rng)
    first, second = (run(processor, call, facts, operands, "winograd_weight") for _ in range(2))
    assert np.array_equal(first, second)
    assert_bounded(first, call, operands)


@pytest.mark.parametrize(
    ("x", "rows", "pays"),
    [
        ((8, 64, 16, 16), 64, True),
        ((4, 64, 4, 4), 64, False),  # sums of few tiles, transformed back
        ((64, 64, 2, 2), 64, False),  # a quarter of each tile
        ((8, 8, 16, 16), 64, False),  # few channels
    ],
)
def test_it_is_chosen_where_transforms_save_more_than_they_cost(
    x: tuple[int, ...], rows: int, pays: bool
) -> None:
    facts = DeviceFacts("cpu", "any", True, True, 4096, 1 << 15, 2, 64, 32)
    call = gradient(x, rows, (1, 1, 1, 1))
    assert (chosen(call, facts) == "winograd_weight") == pays
    assert chosen(call, replace(facts, unit_kind="gpu")) != "winograd_weight"


def gradient(x: tuple[int, ...], rows: int, pads: tuple[int, ...]) -> OpCall:
    """The gradient of 3 x 3 weights from x and the gradient of y."""
    op = OPERATORS["coexec::ConvWeightGrad"]
    size = (x[2] + pads[0] + pads[2] - 2, x[3] + pads[1] + pads[3] - 2)
    types = tuple(TensorType(s, np.dtype(np.float32)) for s in (x, (x[0], rows, *size)))
    attributes = {"pads": pads, "kernel_shape": (3, 3)}
    return op.typed(OpCall(op.op_type, types, attributes, domain=op.domain))


def chosen(call: OpCall, facts: DeviceFacts) -> str:
    variant, reason = FAMILY.choose(call, facts)
    assert variant is not None, reason
    return variant.name


def drawn(call: OpCall, rng: np.random.Generator) -> list[Array | None]:
    return [rng.standard_normal(kind.shape).astype(np.float32) for kind in call.inputs if kind]


def run(
    processor: OpenCLProcessor,
    call: OpCall,
    facts: DeviceFacts,
    operands: list[Array | None],
    name: str,
) -> Array:
    region = Region.alone(call)
    feeds = {f"x{i}": operand for i, operand in enumerate(operands) if operand is not None}
    executable = compile_region(region, facts, processor.name, name)
    return run_region(processor, region, executable, feeds)[0]


def assert_bounded(result: Array, call: OpCall, operands: list[Array | None]) -> None:
    """Errors against float64."""
    (expected,) = expected_outputs(OPERATORS[call.identifier], call, operands)
    error = differences(result, expected)
    assert np.sqrt((error**2).mean()) < RMS_ERROR
    assert np.abs(error).max() < LARGEST_ERROR


def differences(result: Array, expected: Array) -> Array:
    wide = expected.astype(np.float64)
    return np.asarray((result - wide) / wide.std())


def check(
    processor: OpenCLProcessor, call: OpCall, facts: DeviceFacts, rng: np.random.Generator
) -> None:
    """Results of minimal filtering against float64 and against the naive kernel."""
    operands = drawn(call, rng)
    result = run(processor, call, facts, operands, "winograd_weight")
    naive = run(processor, call, facts, operands, "naive")
    assert_bounded(result, call, operands)
    assert np.abs(differences(result, naive)).max() < LARGEST_DIFFERENCE
