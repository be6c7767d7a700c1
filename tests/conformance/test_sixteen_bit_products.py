"""Products and convolutions of float16: every variant keeps its sums in float32.

A result is then as far from the float64 one as rounding it to float16 makes it, and no further:
sums in float16 would be off by a hundred times as much at these depths.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region
from coexec.ops.opdef import Example, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always, variant_named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.kernels import winograd, winograd_weight
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import KERNELS
from tests.running import as_float, expected_outputs, run_region
from tests.runtimes import DRIVERS, open_opencl

RUNTIMES = [name for name in DRIVERS if open_opencl(name).facts.fp16]
ROUNDING, SUMS = 2.0**-11, 1e-4
"""Of a float16, relative; of sums in float32, as a share of the results' root mean square."""
ONCE, ROUNDED_ONCE_MORE = "winograd: weights transformed once", 8e-3
"""Its transformed weights are kept in float16."""
WIDE = np.dtype(np.float64)

Shape = tuple[int, ...]
INPUT, WEIGHT = "coexec::ConvInputGrad", "coexec::ConvWeightGrad"


def conv(x: Shape, w: Shape, known: bool = False, **attributes: Any) -> tuple[str, Example]:
    fixed = {"strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "group": 1}
    weights = Sample(w, constant=known)
    return "Conv", Example((Sample(x), weights, Sample((w[0],))), fixed | attributes)


def gradient(name: str, first: Shape, second: Shape, **attributes: Any) -> tuple[str, Example]:
    fixed = {"strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "group": 1}
    return name, Example((Sample(first), Sample(second)), fixed | attributes)


def gemm(m: int, k: int, n: int, known: bool = False, **attributes: Any) -> tuple[str, Example]:
    a = (k, m) if attributes.get("transA") else (m, k)
    b = (n, k) if attributes.get("transB") else (k, n)
    return "Gemm", Example((Sample(a), Sample(b, constant=known), Sample((n,))), attributes)


PADDED: dict[str, Any] = {"pads": (1, 1, 1, 1)}
CASES = {
    "packed: rows in place": gemm(13, 700, 75),
    "packed: rows turned": gemm(13, 50, 75, transA=1),
    "packed: more terms than a panel of float32 has": gemm(13, 1300, 75),
    "packed: one term": gemm(13, 1, 75),
    "packed: convolution": conv((2, 6, 9, 7), (14, 3, 3, 3), group=2, **PADDED),
    "packed: known": conv((2, 5, 9, 7), (14, 5, 3, 3), True, **PADDED),
    "packed: stride's gradient": gradient(
        INPUT, (2, 6, 5, 4), (6, 5, 3, 3), input_shape=(2, 5, 9, 7), strides=(2, 2), **PADDED
    ),
    "outer: product": gemm(19, 300, 21, transB=1),
    "outer: pointwise": gradient(WEIGHT, (2, 7, 9, 5), (2, 20, 9, 5), kernel_shape=(1, 1)),
    "outer: taps": gradient(WEIGHT, (2, 9, 9, 5), (2, 20, 9, 5), kernel_shape=(3, 3), **PADDED),
    "outer: few channels": gradient(
        WEIGHT, (2, 3, 9, 5), (2, 20, 9, 5), kernel_shape=(3, 3), **PADDED
    ),
    "dots: whole vectors": gemm(3, 320, 21, transB=1),
    "dots: one row": gemm(1, 320, 21, transB=1),
    "dots: odd": gemm(5, 37, 21, transB=1),
    "few_rows: odd": gemm(5, 37, 69),
    "known: panels of 16 bits": gemm(7, 130, 75, True, transB=1),
    "known: panels of 32 bits": gemm(33, 130, 75, True),
    "known: transposed": gemm(18, 31, 20, True, transA=1),
    "pointwise: forward": conv((2, 6, 11, 7), (14, 3, 1, 1), group=2),
    "pointwise: gradient": gradient(
        INPUT, (2, 14, 11, 7), (14, 6, 1, 1), input_shape=(2, 6, 11, 7)
    ),
    "bands: stride": conv((2, 3, 21, 37), (7, 3, 3, 3), strides=(2, 2), **PADDED),
    "bands: gradient": gradient(
        INPUT, (2, 7, 11, 19), (7, 3, 3, 3), input_shape=(2, 3, 21, 37), strides=(2, 2), **PADDED
    ),
    "direct: padded": conv((1, 3, 9, 11), (33, 3, 3, 3), True, strides=(2, 2), **PADDED),
    "direct: in place": conv((2, 19, 7, 7), (33, 19, 1, 1), True),
    "winograd: forward": conv((2, 17, 9, 7), (33, 17, 3, 3), **PADDED),
    "winograd: weights transformed once": conv((2, 17, 9, 7), (33, 17, 3, 3), True, **PADDED),
    "winograd: gradient": gradient(
        INPUT, (2, 17, 9, 7), (17, 20, 3, 3), input_shape=(2, 20, 9, 7), **PADDED
    ),
    "winograd_weight: odd": gradient(
        WEIGHT, (2, 17, 9, 7), (2, 33, 9, 7), kernel_shape=(3, 3), **PADDED
    ),
    "depthwise: rows": conv((2, 6, 9, 21), (6, 1, 3, 3), group=6, **PADDED),
    "depthwise: lanes": conv((2, 20, 5, 7), (20, 1, 3, 3), group=20, **PADDED),
    "depthwise: weights": gradient(
        WEIGHT, (2, 20, 5, 7), (2, 20, 5, 7), kernel_shape=(3, 3), group=20, **PADDED
    ),
}
"""Variant, and what of it is reached."""


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transforms that pay for the small calls of tests too."""
    for cost in ("FILTER_COST", "BIG_FILTER_COST", "TILE_COST"):
        monkeypatch.setattr(winograd, cost, 0)
    monkeypatch.setattr(winograd_weight, "DIRECT_COST", 1e6)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_sums_are_kept_in_float32(runtime: str, case: str, rng: np.random.Generator) -> None:
    name, example = CASES[case]
    processor, op = open_opencl(runtime), OPERATORS[name]
    operands = [as_float(operand, "float16") for operand in example.draw(rng)]
    call = example.call(op, operands)
    variant = case.partition(":")[0]
    (found,) = run(processor, call, operands, variant)
    (naive,) = run(processor, call, operands, "naive")
    wide = replace(call, outputs=(replace(call.output(0), dtype=WIDE),))
    (wanted,) = expected_outputs(op, wide, operands)
    assert found.dtype == naive.dtype == np.float16
    check(found, wanted, ROUNDED_ONCE_MORE if case == ONCE else SUMS)
    check(naive, wanted, SUMS)


def check(found: Array, wanted: Array, share: float) -> None:
    """``found`` is ``wanted`` in float16, up to a share of the results' root mean square."""
    level = float(np.sqrt(np.mean(wanted.astype(WIDE) ** 2)))
    error = np.abs(found.astype(WIDE) - wanted)
    assert np.all(error <= ROUNDING * np.abs(wanted) + share * level + 2.0**-24)


def run(
    processor: OpenCLProcessor, call: OpCall, operands: list[Array | None], name: str
) -> list[Array]:
    variant = variant_named(KERNELS[call.identifier], name)
    assert variant is not None
    choice = always(Choice(variant, variant.defaults(call, processor.facts)))
    region = Region.alone(call)
    executable = compile_region(region, processor.facts, processor.name, choice)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    return run_region(processor, region, executable, values)


@pytest.mark.parametrize("runtime", [name for name in DRIVERS if name not in RUNTIMES])
def test_a_device_without_float16_refuses_by_name(runtime: str, rng: np.random.Generator) -> None:
    processor = open_opencl(runtime)
    for name, example in CASES.values():
        operands = [as_float(operand, "float16") for operand in example.draw(rng)]
        support = processor.supports(example.call(OPERATORS[name], operands))
        assert (support.yes, support.reason) == (False, "float16: the device has no cl_khr_fp16")
