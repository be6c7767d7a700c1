"""Products with a matrix that never changes: its panels are made once, for any sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Region
from coexec.ops.opdef import Example, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.kernels import known
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES, open_opencl

Shape = tuple[int, ...]


def _gemm(m: int, n: int, k: int, left: bool, turned: bool, bias: Shape | None) -> Example:
    attributes = {"transA": int(left), "transB": int(turned), "alpha": 0.5, "beta": 2.0}
    first, second = (k, m) if left else (m, k), (n, k) if turned else (k, n)
    third = None if bias is None else Sample(bias)
    return Example((Sample(first), Sample(second, constant=True), third), attributes)


CASES = {
    "one row": ("Gemm", _gemm(1, 300, 70, False, True, (300,))),
    "one row, fewer columns than lanes": ("Gemm", _gemm(1, 3, 9, False, False, None)),
    "rows that tiles do not divide": ("Gemm", _gemm(13, 75, 40, False, True, (13, 1))),
    "both transposed": ("Gemm", _gemm(7, 130, 33, True, True, (7, 130))),
    "blocks of rows": ("Gemm", _gemm(100, 20, 30, False, False, (1,))),
    "a batch is more rows": (
        "MatMul",
        Example((Sample((2, 5, 17)), Sample((17, 70), constant=True))),
    ),
    "a vector": ("MatMul", Example((Sample((33,)), Sample((33, 40), constant=True)))),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_panels_of_a_known_matrix(runtime: str, case: str, rng: np.random.Generator) -> None:
    name, example = CASES[case]
    processor, op, operands = open_opencl(runtime), OPERATORS[name], example.draw(rng)
    call = example.call(op, operands)
    region = Region.alone(call)
    executable = compile_region(region, processor.facts, processor.name, "known")
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    found = run_region(processor, region, executable, values)
    assert_agrees(op, call, found, expected_outputs(op, call, operands))


def test_a_matrix_that_may_change_or_panels_that_are_not_kept_are_refused(
    rng: np.random.Generator,
) -> None:
    name, example = CASES["one row"]
    facts = replace(open_opencl(RUNTIMES[0]).facts, unit_kind="cpu")
    call = example.call(OPERATORS[name], example.draw(rng))
    assert known.refuse(call, facts) is None
    assert known.refuse(replace(call, constants={}), facts)
    assert known.refuse(call, replace(facts, prepares=False))
