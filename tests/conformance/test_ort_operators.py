"""Every operator's examples on ONNX Runtime, against the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import Array, OpCall
from coexec.ops.opdef import OpDef
from coexec.ops.random_numbers import DRAWING
from coexec.ops.table import OPERATORS
from coexec.processors.find import open_processor
from tests.running import as_float, assert_agrees, expected_outputs, run_call

SPEC = "ort:cpu"
VALUE_DEPENDENT = {
    ("DynamicQuantizeLinear", 3): "the scale of zeros is anything; theirs is 1",
    ("OneHot", 3): "ONNX Runtime cuts fractions of indices from 1.32 on",
}
"""Examples whose result differs by the data, which no processor knows when it is asked."""
NOT_RUN = frozenset(
    f"coexec::{name}"
    for name in (
        *("GridSampleInputGrad", "GridSampleGridGrad"),
        *("CumProdGrad", "BernoulliMask", "Adam8bit", "Momentum8bit"),
        *("CompressBlocks", "DecompressBlocks", "PackBits", "UnpackBits", "SelectByBits"),
        *("MaxPoolTaps", "MaxPoolTapsGrad", "PageOut", "PageIn", "PageWait"),
        *("JointNormalization", "JointNormalizationGrad", "RandomNumbers", "Im2Col"),
        "RoiAlignGrad",
    )
) | frozenset(DRAWING)
"""They have no function body, or draw their own numbers there: they run elsewhere."""


@pytest.mark.parametrize("op", OPERATORS.values(), ids=lambda op: op.identifier)
def test_every_example_agrees_with_the_reference(op: OpDef) -> None:
    agreed = 0
    for index, example in enumerate(op.examples):
        if (op.identifier, index) in VALUE_DEPENDENT:
            continue
        operands = example.draw(np.random.default_rng(1234))
        agreed += agrees_or_is_refused(op, example.call(op, operands), operands)
    assert agreed > 0 or op.identifier in NOT_RUN


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("op", OPERATORS.values(), ids=lambda op: op.identifier)
def test_other_float_types_agree_with_the_reference(op: OpDef, dtype: str) -> None:
    for example in op.examples:
        drawn = example.draw(np.random.default_rng(1234))
        if any(operand is not None and operand.dtype.kind == "f" for operand in drawn):
            operands = [as_float(operand, dtype) for operand in drawn]
            agrees_or_is_refused(op, example.call(op, operands), operands)
            return


def agrees_or_is_refused(op: OpDef, call: OpCall, operands: list[Array | None]) -> bool:
    processor = open_processor(SPEC)
    support = processor.supports(call)
    if not support.yes:
        assert support.reason
        return False
    actual = run_call(processor, call, operands)
    assert_agrees(op, call, actual, expected_outputs(op, call, operands))
    return True


def test_a_refusal_is_the_exception() -> None:
    processor = open_processor(SPEC)
    rng = np.random.default_rng(1234)
    bodied = [op for op in OPERATORS.values() if op.identifier not in NOT_RUN]
    calls = [e.call(op, e.draw(rng)) for op in bodied for e in op.examples]
    refused = [call for call in calls if not processor.supports(call).yes]
    assert len(refused) < 0.04 * len(calls)
