"""Products with weights of 4 or 8 bits that stay packed in bytes: ONNX Runtime's MatMulNBits.

(.., K) times the transposed of (N, K), whose blocks along K have scales and zero points of their
own. Forms and defaults are those of ONNX Runtime's docs/ContribOperators.md. Training multiplies
with the weights that the body computes, so that scales have gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import Example, OpDef, Sample, Work
from coexec.ops.precision import widened

ONNX_RUNTIME = "com.microsoft"
A, PACKED, SCALES, ZEROS = range(4)
BYTE = 8
WIDTHS = (4, 8)
"""Bits of a weight: a byte holds a whole number of them, the lowest bits first."""
LEAST_BLOCK = 16


@dataclass(frozen=True)
class PackedProduct:
    """Sizes of a call: ``rows`` x ``depth`` times ``depth`` x ``columns``.

    A column has ``blocks`` of ``block`` weights of ``bits`` bits; what its last block has beyond
    ``depth`` counts for nothing.
    """

    rows: int
    columns: int
    depth: int
    bits: int
    block: int

    @classmethod
    def of(cls, call: OpCall) -> PackedProduct:
        """``ValueError`` says which operand or attribute does not fit."""
        a, packed, scales = (call.input(index) for index in (A, PACKED, SCALES))
        columns, depth, block = (int(call.attribute(n, 0)) for n in ("N", "K", "block_size"))
        bits = int(call.attribute("bits", 4))
        if min(columns, depth) < 1 or block < LEAST_BLOCK or block & (block - 1):
            raise ValueError(f"MatMulNBits: N {columns}, K {depth}, blocks of {block}")
        if bits not in WIDTHS or any(call.has_input(index) for index in (4, 5)):
            raise ValueError(f"MatMulNBits: {bits} bits, or operands that are not covered")
        rows = a.size // depth
        found = cls(rows, columns, depth, bits, block)
        shape = (columns, found.blocks, block * bits // BYTE)
        if not a.rank or a.shape[-1] != depth or packed != TensorType(shape, np.dtype(np.uint8)):
            raise ValueError(f"MatMulNBits: {a} times {packed}, expected uint8 {shape}")
        count = columns * found.blocks
        if not is_float(a.dtype) or scales.dtype != a.dtype or scales.size != count:
            raise ValueError(f"MatMulNBits: scales {scales} of {packed} for {a}")
        found._check_zeros(call)
        return found

    @property
    def blocks(self) -> int:
        return -(-self.depth // self.block)

    @property
    def zero_bytes(self) -> int:
        """Bytes of a column's packed zero points."""
        return -(-self.blocks * self.bits // BYTE)

    def _check_zeros(self, call: OpCall) -> None:
        if not call.has_input(ZEROS):
            return
        zeros = call.input(ZEROS)
        each = self.zero_bytes if zeros.dtype == np.uint8 else self.blocks
        known = zeros.dtype in (np.dtype(np.uint8), call.input(A).dtype)
        if not known or zeros.size != self.columns * each:
            raise ValueError(f"MatMulNBits: zero points {zeros} of {call.input(PACKED)}")


def infer_packed_product(call: OpCall) -> Sequence[TensorType]:
    p, a = PackedProduct.of(call), call.input(A)
    return (a.with_shape((*a.shape[:-1], p.columns)),)


def unpacked(packed: Array, bits: int) -> Array:
    """Bytes (.., n) as whole numbers below 2 to the power of ``bits``: (.., n * 8 / bits)."""
    places = np.arange(0, BYTE, bits, dtype=np.uint8)
    parts = (packed[..., None] >> places) & np.uint8(2**bits - 1)
    return np.asarray(parts.reshape(*packed.shape[:-1], -1))


@widened
def packed_product(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """The weights, then the product."""
    p = PackedProduct.of(call)
    a, packed, scales = operands[: SCALES + 1]
    zeros = operands[ZEROS] if call.has_input(ZEROS) else None
    middle: Any = 2 ** (p.bits - 1)
    if zeros is not None:
        if zeros.dtype == np.uint8:
            zeros = unpacked(zeros.reshape(p.columns, -1), p.bits)[:, : p.blocks]
        middle = zeros.reshape(p.columns, p.blocks, 1).astype(a.dtype)
    values = unpacked(packed, p.bits).astype(a.dtype) - middle
    weights = (values * scales.reshape(p.columns, p.blocks, 1)).reshape(p.columns, -1)
    return (np.matmul(a, weights[:, : p.depth].T),)


def packed_product_work(call: OpCall) -> Work:
    """As that of any product; weights move as they are packed."""
    p = PackedProduct.of(call)
    kinds = [kind for kind in (*call.inputs, *call.outputs) if kind is not None]
    return Work(2 * p.rows * p.columns * p.depth, sum(kind.nbytes for kind in kinds))


def packed_product_body(call: OpCall) -> ir.Function:
    """The weights in standard operators, then MatMul."""
    p, b = PackedProduct.of(call), FunctionBuilder(call)
    scales = b.op("Reshape", [b.inputs[SCALES], b.shape([p.columns, p.blocks, 1])])
    bytes_of = _unpacking(b, b.inputs[PACKED], p.bits)
    values = b.op("Reshape", [bytes_of, b.shape([p.columns, p.blocks, p.block])])
    centred = b.op("Sub", [b.op("CastLike", [values, scales]), _zeros(b, call, p, scales)])
    width = p.blocks * p.block
    flat = b.op("Reshape", [b.op("Mul", [centred, scales]), b.shape([p.columns, width])])
    weights = b.op("Transpose", [_first(b, flat, p.depth)], {"perm": (1, 0)})
    return b.function([b.op("MatMul", [b.inputs[A], weights])])


def _unpacking(b: FunctionBuilder, packed: ir.Value, bits: int) -> ir.Value:
    """Bytes (.., n) as uint8 (.., n, 8 / bits)."""
    mask = b.constant([2**bits - 1], "uint8")
    parts = []
    for shift in range(0, BYTE, bits):
        by = b.constant([shift], "uint8")
        moved = b.op("BitShift", [packed, by], {"direction": "RIGHT"})
        parts.append(b.op("Unsqueeze", [b.op("BitwiseAnd", [moved, mask]), b.shape([-1])]))
    return b.op("Concat", parts, {"axis": -1})


def _zeros(b: FunctionBuilder, call: OpCall, p: PackedProduct, scales: ir.Value) -> ir.Value:
    """Zero points (N, blocks, 1) in the type of ``scales``; without any the middle."""
    if not call.has_input(ZEROS):
        return b.op("CastLike", [b.constant(2 ** (p.bits - 1), "float32"), scales])
    zeros = b.inputs[ZEROS]
    if call.input(ZEROS).dtype == np.uint8:
        zeros = b.op("Reshape", [zeros, b.shape([p.columns, p.zero_bytes])])
        zeros = b.op("Reshape", [_unpacking(b, zeros, p.bits), b.shape([p.columns, -1])])
        zeros = _first(b, zeros, p.blocks)
    zeros = b.op("Reshape", [zeros, b.shape([p.columns, p.blocks, 1])])
    return b.op("CastLike", [zeros, scales])


def _first(b: FunctionBuilder, value: ir.Value, count: int) -> ir.Value:
    """The first columns: what is behind them fills up a block or a byte."""
    return b.op("Slice", [value, b.shape([0]), b.shape([count]), b.shape([1])])


def _example(
    rows: tuple[int, ...],
    columns: int,
    depth: int,
    block: int,
    bits: int = 4,
    zeros: str = "",
) -> Example:
    blocks = -(-depth // block)
    points = {
        "": None,
        "packed": Sample((columns * -(-blocks * bits // BYTE),), "uint8", 0, 256),
        "floats": Sample((columns, blocks), low=4, high=12),
    }
    operands = (
        Sample((*rows, depth)),
        Sample((columns, blocks, block * bits // BYTE), "uint8", 0, 256),
        Sample((columns * blocks,), low=0.01, high=0.1),
        points[zeros],
    )
    sizes = {"N": columns, "K": depth, "bits": bits, "block_size": block}
    return Example(operands, sizes, gradient=False)


MATMUL_NBITS = OpDef(
    "MatMulNBits",
    infer_packed_product,
    packed_product,
    domain=ONNX_RUNTIME,
    not_differentiable="training multiplies with the weights that its body computes",
    work=packed_product_work,
    body=packed_product_body,
    examples=(
        _example((1,), 70, 64, 32),
        _example((1, 1), 33, 100, 16, zeros="packed"),
        _example((3,), 40, 96, 32, zeros="floats"),
        _example((2, 3), 17, 40, 16, bits=8),
        _example((5,), 50, 200, 64, bits=8, zeros="packed"),
        _example((9,), 130, 128, 128, zeros="packed"),
        _example((2,), 3, 20, 16),
        _example((1,), 2, 16, 16, bits=8, zeros="packed"),
    ),
)

OPS = (MATMUL_NBITS,)
