"""Kernels that do with less working memory: the same bits, in no more than they are allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coexec.core.types import Region
from coexec.ops.opdef import Example, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.table import KERNELS
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES, open_opencl

Shape = tuple[int, ...]


def _product(name: str, first: Shape, second: Shape, **attributes: Any) -> tuple[str, Example]:
    return name, Example((Sample(first), Sample(second)), attributes)


def _input_gradient(
    first: Shape, second: Shape, stride: int, group: int = 1, **attributes: Any
) -> tuple[str, Example]:
    fixed = {"strides": (stride, stride), "dilations": (1, 1), "group": group}
    return "coexec::ConvInputGrad", Example((Sample(first), Sample(second)), fixed | attributes)


CASES = {
    "rows of a transposed operand side by side": _product(
        "Gemm", (70, 333), (70, 210), transA=1, transB=0, alpha=0.5, beta=1.0
    ),
    "more of the sum than a panel holds": _product(
        "Gemm", (1100, 42), (1100, 66), transA=1, transB=0, alpha=1.0, beta=1.0
    ),
    "taps of an input gradient": _input_gradient(
        (1, 64, 7, 9), (64, 90, 3, 3), 1, pads=(1,) * 4, input_shape=(1, 90, 7, 9)
    ),
    "groups of an input gradient": _input_gradient(
        (1, 128, 7, 9), (128, 45, 3, 3), 1, 2, pads=(1,) * 4, input_shape=(1, 90, 7, 9)
    ),
    "phases of a stride": _input_gradient(
        (2, 36, 6, 10), (36, 20, 1, 1), 2, pads=(0,) * 4, input_shape=(2, 20, 12, 20)
    ),
    "phases of a stride and taps": _input_gradient(
        (1, 70, 6, 10), (70, 40, 3, 3), 2, pads=(1,) * 4, input_shape=(1, 40, 12, 20)
    ),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", CASES)
def test_packed_products_in_less_memory_change_no_bit(
    runtime: str, name: str, rng: np.random.Generator
) -> None:
    identifier, example = CASES[name]
    processor = open_opencl(runtime)
    facts = replace(processor.facts, unit_kind="cpu")
    op = OPERATORS[identifier]
    operands = example.draw(rng)
    call = example.call(op, operands)
    region = Region.alone(call)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    found = []
    (packed,) = (v for v in KERNELS[identifier].variants if v.name == "packed")
    defaults = {**packed.defaults(call, facts), "APART": 1}
    for values_of_less in ({}, *packed.spares):
        choice = Choice(packed, {**defaults, **values_of_less})
        executable = compile_region(region, facts, processor.name, always(choice), fusing=False)
        found.append((executable.scratch_bytes, run_region(processor, region, executable, values)))
    usual, least = found[0], found[-1]
    assert least[0] < 0.9 * usual[0]
    assert_agrees(op, call, usual[1], expected_outputs(op, call, operands))
    for _, outputs in found[1:]:
        for output, array in zip(outputs, usual[1], strict=True):
            np.testing.assert_array_equal(output, array)
