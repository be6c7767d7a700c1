"""States of an optimizer in other bits: a training that changes its budget takes them along."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import Array, TensorType
from coexec.ops.optim_8bit import (
    BLOCK,
    CODE,
    SIGNED,
    UNSIGNED,
    dequantize_state,
    quantize_state,
)

SCALE = "_scale"
"""Behind the name of a state in 8 bits: the scales of its blocks."""
NEVER_NEGATIVE = "#second_moment"


def state_as(name: str, kind: TensorType, held: Mapping[str, Array]) -> Array | None:
    """The value of state ``name`` in type ``kind``, from states as they are held; none: unknown.

    Float states become codes and scales, and the other way round.
    """
    whole = name.removesuffix(SCALE)
    unsigned = UNSIGNED if whole.endswith(NEVER_NEGATIVE) else SIGNED
    found = held.get(name)
    if found is None:
        if whole == name or whole not in held:
            return None
        return quantize_state(held[whole], BLOCK, unsigned)[1]
    if found.dtype == kind.dtype:
        return found
    if kind.dtype == CODE:
        return quantize_state(found, BLOCK, unsigned)[0]
    if found.dtype == CODE:
        return dequantize_state(found, held[name + SCALE], BLOCK, unsigned)
    return found
