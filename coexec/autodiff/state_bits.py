"""States of an optimizer in other bits: a training that changes its budget takes them along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coexec.core.types import Array, TensorType
from coexec.ops.optim_8bit import (
    BLOCK,
    CODE,
    SIGNED,
    UNSIGNED,
    blocks_of,
    dequantize_state,
    quantize_state,
)

SCALE = "_scale"
"""Behind the name of a state in 8 bits: the scales of its blocks."""
NEVER_NEGATIVE = "#second_moment"


SMALLEST_IN_8_BITS = 4096
"""Elements below which states keep the parameter's own type."""

SINGLE = np.dtype(np.float32)


def in_8_bits(parameter: TensorType, state_bits: int) -> bool:
    """Whether an optimizer of so many bits keeps the states of this parameter in 8."""
    large = parameter.size >= SMALLEST_IN_8_BITS
    return state_bits == 8 and parameter.dtype == SINGLE and large


def state_types(
    names: Sequence[str], parameter: TensorType, state_bits: int
) -> Mapping[str, TensorType]:
    """Types of states by name: like the parameter, or codes with a scale for every block."""
    if not in_8_bits(parameter, state_bits):
        return dict.fromkeys(names, parameter)
    codes = TensorType(parameter.shape, CODE)
    scales = TensorType((blocks_of(parameter, BLOCK),), SINGLE)
    return {key: kind for n in names for key, kind in ((n, codes), (f"{n}_scale", scales))}


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
