"""Gemm, MatMul and TransposedMatMul as one description: sizes, strides and broadcast batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.processors.opencl.family import DeviceFacts, Scalar, refuse_types

BATCH_LEVELS = 4
"""Levels of the batch index that kernels understand (after merging axes)."""

Level = tuple[int, int, int]
"""Extent, stride of A, stride of B of one level of the batch index."""


@dataclass(frozen=True)
class Product:
    """Y[b] = alpha A[b] B[b] + beta C with element strides of every operand.

    ``A`` is rows x depth, ``B`` depth x columns, ``Y`` contiguous (batch, rows, columns). ``c`` is
    the stride pair of C (0 where broadcast), ``None`` without C.
    """

    rows: int
    columns: int
    depth: int
    a: tuple[int, int]
    b: tuple[int, int]
    c: tuple[int, int] | None
    batch: tuple[Level, ...]
    alpha: float
    beta: float

    @property
    def batches(self) -> int:
        count = 1
        for extent, _, _ in self.batch:
            count *= extent
        return count

    @classmethod
    def of(cls, call: OpCall) -> Product:
        """Describe a call of Gemm, MatMul, or MatMul with a vector for its rows."""
        return _gemm(call) if call.op_type == "Gemm" else _matmul(call)


def _gemm(call: OpCall) -> Product:
    rows, columns = call.output(0).shape
    a_shape, b_shape = call.input(0).shape, call.input(1).shape
    trans_a, trans_b = bool(call.attribute("transA", 0)), bool(call.attribute("transB", 0))
    c = None
    if call.has_input(2):
        shape = (1, 1, *call.input(2).shape)[-2:]
        c = (0 if shape[0] == 1 else shape[1], 0 if shape[1] == 1 else 1)
    return Product(
        rows,
        columns,
        a_shape[0] if trans_a else a_shape[1],
        (1, a_shape[1]) if trans_a else (a_shape[1], 1),
        (1, b_shape[1]) if trans_b else (b_shape[1], 1),
        c,
        (),
        float(call.attribute("alpha", 1.0)),
        float(call.attribute("beta", 1.0)),
    )


def _matmul(call: OpCall) -> Product:
    """Of matrices that lie transposed, strides change places."""
    a, b = call.input(0).shape, call.input(1).shape
    a = a if len(a) > 1 else (1, *a)
    b = b if len(b) > 1 else (*b, 1)
    trans_a, trans_b = bool(call.attribute("transA", 0)), bool(call.attribute("transB", 0))
    rows, depth = a[:-3:-1] if trans_a else a[-2:]
    columns = b[-2] if trans_b else b[-1]
    levels = batch_levels(a[:-2], b[:-2], rows * depth, depth * columns)
    shared = len(levels) == 1 and bool(levels[0][1]) and not levels[0][2]
    if shared and not trans_a:
        # One B for a contiguous batch of A: the batch is more rows.
        rows, levels = rows * levels[0][0], ()
    c = (0, 1) if call.has_input(2) else None
    a_strides = (1, rows) if trans_a else (depth, 1)
    b_strides = (1, depth) if trans_b else (columns, 1)
    return Product(rows, columns, depth, a_strides, b_strides, c, levels, 1.0, 1.0)


def batch_levels(
    a: tuple[int, ...], b: tuple[int, ...], a_block: int, b_block: int
) -> tuple[Level, ...]:
    """Broadcast batch axes as levels, outermost first; axes that step alike are merged."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    levels: list[Level] = []
    for a_extent, b_extent in zip(reversed(a), reversed(b), strict=True):
        extent = max(a_extent, b_extent) if min(a_extent, b_extent) else 0
        if extent != 1:
            a_stride = a_block if a_extent > 1 else 0
            b_stride = b_block if b_extent > 1 else 0
            if levels and _continues(levels[-1], a_stride, b_stride):
                levels[-1] = (levels[-1][0] * extent, *levels[-1][1:])
            else:
                levels.append((extent, a_stride, b_stride))
        a_block, b_block = a_block * a_extent, b_block * b_extent
    return tuple(reversed(levels))


def _continues(inner: Level, a_stride: int, b_stride: int) -> bool:
    extent, inner_a, inner_b = inner
    return a_stride == extent * inner_a and b_stride == extent * inner_b


def padded_levels(product: Product) -> list[Level]:
    """Exactly ``BATCH_LEVELS`` levels, the missing outer ones of extent 1."""
    return [(1, 0, 0)] * (BATCH_LEVELS - len(product.batch)) + list(product.batch)


def accumulator(dtype: np.dtype[np.generic]) -> str:
    """NumPy name of the type sums are kept in: float32 for float16, else the type itself."""
    return "float32" if dtype.name == "float16" else dtype.name


def coefficient(value: float, kind: TensorType) -> Scalar:
    """``alpha`` or ``beta`` as a kernel argument in the type of the sums."""
    name = accumulator(kind.dtype)
    return Scalar(value if kind.dtype.kind == "f" else int(value), name)


def refuse_product(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why no kernel here computes this product, else ``None``."""
    refusal = refuse_types((*call.inputs, *call.outputs), facts)
    if refusal:
        return refusal
    product = Product.of(call)
    if len(product.batch) > BATCH_LEVELS:
        return f"batch axes broadcast in more than {BATCH_LEVELS} levels"
    factors = (product.alpha, product.beta)
    if call.output(0).dtype.kind != "f" and any(f != int(f) for f in factors):
        return f"fractional alpha or beta {factors} with {call.output(0).dtype.name}"
    return None
