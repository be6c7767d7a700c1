"""Products of bytes with a known matrix, and what makes floats of their sums.

``MatMulInteger``, or with ``Cast -> Mul -> Add`` behind it: so ONNX Runtime's quantiser writes a
linear layer whose operand is quantised while the model runs. The weights are signed bytes, whose
words of four meet words of unsigned ones; what belongs to columns is filled up to whole vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.integer_products import centred, wrapped
from coexec.ops.opdef import OpDef, Work
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.integer_operators import LANES

A, A_ZERO, A_SCALE, WEIGHTS, ZEROS, SCALES, BIAS = range(7)
"""Operands: unsigned bytes (..., rows, depth), their zero points (one, or one a row), their scale
(one float; absent where the result is int32); int8 weights (depth, columns), their int32 zero
points (absent where all are 0), float32 scales (absent with ``A_SCALE``) and float32 bias."""
OPTIONAL = {A_ZERO, A_SCALE, ZEROS, SCALES, BIAS}


def stored_columns(columns: int) -> int:
    """Columns with those that fill up the last vector."""
    return -(-columns // LANES) * LANES


def result_type(a: TensorType, weights: TensorType, scaled: bool) -> TensorType:
    """The product's shape, as floats where it is scaled."""
    dtype = np.dtype(np.float32 if scaled else np.int32)
    return TensorType((*a.shape[:-1], weights.shape[1]), dtype)


def infer(call: OpCall) -> Sequence[TensorType]:
    """Sums, or floats."""
    return (result_type(call.input(A), call.input(WEIGHTS), call.has_input(A_SCALE)),)


def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Exact sums modulo 2^32; then ``float(sum) * (scale of a * scale) + bias``, in float32."""
    given = (*operands, *(None,) * (BIAS + 1 - len(operands)))
    columns = call.input(WEIGHTS).shape[1]
    zeros, scales, bias = (
        None if given[i] is None else np.asarray(given[i])[:columns] for i in (ZEROS, SCALES, BIAS)
    )
    a = centred(given[A], given[A_ZERO], column=True)
    sums = wrapped(np.asarray(np.matmul(a, centred(given[WEIGHTS], zeros, column=False))))
    if scales is None:
        return (sums,)
    scale = np.asarray(given[A_SCALE], np.float32).reshape(()) * scales.astype(np.float32)
    result = sums.astype(np.float32) * scale
    return (np.asarray(result if bias is None else result + bias.astype(np.float32)),)


def work(call: OpCall) -> Work:
    """Two operations a product; operands are read once, the result is written once."""
    flop = 2 * call.output(0).size * call.input(WEIGHTS).shape[0]
    kinds = (*call.inputs, *call.outputs)
    return Work(flop, sum(kind.nbytes for kind in kinds if kind is not None))


INTEGER_MATMUL = OpDef(
    "IntegerMatMul",
    infer,
    reference,
    domain=FUSED,
    not_differentiable="made after differentiation",
    work=work,
)


def kinds_of(call: OpCall) -> tuple[str, ...]:
    """The operators that it is made of."""
    kinds: tuple[str, ...] = call.attributes["kinds"]
    return kinds
