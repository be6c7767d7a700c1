"""Every kernel variant on every OpenCL runtime installed, against the reference in float64.

The naive variant is held to the operator's tolerance first; each other variant then to the same
bound and to the naive one on the same device. Runtimes that build slowly (tests/runtimes.py) run
the first example of an operator and all that reach another variant.
"""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region
from coexec.ops.opdef import Example, OpDef
from coexec.ops.table import OPERATORS
from coexec.processors.find import open_processor
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import Variant
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import FAMILIES, INTERNAL, KERNELS
from tests.running import as_float, assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES, open_opencl, runs_everything

OPS = [op for op in OPERATORS.values() if op.identifier in KERNELS]
CASES = [
    pytest.param(op, example, id=f"{op.identifier}-{i}")
    for op in OPS
    for i, example in enumerate(op.examples)
]


@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if runs_everything(r)])
@pytest.mark.parametrize(("op", "example"), CASES)
def test_every_variant_agrees_with_the_reference(
    runtime: str, op: OpDef, example: Example, rng: np.random.Generator
) -> None:
    check_variants(runtime, op, example, example.draw(rng))


@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if not runs_everything(r)])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.identifier)
def test_every_variant_agrees_once(runtime: str, op: OpDef, rng: np.random.Generator) -> None:
    processor = open_opencl(runtime)
    tried: set[str] = set()
    for example in op.examples:
        operands = example.draw(rng)
        new = {v.name for v in applicable(processor, op, example.call(op, operands))} - tried
        if new:
            check_variants(runtime, op, example, operands)
            tried |= new


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.identifier)
def test_other_float_types_agree_with_the_reference(
    runtime: str, op: OpDef, dtype: str, rng: np.random.Generator
) -> None:
    example = next((e for e in op.examples if _has_float_sample(e, rng)), None)
    if example is None:
        return  # the operator has no float operand to vary
    operands = [as_float(o, dtype) for o in example.draw(rng)]
    check_variants(runtime, op, example, operands)


def check_variants(runtime: str, op: OpDef, example: Example, operands: list[Array | None]) -> None:
    processor = open_opencl(runtime)
    call = example.call(op, operands)
    support = processor.supports(call)
    if not support.yes:
        assert support.reason
        return
    expected = expected_outputs(op, call, operands)
    *fast, last = applicable(processor, op, call)
    naive = _run(processor, call, operands, last.name)
    assert_agrees(op, call, naive, expected)
    for variant in fast:
        actual = _run(processor, call, operands, variant.name)
        assert_agrees(op, call, actual, expected)
        assert_agrees(op, call, actual, naive)


def applicable(processor: OpenCLProcessor, op: OpDef, call: OpCall) -> list[Variant]:
    """Variants that execute a call, the naive one last; none if the processor refuses it."""
    variants = KERNELS[op.identifier].variants
    return [v for v in variants if v.applies(call, processor.facts) is None]


def _run(
    processor: OpenCLProcessor, call: OpCall, operands: list[Array | None], variant: str
) -> list[Array]:
    region = Region.alone(call)
    executable = compile_region(region, processor.facts, processor.name, variant)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    return run_region(processor, region, executable, values)


def _has_float_sample(example: Example, rng: np.random.Generator) -> bool:
    return any(o is not None and o.dtype.kind == "f" for o in example.draw(rng))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_refusal_is_the_exception(runtime: str, rng: np.random.Generator) -> None:
    """Every operator with kernels runs on every runtime; of all examples few are refused."""
    processor = open_processor(runtime)
    refused = total = 0
    for op in OPS:
        calls = [example.call(op, example.draw(rng)) for example in op.examples]
        supported = sum(processor.supports(call).yes for call in calls)
        assert supported, f"{op.identifier}: no example runs on {runtime}"
        refused += len(calls) - supported
        total += len(calls)
    assert refused < 0.03 * total


def test_every_family_has_a_name_of_its_own_and_is_reachable() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert {id(family) for family in (*FAMILIES, *INTERNAL)} == {id(f) for f in KERNELS.values()}
