"""One bit for each element: where a value lies between bounds, and what passes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.compressed import NO_GRADIENT, UINT32, WORD, shape_of
from coexec.ops.elementwise import BOOL, is_float
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample, streaming_work

LANES = 8
"""Neighbours that go to the same bit of as many words."""

BLOCK = LANES * WORD
"""Values whose bits lie in ``LANES`` words: bit i of word w is that of value i * LANES + w."""


def words_of(size: int) -> int:
    """Words that hold so many bits."""
    return -(-size // BLOCK) * LANES


def bounds_of(call: OpCall) -> tuple[float | None, float | None]:
    """What values are to be above and below; ``None`` where there is no such bound."""
    found = [call.attribute(name) for name in ("above", "below")]
    low, high = (None if bound is None else float(bound) for bound in found)
    return low, high


def infer_pack(call: OpCall) -> Sequence[TensorType]:
    x = call.input(0)
    if x.dtype != BOOL and not is_float(x.dtype):
        raise ValueError(f"{call.identifier} needs booleans or floats, got {x.dtype.name}")
    if (x.dtype == BOOL) != (bounds_of(call) == (None, None)):
        raise ValueError(f"{call.identifier}: bounds are for floats, and floats need one")
    return (TensorType((words_of(x.size),), UINT32),)


def pack(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Ones where x is true, or above < x < below."""
    x, (low, high) = np.asarray(operands[0]), bounds_of(call)
    inside = x if x.dtype == BOOL else np.ones(x.shape, np.bool_)
    if low is not None:
        inside = inside & (x > x.dtype.type(low))
    if high is not None:
        inside = inside & (x < x.dtype.type(high))
    flat = inside.reshape(-1)
    bits = np.pad(flat, (0, words_of(flat.size) * WORD - flat.size)).reshape(-1, WORD, LANES)
    words = np.zeros((len(bits), LANES), np.uint32)
    for place in range(WORD):
        words |= bits[:, place].astype(np.uint32) << np.uint32(place)
    return (words.reshape(-1),)


def unpacked(words: Array, shape: tuple[int, ...]) -> Array:
    """The booleans that :func:`pack` was given."""
    places = np.arange(WORD, dtype=np.uint32)[:, None]
    bits = (words.reshape(-1, 1, LANES) >> places & np.uint32(1)).astype(np.bool_)
    size = int(np.prod(shape, dtype=np.int64))
    return bits.reshape(-1)[:size].reshape(shape)


def _check_words(call: OpCall, size: int) -> None:
    expected = TensorType((words_of(size),), UINT32)
    if call.input(0) != expected:
        raise ValueError(f"{call.identifier}: bits {call.input(0)} are not {expected}")


def infer_unpack(call: OpCall) -> Sequence[TensorType]:
    shape = shape_of(call)
    _check_words(call, int(np.prod(shape, dtype=np.int64)))
    return (TensorType(shape, BOOL),)


def unpack(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (unpacked(operands[0], shape_of(call)),)


def infer_select(call: OpCall) -> Sequence[TensorType]:
    _check_words(call, call.input(1).size)
    return (call.input(1),)


def select(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Operand 1 where the bit is set, 0 elsewhere."""
    words, x = operands
    kept = np.where(unpacked(words, call.input(1).shape), x, 0)
    return (kept.astype(np.asarray(x).dtype),)


SHAPES = ((4, 3, 8, 8), (2, 5, 7, 31), ())


def _words(shape: tuple[int, ...]) -> Sample:
    return Sample((words_of(int(np.prod(shape))),), "uint32", 0, 2**32)


OPS = (
    OpDef(
        "PackBits",
        infer_pack,
        pack,
        domain=COEXEC,
        not_differentiable=NO_GRADIENT,
        work=streaming_work(8),
        examples=(
            *(Example((Sample(s),), {"above": 0.0}, gradient=False) for s in SHAPES),
            Example((Sample((5, 67)),), {"above": -0.5, "below": 0.25}, gradient=False),
            Example((Sample((5, 67)),), {"below": 0.25}, gradient=False),
            Example((Sample((9, 67), "bool"),), gradient=False),
        ),
    ),
    OpDef(
        "UnpackBits",
        infer_unpack,
        unpack,
        domain=COEXEC,
        not_differentiable=NO_GRADIENT,
        work=streaming_work(2),
        examples=tuple(Example((_words(s),), {"shape": s}, gradient=False) for s in SHAPES),
    ),
    OpDef(
        "SelectByBits",
        infer_select,
        select,
        domain=COEXEC,
        not_differentiable=NO_GRADIENT,
        work=streaming_work(2),
        examples=tuple(Example((_words(s), Sample(s)), gradient=False) for s in SHAPES),
        in_place=((0, 1),),
    ),
)
