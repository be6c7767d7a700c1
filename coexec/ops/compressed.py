"""Activations in few bits: blocks of integers between two ends, and one bit for each test.

Block-wise quantisation with its own ends for every block: Chen et al., "ActNN: reducing training
memory footprint via 2-bit activation compressed training", 2021 (arXiv 2104.14129).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample, Work

BLOCK = 64
"""Values of a block."""

WORD = 32
"""Bits of the integers that codes lie in."""

UINT32 = np.dtype(np.uint32)
NO_GRADIENT = "made after differentiation"

NARROWEST = 1e-30
"""Ends of a block that are no further apart count as equal."""


def bits_of(call: OpCall) -> int:
    """Bits of a code.

    Raises:
        ValueError: other than 4 or 8.
    """
    bits = int(call.attribute("bits", 8))
    if bits not in (4, 8):
        raise ValueError(f"{call.identifier}: codes have 4 or 8 bits, not {bits}")
    return bits


def shape_of(call: OpCall) -> tuple[int, ...]:
    """Shape of the tensor that was compressed."""
    shape = call.attribute("shape")
    if shape is None:
        raise ValueError(f"{call.identifier}: attribute shape is missing")
    return tuple(int(n) for n in shape)


def blocks_of(size: int) -> int:
    """Blocks of a tensor with so many elements."""
    return -(-size // BLOCK)


def code_bytes(size: int, dtype: np.dtype[Any], bits: int) -> int:
    """Of a tensor in blocks: codes, and two ends for each block."""
    return blocks_of(size) * (BLOCK * bits // 8 + 2 * compute_type(dtype).itemsize)


def compute_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What ends are kept and codes are computed in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def infer_compress(call: OpCall) -> Sequence[TensorType]:
    x = call.input(0)
    if not is_float(x.dtype):
        raise ValueError(f"{call.identifier} needs a floating-point operand, got {x.dtype.name}")
    blocks = blocks_of(x.size)
    codes = TensorType((blocks, BLOCK * bits_of(call) // WORD), UINT32)
    return codes, TensorType((blocks, 2), compute_type(x.dtype))


def compress(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Codes (blocks, words) and ends (blocks, 2): the least and the largest value of each block.

    Code 0 stands for the lower end alone and the last code for the upper one alone, so that what
    is above 0 (or below 6) stays so, and the gradients of Relu and Clip pass where they should.
    Word w of a block holds values w, w + words, w + 2 words, ... in its bits from the lowest on:
    vectors of words are made from vectors of values. The last block is filled with its last value.
    """
    kind, levels = compute_type(call.input(0).dtype), 2 ** bits_of(call) - 1
    flat = np.asarray(operands[0]).astype(kind).reshape(-1)
    short = blocks_of(flat.size) * BLOCK - flat.size
    x = np.pad(flat, (0, short), "edge" if flat.size else "constant").reshape(-1, BLOCK)
    low, high = x.min(axis=1, initial=np.inf), x.max(axis=1, initial=-np.inf)
    span = high - low
    wide = span > NARROWEST
    rate = (np.asarray(levels, kind) / np.where(wide, span, 1)).astype(kind)
    codes = np.rint((x - low[:, None]) * rate[:, None])
    codes = np.where(x > low[:, None], np.maximum(codes, 1), codes)
    codes = np.where(x < high[:, None], np.minimum(codes, levels - 1), codes)
    codes = np.where(wide[:, None], codes, 0).astype(np.uint32)
    return _into_words(codes, bits_of(call)), np.stack([low, high], axis=1).astype(kind)


def _into_words(codes: Array, bits: int) -> Array:
    """(blocks, BLOCK) codes to (blocks, words)."""
    places = codes.reshape(len(codes), WORD // bits, -1)
    words = np.zeros((len(codes), places.shape[2]), np.uint32)
    for place in range(WORD // bits):
        words |= places[:, place] << np.uint32(place * bits)
    return words


def _from_words(words: Array, bits: int) -> Array:
    """(blocks, words) to (blocks, BLOCK) codes."""
    places = [words >> np.uint32(i * bits) & np.uint32(2**bits - 1) for i in range(WORD // bits)]
    return np.concatenate(places, axis=1)


def infer_decompress(call: OpCall) -> Sequence[TensorType]:
    shape, ends = shape_of(call), call.input(1)
    size = int(np.prod(shape, dtype=np.int64))
    expected = (blocks_of(size), BLOCK * bits_of(call) // WORD)
    if call.input(0) != TensorType(expected, UINT32):
        raise ValueError(f"{call.identifier}: codes {call.input(0)} are not uint32{expected}")
    if ends.shape != (expected[0], 2):
        raise ValueError(f"{call.identifier}: ends {ends} are not two for each block")
    dtype = np.dtype(call.attribute("dtype", ends.dtype.name))
    return (TensorType(shape, dtype),)


def decompress(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Between the ends in even steps, the ends themselves exactly."""
    kind, shape = call.output(0), shape_of(call)
    words, ends = operands
    wide = compute_type(kind.dtype)
    codes = _from_words(words, bits_of(call)).astype(wide)
    share = codes * wide.type(1 / (2 ** bits_of(call) - 1))
    low, high = (ends[:, i : i + 1].astype(wide) for i in (0, 1))
    values = low * (1 - share) + high * share
    return (values.reshape(-1)[: kind.size].reshape(shape).astype(kind.dtype),)


def compress_work(call: OpCall) -> Work:
    """Two comparisons for the ends, six operations for the code."""
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(8 * call.input(0).size, moved)


def decompress_work(call: OpCall) -> Work:
    """Shift, mask, conversion and four operations between the ends."""
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(7 * call.output(0).size, moved)


def _compress_examples() -> tuple[Example, ...]:
    shapes = ((4, 3, 8, 8), (67,), ())
    return tuple(
        Example((Sample(shape),), {"bits": bits}, 2, gradient=False)
        for bits in (8, 4)
        for shape in shapes
    )


def _decompress_examples() -> tuple[Example, ...]:
    found = []
    for bits in (8, 4):
        for shape in ((4, 3, 8, 8), (67,), ()):
            blocks = blocks_of(int(np.prod(shape)))
            codes = Sample((blocks, BLOCK * bits // WORD), "uint32", 0, 2**32)
            attributes = {"bits": bits, "shape": shape}
            found.append(Example((codes, Sample((blocks, 2))), attributes, gradient=False))
    return tuple(found)


OPS = (
    OpDef(
        "CompressBlocks",
        infer_compress,
        compress,
        domain=COEXEC,
        not_differentiable=NO_GRADIENT,
        work=compress_work,
        examples=_compress_examples(),
    ),
    OpDef(
        "DecompressBlocks",
        infer_decompress,
        decompress,
        domain=COEXEC,
        not_differentiable=NO_GRADIENT,
        work=decompress_work,
        examples=_decompress_examples(),
    ),
)
