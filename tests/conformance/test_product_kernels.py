"""Products large enough for several panels, groups of panels and parts of the sum.

The operators' examples are smaller than what one task of these kernels takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coexec.core.types import Region
from coexec.ops.opdef import Example, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.find import open_processor
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import KERNELS
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES

Shape = tuple[int, ...]


def _gemm(
    m: int, n: int, k: int, turned: bool, bias: Shape | None = None, left: bool = False
) -> tuple[str, Example]:
    """``left``, ``turned``: the left and the right operand are transposed."""
    attributes = {"transA": int(left), "transB": int(turned), "alpha": 0.5, "beta": 2.0}
    third = None if bias is None else Sample(bias)
    first, second = (k, m) if left else (m, k), (n, k) if turned else (k, n)
    return "Gemm", Example((Sample(first), Sample(second), third), attributes)


def _conv(name: str, first: Shape, second: Shape, **attributes: Any) -> tuple[str, Example]:
    fixed = {"dilations": (1, 1), "group": 1}
    return name, Example((Sample(first), Sample(second)), fixed | attributes)


CASES = {
    "groups of panels, the last one short": _gemm(40, 300, 30, False, (300,)),
    "one row, vectors along a long sum": _gemm(1, 21, 1040, True, (1,)),
    "few rows, vectors along a long sum": _gemm(4, 21, 1040, True),
    "rows as lanes, parts of a long sum": _gemm(40, 70, 1100, True, (40, 1)),
    "few rows, streams of two runs of columns": _gemm(3, 45, 11, False, (3, 1)),
    "rows side by side, packed by several items": _gemm(45, 20, 70, False, left=True),
    "nothing to sum": _gemm(16, 8, 0, True, (8,)),
    "runs of positions that end with their image": _conv(
        "Conv", (3, 6, 13, 11), (8, 6, 1, 1), kernel_shape=(1, 1), strides=(1, 1), pads=(0,) * 4
    ),
    "every other position, runs that end with their line": _conv(
        "Conv", (2, 3, 21, 45), (9, 3, 3, 3), kernel_shape=(3, 3), strides=(2, 2), pads=(1,) * 4
    ),
    "phases of a stride, interleaved": _conv(
        "coexec::ConvInputGrad",
        (2, 3, 6, 10),
        (3, 2, 1, 3),
        strides=(3, 2),
        pads=(0, 1, 0, 1),
        input_shape=(2, 2, 17, 19),
    ),
    "parts of the positions of several images": _conv(
        "coexec::ConvWeightGrad",
        (3, 7, 20, 19),
        (3, 20, 20, 19),
        kernel_shape=(3, 3),
        strides=(1, 1),
        pads=(1,) * 4,
    ),
    "operands exchanged, lanes side by side in the result": _conv(
        "coexec::ConvWeightGrad",
        (2, 28, 5, 6),
        (2, 66, 5, 6),
        kernel_shape=(1, 1),
        strides=(1, 1),
        pads=(0,) * 4,
    ),
    "taps as rows, parts of the positions": _conv(
        "coexec::ConvWeightGrad",
        (2, 3, 47, 48),
        (2, 9, 24, 24),
        kernel_shape=(3, 3),
        strides=(2, 2),
        pads=(1, 0, 1, 1),
    ),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", CASES)
def test_products_of_many_tasks_agree_with_the_reference(
    runtime: str, name: str, rng: np.random.Generator
) -> None:
    identifier, example = CASES[name]
    processor = open_processor(runtime)
    assert isinstance(processor, OpenCLProcessor)
    op = OPERATORS[identifier]
    operands = example.draw(rng)
    call = example.call(op, operands)
    expected = expected_outputs(op, call, operands)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    tried = 0
    for variant in KERNELS[identifier].variants[:-1]:
        if variant.applies(call, processor.facts) is None:
            region = Region.alone(call)
            executable = compile_region(region, processor.facts, processor.name, variant.name)
            actual = run_region(processor, region, executable, values)
            assert_agrees(op, call, actual, expected)
            tried += 1
    assert tried
