"""Matrix products: Gemm, (batched) MatMul, and MatMul that reads matrices transposed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.precision import widened

Shape = tuple[int, ...]


def gemm_sizes(call: OpCall) -> tuple[int, int, int]:
    """(M, N, K) of a Gemm; raises ``ValueError`` where the operands do not fit."""
    a, b = call.input(0), call.input(1)
    if a.rank != 2 or b.rank != 2:
        raise ValueError(f"Gemm: {a} and {b} must be matrices")
    m, k = a.shape[::-1] if call.attribute("transA", 0) else a.shape
    k_of_b, n = b.shape[::-1] if call.attribute("transB", 0) else b.shape
    if k != k_of_b:
        raise ValueError(f"Gemm: inner sizes of {a} and {b} differ ({k} and {k_of_b})")
    return m, n, k


def infer_gemm(call: OpCall) -> Sequence[TensorType]:
    m, n, _ = gemm_sizes(call)
    if call.has_input(2):
        shape = call.input(2).shape
        if np.broadcast_shapes(shape, (m, n)) != (m, n):
            raise ValueError(f"Gemm: C {call.input(2)} does not broadcast to {m}x{n}")
    return (call.input(0).with_shape((m, n)),)


@widened
def gemm(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    a = operands[0].T if call.attribute("transA", 0) else operands[0]
    b = operands[1].T if call.attribute("transB", 0) else operands[1]
    y = call.attribute("alpha", 1.0) * np.matmul(a, b)
    if len(operands) > 2 and operands[2] is not None:
        y = y + call.attribute("beta", 1.0) * operands[2]
    return (y.astype(operands[0].dtype),)


def gemm_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    a, b, dy = s.value(0), s.value(1), s.grad()
    trans_a, trans_b = int(s.call.attribute("transA", 0)), int(s.call.attribute("transB", 0))
    alpha = float(s.call.attribute("alpha", 1.0))

    def product(left: ir.Value, right: ir.Value, trans_left: int, trans_right: int) -> ir.Value:
        flags = {"alpha": alpha, "transA": trans_left, "transB": trans_right}
        return s.op("Gemm", [left, right], flags)

    da = db = None
    if s.wanted[0]:
        da = product(b, dy, trans_b, 1) if trans_a else product(dy, b, 0, 1 - trans_b)
    if s.wanted[1]:
        db = product(dy, a, 1, trans_a) if trans_b else product(a, dy, 1 - trans_a, 0)
    return (da, db, _gemm_bias_gradient(s))[: len(s.inputs)]


def _gemm_bias_gradient(s: GradientScope) -> ir.Value | None:
    if not s.call.has_input(2) or not s.wanted[2]:
        return None
    beta = float(s.call.attribute("beta", 1.0))
    if beta == 1.0:
        return s.grad()
    return s.op("Mul", [s.grad(), s.constant(beta, s.call.output(0).dtype)])


def gemm_work(call: OpCall) -> Work:
    m, n, k = gemm_sizes(call)
    return Work(2 * m * n * k, _moved(call))


def _moved(call: OpCall) -> int:
    return sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)


def matmul_sizes(call: OpCall) -> tuple[Shape, int, int, int]:
    """(batch, M, N, K) of a MatMul; M or N is 1 where that operand is a vector.

    ``transA`` and ``transB`` of a TransposedMatMul count. Raises ``ValueError`` where the operands
    do not fit.
    """
    a, b = call.input(0), call.input(1)
    if a.rank == 0 or b.rank == 0:
        raise ValueError(f"MatMul: {a} and {b} must have at least one axis")
    m, k = (1, *a.shape)[-2:]
    if call.attribute("transA", 0):
        m, k = k, m
    k_of_b, n = b.shape[-2:] if b.rank > 1 else (b.shape[0], 1)
    if call.attribute("transB", 0):
        k_of_b, n = n, k_of_b
    if k != k_of_b:
        raise ValueError(f"MatMul: inner sizes of {a} and {b} differ ({k} and {k_of_b})")
    return np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n, k


def infer_matmul(call: OpCall) -> Sequence[TensorType]:
    batch, m, n, _ = matmul_sizes(call)
    a, b = call.input(0), call.input(1)
    rows = (m,) if a.rank > 1 else ()
    columns = (n,) if b.rank > 1 else ()
    return (a.with_shape((*batch, *rows, *columns)),)


@widened
def matmul(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.asarray(np.matmul(operands[0], operands[1])),)


@widened
def transposed_matmul(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Matrices are the last two axes; ``transA`` and ``transB`` as those of Gemm."""
    flags = (call.attribute("transA", 0), call.attribute("transB", 0))
    a, b = (np.swapaxes(x, -1, -2) if f else x for x, f in zip(operands, flags, strict=True))
    return (np.asarray(np.matmul(a, b)),)


def infer_transposed_matmul(call: OpCall) -> Sequence[TensorType]:
    if min(call.input(0).rank, call.input(1).rank) < 2:
        raise ValueError(f"TransposedMatMul: {call.input(0)} and {call.input(1)} must be matrices")
    return infer_matmul(call)


def transposed_matmul_body(call: OpCall) -> ir.Function | None:
    """Transposes of the last two axes in front of a MatMul."""
    b = FunctionBuilder(call)
    operands = []
    for value, kind, name in zip(b.inputs, call.inputs, ("transA", "transB"), strict=True):
        rank = 0 if kind is None else kind.rank
        perm = [*range(rank - 2), rank - 1, rank - 2]
        turned = call.attribute(name, 0)
        operands.append(b.op("Transpose", [value], {"perm": perm}) if turned else value)
    return b.function([b.op("MatMul", operands)])


def matmul_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """dA = dY Bt, dB = At dY; vectors are handled as matrices of one row or column.

    A batched A against one matrix B (a linear layer) becomes a single Gemm on flattened rows.
    """
    batch, m, n, k = matmul_sizes(s.call)
    a_type, b_type = s.call.input(0), s.call.input(1)
    a = s.value(0) if a_type.rank > 1 else _reshape(s, s.value(0), (1, k))
    b = s.value(1) if b_type.rank > 1 else _reshape(s, s.value(1), (k, 1))
    if b_type.rank <= 2:
        rows = prod(batch) * m
        a, dy = _reshape(s, a, (rows, k)), _reshape(s, s.grad(), (rows, n))
        da = s.op("Gemm", [dy, b], {"transB": 1}) if s.wanted[0] else None
        db = s.op("Gemm", [a, dy], {"transA": 1}) if s.wanted[1] else None
        return _reshape_to(s, da, a_type.shape), _reshape_to(s, db, b_type.shape)
    dy = _reshape(s, s.grad(), (*batch, m, n))
    da = s.op("MatMul", [dy, _swap(s, b)]) if s.wanted[0] else None
    db = s.op("MatMul", [_swap(s, a), dy]) if s.wanted[1] else None
    if a_type.rank == 1:
        da = _reshape_to(s, da, (*batch, k))
    return da, db


def _reshape(s: GradientScope, value: ir.Value, shape: Shape) -> ir.Value:
    if s.type_of(value).shape == shape:
        return value
    return s.op("Reshape", [value, s.constant(np.array(shape, np.int64), "int64")])


def _reshape_to(s: GradientScope, value: ir.Value | None, shape: Shape) -> ir.Value | None:
    return None if value is None else _reshape(s, value, shape)


def _swap(s: GradientScope, value: ir.Value) -> ir.Value:
    rank = s.type_of(value).rank
    return s.op("Transpose", [value], {"perm": (*range(rank - 2), rank - 1, rank - 2)})


def matmul_work(call: OpCall) -> Work:
    batch, m, n, k = matmul_sizes(call)
    return Work(2 * prod(batch) * m * n * k, _moved(call))


def _pair(a: Shape, b: Shape, *more: Shape, dtype: str = "float32", **attributes: Any) -> Example:
    return Example(tuple(Sample(shape, dtype) for shape in (a, b, *more)), attributes)


OPS = (
    OpDef(
        "Gemm",
        infer_gemm,
        gemm,
        gradient=gemm_gradient,
        work=gemm_work,
        examples=(
            _pair((5, 7), (7, 3)),
            _pair((5, 7), (7, 3), (3,), alpha=0.5, beta=2.0),
            _pair((7, 5), (7, 3), (5, 3), transA=1),
            _pair((5, 7), (3, 7), (5, 1), transB=1, alpha=0.25),
            _pair((7, 5), (3, 7), (), transA=1, transB=1, beta=0.5),
            _pair((33, 17), (17, 65), (1, 65)),
        ),
    ),
    OpDef(
        "MatMul",
        infer_matmul,
        matmul,
        gradient=matmul_gradient,
        work=matmul_work,
        examples=(
            _pair((5, 7), (7, 3)),
            _pair((2, 3, 5, 7), (2, 3, 7, 4)),
            _pair((2, 3, 5, 7), (7, 4)),
            _pair((3, 1, 5, 7), (2, 7, 4)),
            _pair((5, 7), (2, 7, 4)),
            _pair((7,), (7,)),
            _pair((7,), (2, 7, 4)),
            _pair((2, 5, 7), (7,)),
            _pair((7,), (7, 3)),
            _pair((5, 7), (7,)),
        ),
    ),
    OpDef(
        "TransposedMatMul",
        infer_transposed_matmul,
        transposed_matmul,
        domain=COEXEC,
        not_differentiable="made after differentiation",
        work=matmul_work,
        body=transposed_matmul_body,
        examples=(
            _pair((2, 3, 7, 5), (2, 3, 7, 4), transA=1),
            _pair((2, 3, 5, 7), (2, 3, 4, 7), transB=1),
            _pair((6, 7, 5), (6, 4, 7), transA=1, transB=1),
            _pair((3, 33, 17), (3, 33, 65), transA=1),
            _pair((3, 17, 33), (3, 65, 33), transB=1),
            _pair((3, 1, 7, 5), (2, 7, 4), transA=1),
            _pair((4, 7, 5), (7, 3), transA=1),
            _pair((7, 5), (3, 7), transA=1, transB=1),
        ),
    ),
)
