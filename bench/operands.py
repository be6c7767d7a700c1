"""Seeded operands, the same in every worker: a case's spec names their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]


def operand(shape: list[int] | tuple[int, ...], low: float = -1.0, high: float = 1.0) -> Any:
    """The entry of a spec for a float32 operand, uniform in [low, high)."""
    return {"shape": list(shape), "low": low, "high": high}


def draw(operands: Mapping[str, Any]) -> Arrays:
    """The operands of a case, each seeded by its name and drawn as its entry says.

    Only raw uniform numbers are asked of NumPy, whose stream every version shares.
    """
    drawn: Arrays = {}
    for name, entry in operands.items():
        rng = np.random.default_rng(crc32(name.encode()))
        unit = rng.random(entry["shape"], dtype=np.float32)
        width = np.float32(entry["high"] - entry["low"])
        drawn[name] = unit * width + np.float32(entry["low"])
    return drawn
