"""16-bit floats in references: computed in float32, rounded once at the end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall
from coexec.ops.opdef import Reference

HALVES = ("float16", "bfloat16")


def widened(reference: Reference) -> Reference:
    """``reference`` that sees float32 for 16-bit float operands and returns the outputs' types."""

    @wraps(reference)
    def run(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
        if all(o is None or o.dtype.name not in HALVES for o in operands):
            return reference(call, operands)
        wide = [_widen(o) for o in operands]
        results = reference(call, wide)
        return tuple(
            np.asarray(result) if kind is None else np.asarray(result).astype(kind.dtype)
            for result, kind in zip(results, call.outputs, strict=False)
        )

    return run


def _widen(operand: Array | None) -> Array | None:
    if operand is None or operand.dtype.name not in HALVES:
        return operand
    return operand.astype(np.float32)
