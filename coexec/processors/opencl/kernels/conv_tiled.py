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

from coexec.core.types import OpCall, TensorType
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.conv_products import flattened
from coexec.processors.opencl.kernels.packed import matches as refuse_type
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Triple, Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "STAGED": (1, 0),
    "TM": (32, 64, 16, 4),
    "TN": (64, 32),
    "TK": (16, 8, 32),
    "GROUPS": (4, 2, 8, 16),
}
"""Whether steps are brought to local memory, rows and columns of a tile, terms of a step, groups
per compute unit that are enough. Tiles of 4 rows are not staged and have four times the columns."""

COLUMNS = 4
"""Columns of an item."""
HIGH = 64
"""Rows of a tile from which on items have 8 of them; 4 below."""
THIN = 4
"""Rows of a tile that is four times as wide."""
TILES = ((64, 64), (32, 64), (16, 64), (32, 32))
"""Rows and columns of tiles of 64 or 128 items."""
READING = 8
"""What bringing a row or a column of a tile costs in terms of a row's or a column's sums."""
LEAST_ROWS = 9
"""Below, most of any other tile would stand empty."""
LEAST_ITEMS = 128
"""Of a work-group that the device takes."""
FEW_TAPS, MOST_TAPS = 32, 256
"""Taps that the table in local memory has room for."""
TAP_BYTES = 20
LEAST_SPAN = 64
"""Terms of a part of a sum."""
MOST_PARTS = 64
SUM_ITEMS = 64
"""Items of a group that adds parts up."""


@dataclass(frozen=True)
class Tile:
    """Rows and columns of the result that a work-group computes, and its terms of a step."""

    rows: int
    columns: int
    terms: int

    @property
    def height(self) -> int:
        """Rows of an item."""
        return 8 if self.rows >= HIGH else 4

    @property
    def items(self) -> tuple[int, int]:
        """Items of a group along columns and rows."""
        return self.columns // COLUMNS, self.rows // self.height

    @classmethod
    def of(cls, params: Mapping[str, int]) -> Tile:
        thin = params["TM"] == THIN
        return cls(params["TM"], params["TN"] * (4 if thin else 1), params["TK"])

    def local_bytes(self, dtype: np.dtype[np.generic], padding: int) -> int:
        """Size of a step in local memory, with ``padding`` elements beside each term."""
        sums = np.dtype(accumulator(dtype)).itemsize
        return self.terms * (self.rows + self.columns + padding) * sums

    def within(self, nbytes: int, dtype: np.dtype[np.generic], padding: int) -> Tile:
        """The same with steps that fit in so many bytes."""
        tile = self
        while tile.terms > 1 and tile.local_bytes(dtype, padding) > nbytes:
            tile = replace(tile, terms=tile.terms // 2)
        return tile

    def defines(self, dtype: np.dtype[np.generic]) -> dict[str, str | int | float]:
        """What conv_tile.cl is built with."""
        across, along = self.items
        shape = {"WX": across, "WY": along, "RM": self.height, "TK": self.terms}
        return type_defines(dtype) | shape


def type_defines(dtype: np.dtype[np.generic]) -> dict[str, str | int | float]:
    """What alone.cl is built with, but for the width of vectors."""
    sums = accumulator(dtype)
    return {"T": c_type(dtype), "ACC": c_type(np.dtype(sums)), "SAME": int(sums == dtype.name)}


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
    if facts.max_work_group_size < LEAST_ITEMS:
        return f"groups of {facts.max_work_group_size} items; tiles take {LEAST_ITEMS}"
    return None


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The tile that wastes and reads the least, of those that occupy the device."""
    t = Tiled.of(call)
    if t.rows < LEAST_ROWS:
        return {"STAGED": 0, "TM": THIN, "TN": 64}
    staged = {"STAGED": int(facts.on_chip and t.phase_taps <= MOST_TAPS)}
    return staged | best_tile(t.rows, t.columns, t.groups * t.phases, facts)


def best_tile(rows: int, columns: int, products: int, facts: DeviceFacts) -> dict[str, int]:
    """Of tiles that divide the results among all compute units, the one that costs the least."""

    def groups(tile: tuple[int, int]) -> int:
        height, width = tile
        return products * -(-rows // height) * -(-columns // width)

    def cost(tile: tuple[int, int]) -> float:
        height, width = tile
        computed = ceil_to(rows, height) * ceil_to(columns, width)
        return computed * (1 + READING / height + READING / width)

    enough = [tile for tile in TILES if groups(tile) >= 2 * facts.compute_units]
    height, width = min(enough or TILES, key=cost)
    return {"TM": height, "TN": width}


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


def divided(
    depth: int, units: int, unit: int, tasks: int, facts: DeviceFacts, params: Mapping[str, int]
) -> tuple[int, int]:
    """Parts of a sum of ``depth`` terms, and the units of each, multiples of ``unit``.

    As many as occupy the device where one part makes ``tasks`` work-groups.
    """
    wanted = -(-facts.compute_units * params["GROUPS"] // max(tasks, 1))
    parts = max(1, min(wanted, depth // LEAST_SPAN, MOST_PARTS))
    span = max(unit, ceil_to(-(-units // parts), unit))
    return max(1, -(-units // span)), span


def parts_bytes(y: TensorType, parts: int) -> int:
    """Size of the result, or of the parts of its sums where it is made of several."""
    if parts == 1:
        return y.nbytes
    return parts * y.size * np.dtype(accumulator(y.dtype)).itemsize


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
