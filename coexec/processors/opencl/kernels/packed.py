"""Blocked products on packed tiles: the lowering that matrix products and convolutions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    Scalar,
    c_type,
    ceil_to,
    i32,
    scratch,
)
from coexec.processors.opencl.kernels.packed_division import Division, Extent, divide
from coexec.processors.opencl.kernels.packed_operands import (
    ALONE,
    ONES,
    ZEROS,
    Batch,
    Bias,
    LeftSource,
    Result,
    RightSource,
)
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.widen import is_narrow, widen, widened_bytes
from coexec.processors.opencl.kernels.window import Triple

LEAST_LANES, MOST_LANES = 4, 16
WIDE_VECTOR_BYTES = 64
"""Vectors this wide come with 32 registers, narrower ones with 16."""

SMALL_TILES = {(6, 2): 1.0, (4, 3): 1.05}
"""Tiles (rows, vectors) that fit 16 registers; panels of three vectors leave the first cache."""
WIDE_TILES = {(8, 3): 1.0, (12, 2): 1.03}
"""Those for 32 registers, and the time of a multiplication on each."""
SMALL_TASKS, CACHED_BYTES = {"GROUP": 4, "SLOTS": 8}, 1 << 20
"""Many small tasks divide evenly, also among units that wake up late; not where A is larger."""

MOST_SLOT_BYTES = 4 << 20
"""Scratch for all slots, unless one per compute unit takes more."""

SPAN, LINE_SPAN = 16, 64
"""Channels that one work-item packs; where rows are contiguous, it moves vectors and takes more."""

MOST_PHASES = 16
"""Phases of a stride; beyond, the products of single phases are not worth their launches."""

SPARES: tuple[Mapping[str, int], ...] = (
    {"SLOTS": 2, "GROUP": 1},
    {"SLOTS": 2, "APART": 0},
    {"SLOTS": 2, "APART": 0, "GROUP": 4},
    {"SLOTS": 2, "APART": 0, "GROUP": 1},
)
"""The fastest first: fewer panels cost next to nothing; packing tiles of A in each task costs less
where many panels share it."""

MASKS = {"float32": "int", "float64": "long"}
SPACE: Mapping[str, tuple[int, ...]] = {
    "MR": (8, 12, 4, 6),
    "NV": (3, 2, 4),
    "DEPTH": (512, 256, 128),
    "SLOTS": (4, 2, 8),
    "GROUP": (8, 4, 16, 1),
    "APART": (1, 0),
}
"""Register tile (MR rows, NV vectors), depth of a panel, tasks in work per compute unit, panels
of a task at most; whether A is packed apart, or tile by tile by each task."""


@dataclass(frozen=True)
class BlockedProduct:
    """Y = alpha * A * B + beta * bias in the terms of packed.cl; ``known``: A never changes."""

    dtype: np.dtype[np.generic]
    rows: int
    channels: int
    taps: Triple
    columns: int
    left: LeftSource
    right: RightSource
    result: Result
    bias: Bias | None = None
    alpha: float = 1.0
    beta: float = 1.0
    batch: Batch = ALONE
    known: bool = False

    @property
    def depth(self) -> int:
        return self.channels * prod(self.taps)

    @property
    def in_place(self) -> bool:
        """Whether rows of A are contiguous (or empty), so that it needs no packing.

        What is known is packed all the same: that is done once, and one run of memory is read
        instead of one per row.
        """
        if self.depth == 0:
            return True
        if self.known and self.depth > 1:
            return False
        k0, k1, k2 = self.taps
        contiguous = (self.left.channel, *self.left.taps) == (k0 * k1 * k2, k1 * k2, k2, 1)
        plain = self.taps == ONES and self.left.channel == 1
        return self.left.base == 0 and (contiguous or plain or self.depth == 1)

    @property
    def widens(self) -> bool:
        """Whether A is read in place once it is in the type of sums."""
        return self.in_place and self.depth > 0 and is_narrow(self.dtype)

    @property
    def left_size(self) -> int:
        """Elements of A from the first to the last that is read in place."""
        return (
            (self.left.count - 1) * self.left.batch + (self.rows - 1) * self.left.row + self.depth
        )

    def tiles(self, params: Mapping[str, int]) -> int:
        return -(-self.rows // params["MR"])

    def packs_inside(self, params: Mapping[str, int]) -> bool:
        """Whether tasks pack tiles of A themselves."""
        return not (self.in_place or params["APART"])

    def packed_bytes(self, params: Mapping[str, int]) -> int:
        """Size of the packed or widened left operand; 0 where it is not there as a whole."""
        if self.widens:
            return widened_bytes(self.left_size, self.dtype)
        if self.in_place or self.packs_inside(params):
            return 0
        elements = self.left.count * self.tiles(params) * params["MR"] * self.depth
        return elements * self.dtype.itemsize

    def moved_bytes(self, params: Mapping[str, int]) -> int:
        """Operands read once each, the result written once."""
        read = self.in_place or self.packs_inside(params)
        left = self.left.count * self.rows * self.depth if read else 0
        elements = left + self.right.size + self.rows * self.columns * self.batch.count
        if self.bias is not None:
            rows = self.rows if self.bias.row else 1
            columns = self.columns if self.bias.column else 1
            elements += rows * columns * (self.batch.count if self.batch.bias else 1)
        return elements * self.dtype.itemsize + self.packed_bytes(params)

    def block(self, params: Mapping[str, int]) -> int:
        """Whole channels in a panel, evenly divided among the panels of a column.

        Of 16 bits, all: between panels sums would be rounded to them, as they wait in the result.
        """
        if is_narrow(self.dtype):
            return max(1, self.channels)
        most = max(1, params["DEPTH"] // prod(self.taps))
        blocks = max(1, -(-self.channels // most))
        return max(1, -(-self.channels // blocks))

    def lanes(self, facts: DeviceFacts) -> int:
        """Elements of a vector, also where a device computes on scalars."""
        elements = facts.vector_bytes // np.dtype(accumulator(self.dtype)).itemsize
        return min(max(elements, LEAST_LANES), MOST_LANES)

    def panel_columns(self, facts: DeviceFacts, params: Mapping[str, int]) -> int:
        return params["NV"] * self.lanes(facts)

    def division(self, facts: DeviceFacts, params: Mapping[str, int]) -> Division:
        """Panels and rows of a task."""
        x, width = self.right, self.panel_columns(facts, params)
        plain = self.taps == x.strides == ONES and x.pads == ZEROS
        extent = Extent(
            rows=self.rows,
            panels=-(-self.columns // width),
            batches=self.batch.count,
            height=params["MR"],
            columns=width,
            left_bytes=self.rows * self.depth * self.dtype.itemsize,
            flat=plain and self.result.sizes[2] >= width,
        )
        return divide(extent, facts.compute_units, params["SLOTS"], params["GROUP"])

    def tasks(self, facts: DeviceFacts, params: Mapping[str, int]) -> int:
        d = self.division(facts, params)
        width = -(-self.columns // (self.panel_columns(facts, params) * d.group))
        return max(1, width) * self.batch.count * -(-self.rows // d.rows)

    def slot_bytes(self, facts: DeviceFacts, params: Mapping[str, int]) -> int:
        """Size of a task's panels, of a register tile and of a copied tile of A beside them."""
        panels, depth = self.division(facts, params).group, self.block(params) * prod(self.taps)
        elements = (panels * depth + params["MR"]) * self.panel_columns(facts, params)
        if (is_narrow(self.dtype) and not self.in_place) or self.packs_inside(params):
            elements += ceil_to(params["MR"] * depth, 16)
        return elements * np.dtype(accumulator(self.dtype)).itemsize

    def slots(self, facts: DeviceFacts, params: Mapping[str, int]) -> int:
        """Panels in work at a time."""
        slot = self.slot_bytes(facts, params)
        return bounded_slots(self.tasks(facts, params), slot, facts, params)

    def panel_bytes(self, facts: DeviceFacts, params: Mapping[str, int]) -> int:
        """Size of all panels in work."""
        return self.slots(facts, params) * self.slot_bytes(facts, params)

    def defines(
        self, facts: DeviceFacts, params: Mapping[str, int]
    ) -> dict[str, str | int | float]:
        sums = accumulator(self.dtype)
        return {
            "T": c_type(self.dtype),
            "ACC": c_type(np.dtype(sums)),
            "V": self.lanes(facts),
            "MASK": MASKS[sums],
            "SAME": int(sums == self.dtype.name),
            "MR": params["MR"],
            "NV": params["NV"],
            "PACKED": int(not self.in_place),
            "APART": int(not self.packs_inside(params)),
        }


def suited_tile(products: Sequence[BlockedProduct], facts: DeviceFacts) -> Mapping[str, int]:
    """The register tile for the vectors of a CPU; other devices keep the default.

    Of the tiles that fit, the one that wastes least work on rows and columns that are not there: of
    49 columns (7 x 7), two vectors of 16 compute 64 and three 96.
    Panels of wide vectors are large: one at a time fills the cache. Where tiles of A have to be
    widened for them, or come from memory, that is done for several.
    """
    copied = any(is_narrow(p.dtype) and not p.in_place for p in products)
    cached = all(p.rows * p.depth * p.dtype.itemsize <= CACHED_BYTES for p in products)
    group = {"GROUP": 4 if copied or not cached else 1}
    if facts.unit_kind != "cpu":
        return group
    wide = facts.vector_bytes >= WIDE_VECTOR_BYTES
    tiles = WIDE_TILES if wide else SMALL_TILES

    def cost(tile: tuple[int, int]) -> float:
        rows, vectors = tile
        return tiles[tile] * sum(
            ceil_to(p.rows, rows) * ceil_to(p.columns, vectors * p.lanes(facts)) * p.depth
            for p in products
        )

    rows, vectors = min(tiles, key=cost)
    if wide:
        return {"MR": rows, "NV": vectors} | group
    return {"MR": rows, "NV": vectors} | (SMALL_TASKS if cached else {})


def bounded_slots(
    tasks: int, slot_bytes: int, facts: DeviceFacts, params: Mapping[str, int]
) -> int:
    """Slots for ``tasks``: SLOTS per compute unit, fewer where they would take much memory."""
    affordable = max(facts.compute_units, MOST_SLOT_BYTES // slot_bytes)
    return min(tasks, facts.compute_units * params["SLOTS"], affordable)


def pack_call(
    p: BlockedProduct, packed: Operand, facts: DeviceFacts, params: Mapping[str, int]
) -> KernelCall:
    """The kernel that packs the left operand."""
    a = p.left
    numbers = (a.base, a.batch, a.row, a.channel, *a.taps, p.rows, p.channels, *p.taps)
    defines = p.defines(facts, params)
    read = a.count * p.rows * p.depth * p.dtype.itemsize
    span = LINE_SPAN if a.row == 1 else SPAN
    return KernelCall(
        family="pack",
        entry="pack",
        args=(a.operand, packed, *map(i32, numbers)),
        global_size=(p.tiles(params), -(-p.channels // span), a.count),
        defines={
            "T": defines["T"],
            "ACC": defines["T"],
            "MR": defines["MR"],
            "SAME": 1,
            "SPAN": span,
        },
        bytes=read + p.packed_bytes(params),
        layout=True,
    )


def product_call(
    p: BlockedProduct,
    packed: Operand,
    panels: Operand,
    facts: DeviceFacts,
    params: Mapping[str, int],
) -> KernelCall:
    """The kernel that gathers panels and multiplies."""
    sums = accumulator(p.dtype)
    x, bias = p.right.operand, p.bias
    operands = (
        packed if p.packed_bytes(params) else p.left.operand,
        x,
        bias.operand if bias else x,
        p.result.operand,
        panels,
    )
    factors = (Scalar(p.alpha, sums), Scalar(p.beta, sums))
    a = p.left
    apart = (a.base, a.channel, *a.taps) if p.packs_inside(params) else ()
    numbers = (*_sizes(p, facts, params), *apart, *_strides(p, params), *_window(p))
    return KernelCall(
        family="packed",
        entry="packed",
        args=(*operands, *factors, *map(i32, numbers)),
        global_size=(p.slots(facts, params),),
        local_size=(1,),
        defines=p.defines(facts, params),
        flop=2 * p.rows * p.columns * p.depth * p.batch.count,
        bytes=p.moved_bytes(params),
        finishes="tensors",
    )


def _sizes(p: BlockedProduct, facts: DeviceFacts, params: Mapping[str, int]) -> tuple[int, ...]:
    """Arguments ``has_bias`` to ``inner`` of packed.cl."""
    return (
        int(p.bias is not None),
        p.bias.row if p.bias else 0,
        p.bias.column if p.bias else 0,
        p.rows,
        p.division(facts, params).rows,
        p.channels,
        p.columns,
        p.block(params),
        p.division(facts, params).group,
        p.tasks(facts, params),
        p.batch.inner,
    )


def _strides(p: BlockedProduct, params: Mapping[str, int]) -> tuple[int, ...]:
    """Arguments ``a_row`` to ``y_image``: elements between rows, batches, images and channels."""
    there = p.in_place or p.packs_inside(params)
    matrix = p.left.batch if there else p.tiles(params) * params["MR"] * p.depth
    return (
        p.left.row if there else 0,
        *(steps * matrix for steps in p.batch.a),
        *p.batch.x,
        p.batch.y,
        p.batch.bias,
        p.right.size,
        p.right.image,
        p.right.channel,
        p.result.row,
        p.result.image,
    )


def _window(p: BlockedProduct) -> tuple[int, ...]:
    """Arguments ``w1`` to ``d2``: places in the result, then WINDOW of gather.cl."""
    x, y = p.right, p.result
    places = (*y.plane, *y.steps, *y.phase)
    return (*places, *x.extents, *y.sizes, *p.taps, *x.strides, *x.pads, *x.dilations)


def lower_products(
    products: Sequence[BlockedProduct], facts: DeviceFacts, params: Mapping[str, int]
) -> Lowering:
    """Products one after another: each packs or widens its left operand where need be."""
    panels, packed = scratch(0), scratch(1)
    calls: list[KernelCall] = []
    for p in products:
        if not p.in_place and not p.packs_inside(params):
            calls.append(pack_call(p, packed, facts, params))
        elif p.widens:
            calls.append(widen(p.left.operand, p.left_size, p.dtype, packed))
        calls.append(product_call(p, packed, panels, facts, params))
    packed_bytes = max(p.packed_bytes(params) for p in products)
    blocks = (max(p.panel_bytes(facts, params) for p in products),)
    return Lowering(tuple(calls), (*blocks, packed_bytes) if packed_bytes else blocks)


def matches(dtype: np.dtype[np.generic]) -> str | None:
    """The reason why products of this element type are not done on packed tiles."""
    if accumulator(dtype) not in MASKS:
        return f"{dtype.name}: packed tiles hold float32 and float64"
    return None
