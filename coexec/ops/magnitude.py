"""How large tensors are in all: one number, finite exactly where all their elements are.

Training in float16 looks at it before parameters change. The sum is float32 whatever the operands
are, so that no sum of float16 gradients overflows that has none that did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample, Work

MAGNITUDE = "Magnitude"
RESULT = TensorType((), np.dtype(np.float32))


def infer(call: OpCall) -> Sequence[TensorType]:
    """A float32 scalar."""
    if not call.inputs:
        raise ValueError(f"{MAGNITUDE}: no operand")
    for index in range(len(call.inputs)):
        if not is_float(call.input(index).dtype):
            raise ValueError(f"{MAGNITUDE}: {call.input(index)} holds no floats")
    return (RESULT,)


def reference(_call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Sums of magnitudes in float64, rounded once."""
    total = sum(np.abs(np.asarray(each, np.float64)).sum() for each in operands)
    return (np.asarray(total, np.float32),)


def work(call: OpCall) -> Work:
    """An addition for each element, all of which are read once."""
    kinds = [call.input(index) for index in range(len(call.inputs))]
    return Work(sum(kind.size for kind in kinds), sum(kind.nbytes for kind in kinds))


def body(call: OpCall) -> ir.Function:
    """``ReduceL1`` of each operand in float32, and the sum of those."""
    b = FunctionBuilder(call)
    sums = []
    for value in b.inputs:
        wide = b.op("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        sums.append(b.op("ReduceL1", [wide], {"keepdims": 0}))
    return b.function([b.op("Sum", sums)])


OPS = (
    OpDef(
        MAGNITUDE,
        infer,
        reference,
        domain=COEXEC,
        not_differentiable="it looks at gradients",
        work=work,
        examples=(
            Example((Sample((3, 5)),), gradient=False),
            Example((Sample((1037,)), Sample(()), Sample((2, 3, 4, 5))), gradient=False),
            Example((Sample((70, 400)), Sample((0, 3)), Sample((5, 7), "float16")), gradient=False),
            Example(tuple(Sample((i + 1, 3)) for i in range(60)), gradient=False),
        ),
        body=body,
    ),
)
