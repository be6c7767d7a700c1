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


ERF_NUMERATOR = (
    -1.60960333262415e-02,
    -2.95459980854025e-03,
    -7.34990630326855e-04,
    -5.69250639462346e-05,
    -2.10102402082508e-06,
    2.77068142495902e-08,
    -2.72614225801306e-10,
)
ERF_DENOMINATOR = (
    -1.42647390514189e-02,
    -7.37332916720468e-03,
    -1.68282697438203e-03,
    -2.13374055278905e-04,
    -1.45660718464996e-05,
)


def erf_text(argument: str, dtype: np.dtype[Any]) -> str:
    """The error function of ``argument``, of type V.

    In float a rational function of x^2 on [-4, 4] (Eigen's ``generic_fast_erf_float``; error
    below 5e-7): the built-in is no vector code on CPUs. In double the built-in.
    """
    if dtype == np.float64:
        return f"erf({argument})"
    x = f"({argument} < (V)-4 ? (V)-4 : ({argument} > (V)4 ? (V)4 : {argument}))"
    square = f"({x} * {x})"
    return f"({x} * {_horner(ERF_NUMERATOR, square)} / {_horner(ERF_DENOMINATOR, square)})"


def _horner(coefficients: tuple[float, ...], x: str) -> str:
    """A float polynomial in ``x``, lowest power first."""
    text = ""
    for value in reversed(coefficients):
        number = f"(V){literal(value, np.dtype(np.float32))}"
        text = f"({text} * {x} + {number})" if text else number
    return text


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
