"""Weights of few bits, which ONNX Runtime packs into bytes, in products and embeddings.

Products stay as they are. Embeddings that the model holds are unpacked when it is loaded; scales
are parameters: a training step computes the weights from them, inference did so once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError, UnsupportedOperators
from coexec.frontend.fused_attention import number, rank_of, size_of
from coexec.frontend.operands import NOT_COVERED, Results, Rewrite, kept, operand, required
from coexec.frontend.rewrite import Emitter
from coexec.frontend.schema import label
from coexec.frontend.unsupported import table
from coexec.ops.packed_product import BYTE, WIDTHS


def matmul(node: ir.Node, emit: Emitter) -> Results:
    """MatMulNBits: a (.., K) times the transposed of (N, K), whose blocks along K have scales.

    Operands are a, packed weights (N, blocks, bytes), scales (N blocks), zero points (packed as
    weights are, or floats), an order of K that is not covered, and a bias (N), added apart.
    ``UnsupportedOperators`` where something is not covered.
    """
    sizes = {name: _given(node, name) for name in ("N", "K", "block_size")}
    bits, bias = _given(node, "bits", 4), operand(node, 5)
    if bits not in WIDTHS or operand(node, 4) is not None:
        raise UnsupportedOperators(table([[node]]))
    a, packed, scales = (required(node, index) for index in range(3))
    operands = [a, packed, scales, operand(node, 3)]
    attributes = {**sizes, "bits": bits, **kept(node, "accuracy_level")}
    y = emit.op(node.op_type, operands, attributes, domain=node.domain)
    y.type = a.type
    return (y if bias is None else emit.op("Add", [y, bias]),)


def gather(node: ir.Node, emit: Emitter) -> Results:
    """GatherBlockQuantized: rows of packed weights (N, bytes), of which each block has a scale.

    Operands are the weights, indices, scales (N, blocks) and zero points, packed as weights are.
    """
    packed, scales, zero = required(node, 0), required(node, 2), operand(node, 3)
    bits, block = _given(node, "bits", 4), _given(node, "block_size", 128)
    axes = [number(node, "gather_axis", 0), number(node, "quantize_axis", 1)]
    width, blocks = size_of(packed, 1), size_of(scales, 1)
    if packed.dtype != ir.DataType.UINT8 or bits not in WIDTHS or axes not in ([0, 1], [0, -1]):
        return NOT_COVERED
    if rank_of(packed) != 2 or not width or not blocks or width * BYTE // bits != blocks * block:
        return NOT_COVERED
    indices = required(node, 1)
    line = emit.op("Reshape", [indices, emit.ints([-1])])
    rows = emit.op("Gather", [packed, line])
    values = emit.op("Reshape", [_unpacked(emit, rows, bits), emit.ints([-1, blocks, block])])
    factors = emit.op("Unsqueeze", [emit.op("Gather", [scales, line]), emit.ints([-1])])
    if zero is None:
        middle = emit.op("CastLike", [emit.constant(2 ** (bits - 1), np.float32), scales])
    else:
        points = _unpacked(emit, emit.op("Gather", [zero, line]), bits)
        places = BYTE // bits * -(-blocks * bits // BYTE)
        points = _first(emit, emit.op("Reshape", [points, emit.ints([-1, places])]), blocks)
        points = emit.op("Unsqueeze", [points, emit.ints([-1])])
        middle = emit.op("CastLike", [points, scales])
    centred = emit.op("Sub", [emit.op("CastLike", [values, scales]), middle])
    weights = emit.op("Mul", [centred, factors])
    shape = [emit.op("Shape", [indices]), emit.ints([blocks * block])]
    return (emit.op("Reshape", [weights, emit.op("Concat", shape, {"axis": 0})]),)


def _given(node: ir.Node, name: str, default: int = 0) -> int:
    """A positive integer attribute; ``ModelError`` where it is missing."""
    attribute = node.attributes.get(name)
    value = default if attribute is None else attribute.as_int()
    if value < 1:
        raise ModelError(f"{label(node)}: attribute {name!r} is missing or not positive")
    return value


def _unpacked(emit: Emitter, packed: ir.Value, bits: int) -> ir.Value:
    """Bytes (.., n) as integers below 2 to the power of ``bits``: uint8 (.., n, 8 / bits)."""
    mask = emit.constant([2**bits - 1], np.uint8)
    parts = []
    for shift in range(0, BYTE, bits):
        by = emit.constant([shift], np.uint8)
        moved = emit.op("BitShift", [packed, by], {"direction": "RIGHT"})
        part = emit.op("BitwiseAnd", [moved, mask])
        parts.append(emit.op("Unsqueeze", [part, emit.ints([-1])]))
    return emit.op("Concat", parts, {"axis": -1})


def _first(emit: Emitter, value: ir.Value, count: int) -> ir.Value:
    """The first columns: what is behind them fills up a block or a byte."""
    return emit.op("Slice", [value, emit.ints([0]), emit.ints([count]), emit.ints([1])])


OF_ONNX_RUNTIME: Mapping[str, Rewrite] = {
    "GatherBlockQuantized": gather,
    "MatMulNBits": matmul,
}
"""By name, in ``com.microsoft``."""
