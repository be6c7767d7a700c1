"""Numbers and types as OpenCL C text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from coexec.processors.opencl.family import c_type

SIGNED = {1: "char", 2: "short", 4: "int", 8: "long"}


def literal(value: float, dtype: np.dtype[Any]) -> str:
    """``value`` as a constant of the type that ``dtype`` is computed in."""
    if dtype.kind != "f":
        return f"({int(value)})"
    suffix = "" if dtype == np.float64 else "f"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    if math.isnan(value):
        return "NAN"
    rounded = float(np.float32(value)) if suffix else float(value)
    return f"({rounded!r}{suffix})"


def compute_type(dtype: np.dtype[Any]) -> str:
    """Type that functions of an element are computed in: float for half, else its own."""
    return "float" if dtype == np.float16 else c_type(dtype)


def mask_type(dtype: np.dtype[Any]) -> str:
    """Signed integer of the same width: what comparing vectors of ``dtype`` yields."""
    return SIGNED[dtype.itemsize]


def lowest_literal(dtype: np.dtype[Any]) -> str:
    """What every value is at least: the maximum of nothing."""
    return _bound(dtype, lower=True)


def highest_literal(dtype: np.dtype[Any]) -> str:
    """The minimum of nothing."""
    return _bound(dtype, lower=False)


def _bound(dtype: np.dtype[Any], *, lower: bool) -> str:
    if dtype.kind == "f":
        return "(-INFINITY)" if lower else "INFINITY"
    if dtype.kind == "b":
        return "0" if lower else "1"
    kind = {"char": "CHAR", "short": "SHRT", "int": "INT", "long": "LONG"}
    prefix = kind[mask_type(dtype)]
    if dtype.kind == "u":
        return "0" if lower else f"U{prefix}_MAX"
    return f"{prefix}_{'MIN' if lower else 'MAX'}"
