"""Every OpDef's own examples: the shape rule and the reference say the same."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.ops.opdef import Example, OpDef
from coexec.ops.table import OPERATORS

CASES = [
    pytest.param(op, example, id=f"{op.identifier}-{i}")
    for op in OPERATORS.values()
    for i, example in enumerate(op.examples)
]


@pytest.mark.parametrize(("op", "example"), CASES)
def test_shape_rule_agrees_with_reference(
    op: OpDef, example: Example, rng: np.random.Generator
) -> None:
    operands = example.draw(rng)
    call = example.call(op, operands)
    results = op.reference(call, operands)
    assert len(call.outputs) == example.outputs
    for kind, result in zip(call.outputs, results, strict=False):
        assert kind is not None
        assert (kind.shape, kind.dtype) == (np.shape(result), np.asarray(result).dtype)


@pytest.mark.parametrize(("op", "example"), CASES)
def test_work_is_counted(op: OpDef, example: Example, rng: np.random.Generator) -> None:
    call = example.call(op, example.draw(rng))
    work = op.work(call)
    assert work.flop >= 0
    assert work.bytes >= 0


@pytest.mark.parametrize("op", OPERATORS.values(), ids=OPERATORS.keys())
def test_operator_is_completely_declared(op: OpDef) -> None:
    assert op.examples, f"{op.identifier} has no example"
    assert op.gradient is not None or op.not_differentiable, (
        f"{op.identifier} has neither a gradient rule nor a reason why not"
    )
