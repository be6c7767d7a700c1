"""Where the operands and the result of a blocked product lie (packed.cl)."""

from __future__ import annotations

from dataclasses import dataclass

from coexec.processors.opencl.family import Operand
from coexec.processors.opencl.kernels.window import Triple

ONES: Triple = (1, 1, 1)
ZEROS: Triple = (0, 0, 0)


@dataclass(frozen=True)
class LeftSource:
    """Element (batch, m, channel, t) of A: ``base + strides``; ``count`` distinct matrices."""

    operand: Operand
    base: int
    batch: int
    row: int
    channel: int
    taps: Triple = ZEROS
    count: int = 1


@dataclass(frozen=True)
class Batch:
    """Two levels (extents ``outer``, ``inner``) with strides (outer, inner) of A and x.

    ``a`` counts packed matrices, the others elements; ``y`` and ``bias`` step by one flat index.
    """

    outer: int = 1
    inner: int = 1
    a: tuple[int, int] = (0, 0)
    x: tuple[int, int] = (0, 0)
    y: int = 0
    bias: int = 0

    @property
    def count(self) -> int:
        return self.outer * self.inner


ALONE = Batch()
"""One product."""


@dataclass(frozen=True)
class RightSource:
    """B as columns gathered from x (see packed.cl)."""

    operand: Operand
    size: int
    image: int
    channel: int
    extents: Triple = ONES
    strides: Triple = ONES
    pads: Triple = ZEROS
    dilations: Triple = ONES


@dataclass(frozen=True)
class Result:
    """Where Y's elements lie; ``columns`` = images * prod(sizes)."""

    operand: Operand
    row: int
    image: int
    sizes: Triple
    plane: tuple[int, int]
    steps: Triple = ONES
    phase: Triple = ZEROS


@dataclass(frozen=True)
class Bias:
    """Element (m, column) lies at ``m * row + column * column``."""

    operand: Operand
    row: int
    column: int
