"""Convolutions and their inputs' gradients on GPUs: tiles of work-groups (conv_tiled.cl).

A work-group of 64 or 128 items sums a tile of the result. It brings steps of both operands to
local memory, or its items read them where they lie: that is for GPUs whose local memory is plain
memory (Mali), and for few rows, of which tiles would stand empty. Where results alone are too few
to occupy the device, the sum is cut, and another kernel adds its parts up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import gcd, prod

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.conv_products import flattened
from coexec.processors.opencl.kernels.packed import matches as refuse_type
from coexec.processors.opencl.kernels.tiles import (
    COLUMNS,
    THIN,
    Tile,
    divided,
    parts_bytes,
    refuse_groups,
    suited_tile,
    type_defines,
)
from coexec.processors.opencl.kernels.window import Triple, Window, refuse_convolution

FEW_TAPS, MOST_TAPS = 32, 256
"""Taps that the table in local memory has room for."""
TAP_BYTES = 20
SUM_ITEMS = 64
"""Items of a group that adds parts up."""


@dataclass(frozen=True)
class Tiled:
    """A convolution, or with ``back`` its input's gradient, in the terms of conv_tiled.cl.

    ``rows`` and ``channels`` are those of a group; ``a`` are the strides of the weights between
    groups, rows and channels; x has ``source`` positions, y ``result``.
    """

    rows: int
    channels: int
    images: int
    groups: int
    a: Triple
    source: Triple
    result: Triple
    kernel: Triple
    strides: Triple
    pads: Triple
    dilations: Triple
    back: bool
    flat: bool

    @classmethod
    def of(cls, call: OpCall) -> Tiled:
        """The product of Conv, ConvTranspose or ConvInputGrad."""
        w = flattened(Window.of(call))
        forward = call.identifier == "Conv"
        filters = w.outer * w.inner * w.taps
        return cls(
            w.outer if forward else w.inner,
            w.inner if forward else w.outer,
            w.batch,
            w.groups,
            (filters, w.inner * w.taps, w.taps) if forward else (filters, w.taps, w.inner * w.taps),
            w.in_size if forward else w.out_size,
            w.out_size if forward else w.in_size,
            w.kernel,
            w.strides,
            w.pads,
            w.dilations,
            not forward and not w.pointwise,
            w.pointwise and w.pixels % COLUMNS == 0,
        )

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def size(self) -> int:
        """Elements of the result."""
        return self.images * self.groups * self.rows * prod(self.result)

    @property
    def phases(self) -> int:
        """Sets of positions that read different taps."""
        if not self.back:
            return 1
        return prod(min(s, o) for s, o in zip(self.strides, self.result, strict=True))

    @property
    def columns(self) -> int:
        """Columns of the longest phase."""
        if not self.back:
            return self.images * prod(self.result)
        sizes = (-(-o // s) for s, o in zip(self.strides, self.result, strict=True))
        return self.images * prod(sizes)

    @property
    def depth(self) -> int:
        """Terms of the sums of the phase that has the most."""
        return self.channels * self.phase_taps

    @property
    def phase_taps(self) -> int:
        return prod(-(-k // e) for k, e in zip(self.kernel, self.steps, strict=True))

    @property
    def aligned(self) -> bool:
        """Whether four columns from a multiple of 4 on are one vector of the result."""
        plain = not self.back or self.strides == (1, 1, 1)
        return plain and prod(self.result) % COLUMNS == 0

    @property
    def steps(self) -> Triple:
        """Taps between those that a phase reads."""
        if not self.back:
            return (1, 1, 1)
        a, b, c = (s // gcd(s, d) for s, d in zip(self.strides, self.dilations, strict=True))
        return a, b, c


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why tiles do not fit this convolution, else ``None``."""
    if call.identifier == "coexec::ConvWeightGrad":
        return "the gradient of the weights sums over positions"
    return refuse_tiles(call, facts)


def refuse_tiles(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why neither a convolution nor a gradient of its weights is done in tiles, else ``None``."""
    refusal = refuse_convolution(call, facts) or refuse_type(call.output(0).dtype)
    if refusal:
        return refusal
    return refuse_groups(facts)


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The tile that wastes and reads the least, of those that occupy the device."""
    t = Tiled.of(call)
    staged = t.phase_taps <= MOST_TAPS
    return suited_tile(t.rows, t.columns, t.groups * t.phases, facts, staged=staged)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """The product, and the sum of its parts where it is cut."""
    y = call.output(0)
    if y.size == 0:
        return Lowering(())
    t, tile = Tiled.of(call), Tile.of(params)
    staged = bool(params["STAGED"]) and tile.rows != THIN and t.phase_taps <= MOST_TAPS
    room = FEW_TAPS if t.phase_taps <= FEW_TAPS else MOST_TAPS
    tile = tile.within(facts.local_bytes - room * TAP_BYTES, y.dtype, COLUMNS)
    tasks = -(-t.columns // tile.columns) * -(-t.rows // tile.rows) * t.groups * t.phases
    # Parts have whole steps; without steps, whole channels.
    unit, units = (tile.terms, t.depth) if staged else (1, t.channels)
    parts, span = divided(t.depth, units, unit, tasks, facts, params)
    bias = inp(2) if call.has_input(2) else None
    to = out(0) if parts == 1 else scratch(0)
    kernel = replace(
        product_call(
            *(t, (inp(0), inp(1), bias if parts == 1 else None, to), tile, y.dtype),
            staged=staged,
            parts=parts,
            span=span,
        ),
        bytes=call.input(0).nbytes + call.input(1).nbytes + parts_bytes(y, parts),
    )
    if parts == 1:
        return Lowering((kernel,))
    return summed(kernel, call, parts, bias, (prod(t.result), t.rows * t.groups))


def product_call(
    t: Tiled,
    operands: tuple[Operand, Operand, Operand | None, Operand],
    tile: Tile,
    dtype: np.dtype[np.generic],
    *,
    staged: bool,
    parts: int,
    span: int,
) -> KernelCall:
    """The kernel of a product of x, weights and perhaps a bias, in ``parts`` of ``span`` units."""
    x, weights, bias, to = operands
    across, along = -(-t.columns // tile.columns), -(-t.rows // tile.rows)
    return KernelCall(
        family="conv_tiled",
        entry="conv_tiled",
        args=(
            *(x, weights, bias or weights, to),
            *map(i32, (bias is not None, t.rows, t.channels, t.images, t.groups)),
            *map(i32, (parts, span, t.size, *t.a, *t.source, *t.result, *t.kernel)),
            *map(i32, (*t.strides, *t.pads, *t.dilations, *t.steps)),
        ),
        global_size=(
            across * tile.items[0],
            along * tile.items[1],
            t.groups * parts * t.phases,
        ),
        local_size=(*tile.items, 1),
        defines={
            **tile.defines(dtype),
            "STAGED": int(staged),
            "BACK": int(t.back),
            "FLAT": int(t.flat),
            "ALIGNED": int(t.aligned),
            "PARTS": int(parts > 1),
            "ROOM": FEW_TAPS if t.phase_taps <= FEW_TAPS else MOST_TAPS,
        },
        flop=2 * t.images * t.groups * t.rows * t.channels * t.taps * _positions(t),
        finishes="tensors",
    )


def _positions(t: Tiled) -> int:
    """Positions at which every tap is used once: those of the convolution's result."""
    return prod(t.source) if t.back else prod(t.result)


def summed(
    kernel: KernelCall,
    call: OpCall,
    parts: int,
    bias: Operand | None = None,
    places: tuple[int, int] = (1, 1),
) -> Lowering:
    """A kernel that leaves ``parts`` of sums in scratch, and the one that adds them up.

    ``places``: elements for which the bias stays, and numbers of the bias.
    """
    y = call.output(0)
    nbytes = parts_bytes(y, parts)
    adding = KernelCall(
        family="conv_sum",
        entry="conv_sum",
        args=(
            *(scratch(0), bias or inp(1), out(0)),
            *map(i32, (int(bias is not None), y.size, parts, *places)),
        ),
        global_size=(ceil_to(y.size, SUM_ITEMS),),
        local_size=(SUM_ITEMS,),
        defines=type_defines(y.dtype),
        flop=parts * y.size,
        bytes=nbytes + y.nbytes,
        finishes="tensors",
    )
    return Lowering((replace(kernel, finishes="nothing"), adding), (nbytes,))
