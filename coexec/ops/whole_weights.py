"""Weights that were integers behind a DequantizeLinear, found again from their floats.

Loading computes what is constant ahead, which makes such weights floats. Symmetric scales are found
again from them, and with the scales the very same integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coexec.core.types import Array

LARGEST = (127, 128, 64, 63)
"""Of symmetric 8-bit weights, by quantisers: all bits, -128 in use, and with a bit to spare."""
INT8 = np.iinfo(np.int8)
WHOLE = 1e-3
"""How far from an integer a weight over its scale may be, by rounding."""


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
            values = np.rint(weights / scale)
            exact = np.abs(weights / scale - values).max(initial=0.0) < WHOLE
            if exact and INT8.min <= values.min(initial=0) and values.max(initial=0) <= INT8.max:
                return Quantised(values.astype(np.int8), scale.reshape(() if axis is None else -1))
    return None
