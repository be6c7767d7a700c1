"""Exact products of 8-bit integers with zero points: MatMulInteger and ConvInteger.

Sums are exact, and modulo 2^32 where they leave 32 bits:
https://onnx.ai/onnx/operators/onnx__MatMulInteger.html, onnx__ConvInteger.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.conv import conv_work, correlate
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.matmul import infer_matmul, matmul_work
from coexec.ops.opdef import Example, OpDef, Sample

BYTES = (np.dtype(np.int8), np.dtype(np.uint8))
INT32 = np.dtype(np.int32)


def _check(call: OpCall, lengths: Sequence[int]) -> None:
    """``ValueError`` unless operands are bytes, and zero points one or one for each of ``lengths``.

    Zero points of a higher rank are checked by broadcasting.
    """
    for kind in (call.input(0), call.input(1)):
        if kind.dtype not in BYTES:
            raise ValueError(f"{call.op_type}: {kind} is not of 8-bit integers")
    for index, length in enumerate(lengths):
        if not call.has_input(2 + index):
            continue
        zero, operand = call.input(2 + index), call.input(index)
        if zero.dtype != operand.dtype:
            raise ValueError(f"{call.op_type}: zero point {zero} of {operand}")
        if zero.rank == 1 and zero.size not in (1, length):
            raise ValueError(f"{call.op_type}: zero points {zero} for {length}")


def infer_matmul_integer(call: OpCall) -> Sequence[TensorType]:
    a, b = call.input(0), call.input(1)
    _check(call, ((1, *a.shape)[-2], b.shape[-1] if b.rank > 1 else 1))
    for index, summed in ((0, -1), (1, -2)):
        if call.has_input(2 + index) and call.input(2 + index).rank > 1:
            shape, zero = call.input(index).shape, call.input(2 + index)
            if np.broadcast_shapes(shape, zero.shape) != shape or zero.shape[summed] != 1:
                raise ValueError(f"MatMulInteger: zero points {zero} of {call.input(index)}")
    (kind,) = infer_matmul(call)
    return (TensorType(kind.shape, INT32),)


def infer_conv_integer(call: OpCall) -> Sequence[TensorType]:
    g = ConvGeometry.of(call)
    _check(call, (1, g.out_channels))
    if any(call.has_input(index) and call.input(index).rank > 1 for index in (2, 3)):
        raise ValueError("ConvInteger: zero points of more than one axis")
    return (TensorType(g.out_shape, INT32),)


def centred(x: Any, zero: Any, column: bool) -> Array:
    """x minus its zero points, in float64, which holds products and sums of bytes exactly.

    ``column``: a vector of zero points has one for each row of ``x``, not for each column.
    """
    wide = np.asarray(x, np.float64)
    if zero is None:
        return wide
    zeros = np.asarray(zero, np.float64)
    return wide - (zeros.reshape(-1, 1) if column and zeros.ndim == 1 and wide.ndim > 1 else zeros)


def wrapped(sums: Array) -> Array:
    """Whole numbers as int32, modulo 2^32."""
    return sums.astype(np.int64).astype(np.int32)


def _zero(operands: Sequence[Any], index: int) -> Any:
    return operands[index] if index < len(operands) else None


def matmul_integer(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    a = centred(operands[0], _zero(operands, 2), column=True)
    b = centred(operands[1], _zero(operands, 3), column=False)
    return (wrapped(np.asarray(np.matmul(a, b))),)


def conv_integer(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Padding is worth nothing: it is the zero point of x."""
    g = ConvGeometry.of(call)
    x = centred(operands[0], _zero(operands, 2), column=False)
    w = centred(np.asarray(operands[1]).reshape(g.out_channels, -1), _zero(operands, 3), True)
    return (wrapped(correlate(x, w.reshape(g.weight_shape), g)),)


def _bytes(shape: tuple[int, ...], dtype: str = "uint8") -> Sample:
    return Sample(shape, dtype, -128 if dtype == "int8" else 0, 128 if dtype == "int8" else 256)


def _example(*inputs: Sample | None, **attributes: Any) -> Example:
    return Example(inputs, attributes, gradient=False)


def _known(shape: tuple[int, ...]) -> Sample:
    """Weights that never change."""
    return Sample(shape, I8, -128, 128, constant=True)


U8, I8 = "uint8", "int8"
EXTREME = Sample((3, 700), U8, 255, 256)
"""Rows whose sums of products leave the 24 bits that float32 counts in."""

OPS = (
    OpDef(
        "MatMulInteger",
        infer_matmul_integer,
        matmul_integer,
        not_differentiable="defined on integers only",
        work=matmul_work,
        examples=(
            _example(_bytes((5, 7)), _bytes((7, 3)), _bytes(()), _bytes((1,))),
            _example(_bytes((5, 70), I8), _bytes((70, 67), I8)),
            _example(_bytes((5, 70)), _bytes((70, 67), I8), _bytes(()), _bytes((67,), I8)),
            _example(_bytes((5, 9)), _bytes((9, 80), I8), None, _bytes((), I8)),
            _example(EXTREME, Sample((700, 130), U8, 254, 256), None, Sample((), U8, 0, 2)),
            _example(EXTREME, Sample((700, 66), I8, -128, -127), _bytes((3,)), _bytes((66,), I8)),
            _example(_bytes((2, 3, 5, 7)), _bytes((2, 3, 7, 33), I8), _bytes(())),
            _example(_bytes((3, 1, 5, 7)), _bytes((2, 7, 4)), _bytes((5,)), _bytes((4,))),
            _example(_bytes((2, 5, 7)), _bytes((7, 33)), _bytes((5,))),
            _example(_bytes((2, 5, 7)), _bytes((2, 7, 3)), _bytes((2, 5, 1)), _bytes((2, 1, 3))),
            _example(_bytes((7,)), _bytes((7, 19), I8)),
            _example(_bytes((1, 300)), _known((300, 75)), _bytes(()), _bytes((75,), I8)),
            _example(_bytes((2, 5, 70)), _known((70, 130)), _bytes(()), _bytes((), I8)),
            _example(_bytes((5, 7)), _bytes((7,), I8), _bytes(()), _bytes((), I8)),
        ),
    ),
    OpDef(
        "ConvInteger",
        infer_conv_integer,
        conv_integer,
        not_differentiable="defined on integers only",
        work=conv_work,
        examples=(
            _example(_bytes((1, 1, 3, 3)), _bytes((1, 1, 2, 2)), _bytes(())),
            _example(
                _bytes((2, 3, 9, 20)), _bytes((5, 3, 3, 3)), _bytes((1,)), _bytes(()),
                pads=(1, 1, 1, 1),
            ),
            _example(
                _bytes((1, 4, 9, 11)), _bytes((6, 2, 3, 2)), _bytes(()), _bytes((6,)),
                group=2, strides=(2, 3), pads=(1, 0, 2, 1), dilations=(1, 2),
            ),
            _example(
                _bytes((1, 6, 8, 21)), _bytes((6, 1, 3, 3)), _bytes(()), group=6,
                auto_pad="SAME_UPPER",
            ),
            _example(_bytes((2, 37, 5, 8)), _bytes((9, 37, 1, 1)), _bytes(()), _bytes((9,))),
            _example(_bytes((1, 4, 50)), _bytes((8, 4, 5)), strides=(2,)),
            _example(_bytes((1, 2, 3, 4, 5)), _bytes((3, 2, 2, 2, 2)), _bytes(())),
        ),
    ),
)  # fmt: skip
