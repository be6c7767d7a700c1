"""Sums of outer products along positions (outer.cl): gradients of weights, products with B^T.

One operand is turned so that vectors run along its rows; the other is read where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from coexec.ops.compressed import BLOCK, code_bytes
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    Scalar,
    c_type,
    ceil_to,
    i32,
    inp,
    scratch,
)
from coexec.processors.opencl.kernels.packed import WIDE_VECTOR_BYTES
from coexec.processors.opencl.kernels.packed_operands import ZEROS
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.widen import is_narrow, widen
from coexec.processors.opencl.kernels.window import Triple, Window

SPACE: Mapping[str, tuple[int, ...]] = {
    "NV": (2, 3),
    "LENGTH": (256, 512, 1024),
    "SLOTS": (4, 2, 8),
    "CHANNELS": (256, 64, 128),
}
"""Vectors in a tile, positions in a panel, tasks per compute unit, channels in a task."""

LANE_BLOCKS = 4
"""Panels of a task: they share the list of positions."""
FEW_CHANNELS = 6
"""Below, tiles of channels of one tap would stand half empty: taps are rows of tiles as well."""
LEAST_PART = 512
"""Positions worth a part of their own."""
MOST_ROWS = 640
"""Rows of a task, whose sums for all its lanes are to stay in cache."""
TURNING = 10
"""Time to turn an element of y, in multiplications."""
LONG_PART, LONG_LENGTH = 2048, 512
"""Positions from which longer panels pay: fewer runs of x to start on, fewer visits to the sums."""
SPAN = 64
"""Rows that a work-item adds the parts of."""
LEAST_LANES = 4
WIDE_TILE_ROWS = {2: 12, 3: 8}
SHORT_TILE_ROWS = {2: 6, 3: 4}
"""Rows of a register tile by vectors: 32 registers come with vectors of 64 bytes, else 16."""


@dataclass(frozen=True)
class Outer:
    """W[lane, row] = alpha * sum over positions of y[lane] * B[row] + beta * bias.

    Row (channel, tap) of B is x[channel] moved by the tap. ``window`` has y's rows as output
    channels. ``strides`` are those of W between lanes, rows and groups, ``bias`` an operand with
    its strides between lanes and rows.
    """

    dtype: np.dtype[np.generic]
    window: Window
    x: Operand
    y: Operand
    result: Operand
    strides: Triple
    bias: tuple[Operand, int, int] | None = None
    alpha: float = 1.0
    beta: float = 1.0

    @property
    def sums(self) -> np.dtype[np.generic]:
        """The type in which is added."""
        return np.dtype(accumulator(self.dtype))


@dataclass(frozen=True)
class Division:
    """How the work is divided into tasks."""

    lanes: int
    tile_vectors: int
    tile_rows: int
    lane_blocks: int
    channels: int
    splits: int
    part: int
    tasks: int

    @property
    def block(self) -> int:
        """Rows of y in a panel."""
        return self.lanes * self.tile_vectors


def divide(o: Outer, facts: DeviceFacts, params: Mapping[str, int]) -> Division:
    """Parts of the positions first, then fewer rows of y in a task, then fewer channels."""
    w = o.window
    lanes, vectors = lanes_of(o.sums, facts), params["NV"]
    wanted = facts.compute_units * params["SLOTS"]
    blocks = -(-w.outer // (lanes * vectors))
    lane_blocks = even_block(blocks, LANE_BLOCKS)
    channels = even_block(w.inner, max(1, min(params["CHANNELS"], MOST_ROWS // w.taps)))
    columns = w.batch * w.pixels

    def tasks() -> int:
        return w.groups * -(-blocks // lane_blocks) * -(-w.inner // channels)

    splits = max(1, min(-(-wanted // tasks()), columns // LEAST_PART))
    part = max(1, -(-columns // splits))
    splits = max(1, -(-columns // part))
    while tasks() * splits < wanted and lane_blocks > 1:
        lane_blocks = -(-lane_blocks // 2)
    rows = tile_rows(facts, vectors)
    while tasks() * splits < wanted and channels > rows:
        channels = ceil_to(-(-channels // 2), rows)
    return Division(lanes, vectors, rows, lane_blocks, channels, splits, part, tasks() * splits)


def lanes_of(sums: np.dtype[np.generic], facts: DeviceFacts) -> int:
    """Elements in a register; four where the device computes on scalars."""
    return max(LEAST_LANES, facts.vector_bytes // sums.itemsize)


def tile_rows(facts: DeviceFacts, vectors: int) -> int:
    """Rows of a register tile of so many vectors."""
    wide = facts.vector_bytes >= WIDE_VECTOR_BYTES
    return (WIDE_TILE_ROWS if wide else SHORT_TILE_ROWS)[vectors]


def suited_vectors(o: Outer, facts: DeviceFacts) -> dict[str, int]:
    """The width of tiles that wastes the least."""
    return {"NV": min(SPACE["NV"], key=lambda vectors: cost(o, facts, vectors))}


def suited_length(o: Outer, facts: DeviceFacts) -> dict[str, int]:
    """Longer panels where vectors are short and positions many."""
    w = o.window
    short = facts.unit_kind == "cpu" and facts.vector_bytes < WIDE_VECTOR_BYTES
    return {"LENGTH": LONG_LENGTH} if short and w.batch * w.pixels >= LONG_PART else {}


def cost(o: Outer, facts: DeviceFacts, vectors: int) -> float:
    """Multiplications per position, where turning an element of y counts as TURNING of them."""
    w, rows = o.window, tile_rows(facts, vectors)
    lanes = ceil_to(w.outer, vectors * lanes_of(o.sums, facts))
    products = (
        ceil_to(w.inner * w.taps, rows) if few_channels(w) else ceil_to(w.inner, rows) * w.taps
    )
    return lanes * (products + TURNING)


def narrower(o: Outer, facts: DeviceFacts) -> Outer:
    """Of a pointwise convolution's gradient, the operands in the cheaper order."""
    w = o.window
    turned = replace(w, in_channels=w.out_channels, out_channels=w.in_channels)
    lane, row, group = o.strides
    other = replace(o, window=turned, x=o.y, y=o.x, strides=(row, lane, group))
    if not w.pointwise or o.bias is not None:
        return o
    return min((o, other), key=lambda p: min(cost(p, facts, n) for n in SPACE["NV"]))


def even_block(size: int, most: int) -> int:
    """The block of at most ``most`` that divides ``size`` most evenly."""
    return -(-size // max(1, -(-size // most)))


@dataclass(frozen=True)
class Codes:
    """An operand as blocks of codes of ``bits`` bits, and the window where they are expanded.

    ``columns`` is COLUMNS of outer.cl, ``held`` and ``pitch`` are its arguments; ``x_image`` and
    ``x_channel`` are the strides of x there.
    """

    bits: int
    ends: Operand
    columns: int
    held: int
    pitch: int
    elements: int
    x_image: int
    x_channel: int

    @classmethod
    def of(cls, o: Outer, d: Division, length: int, codes: tuple[int, Operand]) -> Codes:
        """``codes``: bits and ends of operand 0, whose words are o.x or o.y."""
        w = o.window
        image = w.in_channels * w.in_pixels
        if w.pointwise and o.x == inp(0):
            rows = d.channels * length
            return cls(*codes, 1, w.in_channels, 0, rows, w.in_pixels, length)
        if w.pointwise:
            rows = d.lane_blocks * d.block * length
            return cls(*codes, 2, w.out_channels, 0, rows, image, w.in_pixels)
        held = min((length + w.pixels - 2) // w.pixels + 1, w.batch)
        # Blocks begin in front of what is read, and end behind it.
        pitch = ceil_to(d.channels * w.in_pixels + 2 * BLOCK, BLOCK)
        return cls(*codes, 0, held, pitch, held * pitch, image, w.in_pixels)

    def moved(self, o: Outer) -> int:
        """Bytes of codes less those of the operand."""
        w = o.window
        y_size, x_size = w.out_channels * w.pixels, w.in_channels * w.in_pixels
        size = w.batch * (y_size if self.columns == 2 else x_size)
        return code_bytes(size, o.dtype, self.bits) - size * o.dtype.itemsize


def by_blocks(d: Division, columns: int) -> Division:
    """The same work in parts of whole blocks of codes."""
    part = ceil_to(d.part, BLOCK)
    splits = max(1, -(-columns // part))
    return replace(d, part=part, splits=splits, tasks=d.tasks // d.splits * splits)


def lower_outer(
    o: Outer,
    facts: DeviceFacts,
    params: Mapping[str, int],
    codes: tuple[int, Operand] | None = None,
) -> Lowering:
    """Copy x with its padding where taps are rows, widen 16 bits, multiply, add parts of positions.

    ``codes``: bits and ends of operand 0 where that is words; taps are no rows then.
    """
    w = o.window
    calls: list[KernelCall] = []
    if few_channels(w) and reads_padding(w):
        calls.append(widen_call(o, scratch(2)))
        w = widened(w)
        o = replace(o, window=w, x=scratch(2))
    elif is_narrow(o.dtype):
        calls.append(widen(o.x, w.batch * w.in_channels * w.in_pixels, o.dtype, scratch(2)))
        o = replace(o, x=scratch(2))
    d = divide(o, facts, params)
    if codes and w.pointwise:
        d = by_blocks(d, w.batch * w.pixels)
    slots = min(d.tasks, facts.compute_units * params["SLOTS"])
    rows = w.taps * w.inner
    sums = d.lane_blocks * w.taps * d.channels * d.block if d.splits == 1 else 0
    slot = d.lane_blocks * params["LENGTH"] * d.block + sums
    window = Codes.of(o, d, params["LENGTH"], codes) if codes else None
    slot += window.elements if window else 0
    parts = d.splits * w.groups * -(-w.outer // d.block) * d.block * rows if d.splits > 1 else 1
    calls.append(outer_call(o, d, slots, slot, params, window))
    if d.splits > 1:
        calls.append(finish_call(o, d, params))
    blocks = [slots * slot * o.sums.itemsize, parts * o.sums.itemsize]
    if o.x == scratch(2):
        blocks.append(w.batch * w.in_channels * w.in_pixels * o.sums.itemsize)
    return Lowering(tuple(calls), tuple(blocks))


MOST_WINDOW = 1 << 18
"""Bytes of a window: a part of the second cache."""


def refuse_codes(o: Outer, facts: DeviceFacts, params: Mapping[str, int]) -> str | None:
    """Why images of x cannot be expanded one after the other, else ``None``."""
    w = o.window
    if o.dtype != np.float32:
        return f"codes of {o.dtype.name} have kernels of their own"
    if few_channels(w) or o.bias is not None:
        return "x is read in another form"
    if w.pointwise and w.in_pixels % BLOCK:
        return "a block belongs to two planes"
    window = Codes.of(o, divide(o, facts, params), params["LENGTH"], (8, o.x))
    nbytes = window.elements * o.dtype.itemsize
    return f"a window of {nbytes} bytes leaves a cache" if nbytes > MOST_WINDOW else None


def few_channels(w: Window) -> bool:
    """Whether taps are rows of tiles."""
    return w.inner < FEW_CHANNELS and w.taps > 1


def reads_padding(w: Window) -> bool:
    """Whether a tap lies outside x somewhere, in front of it or behind."""
    pairs = zip(widened(w).in_size, w.in_size, strict=True)
    return w.pads != ZEROS or any(reach > size for reach, size in pairs)


def widened(w: Window) -> Window:
    """The window over x copied with its padding: as much as it reads."""
    reach = zip(w.out_size, w.strides, w.kernel, w.dilations, strict=True)
    a, b, c = ((n - 1) * s + (k - 1) * d + 1 for n, s, k, d in reach)
    return replace(w, in_size=(a, b, c), pads=ZEROS)


def types_of(o: Outer) -> dict[str, str | int | float]:
    return {"T": c_type(o.dtype), "ACC": c_type(o.sums), "SAME": int(o.dtype == o.sums)}


def defines(o: Outer, d: Division, params: Mapping[str, int]) -> dict[str, str | int | float]:
    return types_of(o) | {
        "V": d.lanes,
        "NV": d.tile_vectors,
        "MR": d.tile_rows,
        "LENGTH": params["LENGTH"],
        "PASSES": int(not few_channels(o.window)),
    }


def result_arguments(o: Outer, d: Division) -> tuple[Scalar, ...]:
    """RESULT of outer.cl."""
    w = o.window
    bias = (1, *o.bias[1:]) if o.bias else (0, 0, 0)
    factors = (Scalar(o.alpha, o.sums.name), Scalar(o.beta, o.sums.name))
    numbers = (*bias, *o.strides, w.groups, w.outer, w.inner, d.splits)
    return (*factors, *map(i32, numbers))


def widen_call(o: Outer, wide: Operand) -> KernelCall:
    """The kernel that copies x with its padding."""
    w = o.window
    size = widened(w).in_size
    planes = w.batch * w.in_channels
    return KernelCall(
        family="outer",
        entry="widen",
        args=(o.x, wide, *map(i32, (*w.in_size, *size, *w.pads))),
        global_size=(planes * size[0] * size[1],),
        defines=types_of(o) | {"STEP": 2},
        bytes=planes * (w.in_pixels * o.dtype.itemsize + prod(size) * o.sums.itemsize),
        layout=True,
    )


def outer_call(
    o: Outer,
    d: Division,
    slots: int,
    slot: int,
    params: Mapping[str, int],
    codes: Codes | None = None,
) -> KernelCall:
    """The kernel that multiplies."""
    w = o.window
    columns = w.batch * w.pixels
    numbers = (
        d.lane_blocks,
        d.channels,
        columns,
        d.part,
        codes.x_image if codes else w.in_channels * w.in_pixels,
        codes.x_channel if codes else w.in_pixels,
        w.out_channels * w.pixels,
        slot,
        d.tasks,
    )
    window = (*w.in_size, *w.out_size, *w.kernel, *w.strides, *w.pads, *w.dilations)
    bias = o.bias[0] if o.bias else o.x
    x: tuple[Argument, ...] = (o.x,)
    y: tuple[Argument, ...] = (o.y,)
    more: dict[str, str | int | float] = {}
    if codes:
        window_numbers = (slot - codes.elements, codes.held, codes.pitch)
        where: tuple[Argument, ...] = (codes.ends, *map(i32, window_numbers))
        x, y = ((o.x,), (o.y, *where)) if codes.columns == 2 else ((o.x, *where), (o.y,))
        more = {"BITS": codes.bits, "COLUMNS": codes.columns}
    operands = (*x, *y, bias, o.result, scratch(0), scratch(1))
    read = w.batch * (w.in_channels * w.in_pixels + w.out_channels * w.pixels)
    return KernelCall(
        family="outer",
        entry="outer",
        args=(*operands, *result_arguments(o, d), *map(i32, (*numbers, *window))),
        global_size=(slots,),
        local_size=(1,),
        defines={**defines(o, d, params), **more},
        flop=2 * columns * w.out_channels * w.inner * w.taps,
        bytes=(read + w.out_channels * w.inner * w.taps) * o.dtype.itemsize
        + (codes.moved(o) if codes else 0),
    )


def finish_call(o: Outer, d: Division, params: Mapping[str, int]) -> KernelCall:
    """The kernel that adds the parts of the positions."""
    w = o.window
    rows, blocks = w.inner * w.taps, w.groups * -(-w.outer // d.block)
    bias = o.bias[0] if o.bias else o.x
    return KernelCall(
        family="outer",
        entry="finish",
        args=(scratch(1), bias, o.result, *result_arguments(o, d), i32(rows)),
        global_size=(blocks, -(-rows // SPAN)),
        local_size=(1, 1),
        defines={**defines(o, d, params), "SPAN": SPAN, "STEP": 1},
        bytes=(d.splits + 1) * blocks * d.block * rows * o.sums.itemsize,
    )
