"""Weights that were integers behind a DequantizeLinear, found again from their floats.

Loading computes what is constant ahead, which makes such weights floats. Symmetric scales are found
again from them, and with the scales the very same integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coexec.core.types import Array

LARGEST = (127, 128, 64, 63)
"""Of symmetric 8-bit weights, by quantisers: all bits, -128 in use, and with a bit to spare."""
INT8 = np.iinfo(np.int8)
WHOLE = 1e-3
"""How far from an integer a weight over its scale may be, by rounding."""
NEIGHBOURS = 2
"""Floats on either side of a scale that was found again from rounded products."""
SAMPLE = 256
"""Weights that are looked at before all are."""


@dataclass(frozen=True)
class Quantised:
    """Integers with the scale of each output channel, or one scale."""

    values: Array
    scale: Array


def quantised(weights: Array, by_channel: bool) -> Quantised | None:
    """Symmetric 8-bit integers with one scale, or one a channel; ``None`` if they are not whole.

    Channels are the first axis of ``weights``, floats of any rank.
    """
    axes = [None, tuple(range(1, weights.ndim))] if by_channel else [None]
    for axis in axes:
        largest = np.abs(weights).max(axis=axis, keepdims=True)
        for most in LARGEST:
            scale = np.where(largest > 0, largest / most, 1).astype(np.float32)
            if not _may_be_whole(weights, scale):
                continue
            ratio = weights / scale
            values = np.rint(ratio)
            exact = np.abs(ratio - values).max(initial=0.0) < WHOLE
            if exact and INT8.min <= values.min(initial=0) and values.max(initial=0) <= INT8.max:
                return Quantised(values.astype(np.int8), scale.reshape(() if axis is None else -1))
    return None


@dataclass(frozen=True)
class Exactly:
    """int8 ``values`` and float32 ``scale``, whose products are the weights bit for bit.

    ``axis`` is the one along which scales differ; ``None``: there is one scale.
    """

    values: Array
    scale: Array
    axis: int | None


def exactly(weights: Array) -> Exactly | None:
    """Symmetric 8-bit integers whose DequantizeLinear is ``weights``, float32; else ``None``.

    Scales are one, or one for each entry of the first or of the last axis.
    """
    if weights.dtype != np.float32 or not weights.size or not np.isfinite(weights).all():
        return None
    for axis in dict.fromkeys((None, 0, weights.ndim - 1) if weights.ndim > 1 else (None,)):
        others = None if axis is None else tuple(i for i in range(weights.ndim) if i != axis)
        largest = np.abs(weights).max(axis=others, keepdims=True)
        for most in LARGEST:
            scale = np.where(largest > 0, largest / np.float32(most), 1).astype(np.float32)
            found = _products(weights, scale, axis) if _may_be_whole(weights, scale) else None
            if found is not None:
                return found
    return None


def _may_be_whole(weights: Array, scale: Array) -> bool:
    """Whether the first weights are whole multiples of their scales."""
    few = np.broadcast_to(scale, weights.shape).reshape(-1)[:SAMPLE]
    ratio = weights.reshape(-1)[:SAMPLE] / few
    return bool(np.abs(ratio - np.rint(ratio)).max(initial=0.0) < WHOLE)


def _products(weights: Array, scale: Array, axis: int | None) -> Exactly | None:
    """Integers, and of each scale the neighbour whose products are the weights to the bit."""
    whole = np.rint(weights / scale)
    if whole.min() < INT8.min or whole.max() > INT8.max:
        return None
    values, others = whole.astype(np.int8), tuple(i for i in range(weights.ndim) if i != axis)
    chosen, open_ = scale.copy(), np.ones(scale.shape, bool)
    for each in _neighbours(scale):
        same = (values * each).view(np.int32) == weights.view(np.int32)
        fits = open_ & same.all(axis=None if axis is None else others, keepdims=True)
        chosen[fits] = each[fits]
        open_ &= ~fits
        if not open_.any():
            return Exactly(values, chosen.reshape(() if axis is None else -1), axis)
    return None


def _neighbours(scale: Array) -> Iterator[Array]:
    """A scale, then the floats next to it."""
    yield scale
    for towards in (np.float32(0), np.float32(np.inf)):
        near = scale
        for _ in range(NEIGHBOURS):
            near = np.nextafter(near, towards)
            yield near
