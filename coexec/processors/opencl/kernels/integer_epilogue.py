"""How kernels finish sums of products of bytes: arguments and defines (integer_conv.cl)."""

from __future__ import annotations

from coexec.processors.opencl.family import Argument, Operand, f32
from coexec.processors.opencl.fusion.integer_operators import IntegerLayer

Defines = dict[str, str | int | float]


def epilogue(
    own: IntegerLayer, other: Operand
) -> tuple[tuple[Argument, ...], tuple[Argument, ...], Defines]:
    """Arguments of a residual (none without), the zero point behind them, and bounds."""
    defines: Defines = {"LOW": own.low, "HIGH": own.high}
    zero = (f32(own.result.zero),)
    added = own.residual
    if added is None:
        return (), zero, defines
    steps = added.steps
    defines |= {"RESIDUAL": 1, "LAST_LOW": added.low, "LAST_HIGH": added.high}
    ratios = (own.result.scale / steps.scale, added.other.scale / steps.scale)
    numbers = (*ratios, added.other.zero, steps.zero)
    return (other, *map(f32, numbers)), zero, defines
