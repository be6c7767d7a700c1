"""Convolutions and their inputs' gradients on bands of rows (conv_bands.cl).

The rows that a band reads are copied once, padded and with the columns of a stride apart, so that
nothing is gathered: every term of a sum is a load of consecutive positions. That pays where sums
have few terms or results few rows (images of 3 channels, and the gradients of images), and where a
gather visits many taps (three axes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.packed import WIDE_VECTOR_BYTES
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.widen import is_narrow
from coexec.processors.opencl.kernels.window import Triple, Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "MR": (6, 3, 4, 8, 12),
    "NV": (2, 3, 4),
    "SLOTS": (4, 2, 1),
    "GRID": (192, 96, 384),
}
"""Register tile (MR rows, NV vectors of positions), shares of the work per compute unit, KiB of a
grid, which bounds the rows of a band."""

SMALL_TILES = {(6, 2): 1.0, (4, 3): 1.05, (3, 3): 1.1}
"""Tiles (rows, vectors) whose sums and operands fit 16 registers, and the time of a row on each."""
ROOMY_TILES = {(6, 2): 1.0, (3, 3): 1.1}
"""Those that leave a register or two for what the loops over phases hold."""
WIDE_TILES = {(12, 2): 1.0, (8, 3): 1.0, (6, 4): 1.0, (3, 4): 1.1}
"""Those for 32 registers."""
LEAST_LANES, MOST_LANES = 4, 16
ITEM, ALIGNED = 4, 16
"""Bytes of an element; elements that parts of a slot are rounded up to."""

FEW_CHANNELS = 4
"""Of x or of y: a gathered column, or a packed tile, would serve few sums."""
MOST_WEIGHTS = 1 << 16
"""Elements of weights in each slot."""
MOST_GRID = 1 << 18
"""Elements of the grid of a band of one row."""
MOST_PADDING = 1.35
"""Positions and rows that are computed in terms of those that there are."""


@dataclass(frozen=True)
class Bands:
    """A convolution in the terms of conv_bands.cl; ``back``: from its result to its input."""

    window: Window
    back: bool
    lanes: int
    params: Mapping[str, int]

    @classmethod
    def of(cls, call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Bands:
        return cls(Window.of(call), call.identifier != "Conv", lanes_of(facts), params)

    @property
    def rows(self) -> int:
        """Channels of a group of the result."""
        return self.window.inner if self.back else self.window.outer

    @property
    def channels(self) -> int:
        """Channels of a group of what is read."""
        return self.window.outer if self.back else self.window.inner

    @property
    def source(self) -> Triple:
        return self.window.out_size if self.back else self.window.in_size

    @property
    def result(self) -> Triple:
        return self.window.in_size if self.back else self.window.out_size

    @property
    def reading(self) -> Triple:
        """Steps in the source between neighbouring positions."""
        return (1, 1, 1) if self.back else self.window.strides

    @property
    def positions(self) -> Triple:
        """Base positions of each axis: those of the largest phase."""
        if not self.back:
            return self.result
        a, b, c = (-(-n // s) for n, s in zip(self.result, self.window.strides, strict=True))
        return a, b, c

    @property
    def reaches(self) -> tuple[tuple[int, int], ...]:
        """Of each axis, the first and the last element that position 0 reads."""
        w = self.window
        axes = zip(w.kernel, w.strides, w.pads, w.dilations, strict=True)
        return tuple(_reach_back(*axis) if self.back else _reach(*axis) for axis in axes)

    @property
    def depth(self) -> int:
        """Terms of the sums of all phases together."""
        return self.channels * self.window.taps

    @property
    def tiles(self) -> int:
        return -(-self.rows // self.params["MR"])

    @property
    def across(self) -> int:
        """Vectors in a row of positions."""
        return -(-self.positions[2] // self.lanes)

    @property
    def planes(self) -> int:
        """Planes of a grid for each channel."""
        low, high = self.reaches[0]
        return high - low + 1 if self.back else self.window.kernel[0]

    @property
    def sheet(self) -> int:
        """Columns of a grid for each remainder modulo the reading stride."""
        low, high = self.reaches[2]
        return self.positions[2] + (high - low) // self.reading[2]

    def grid_rows(self, band: int) -> int:
        low, high = self.reaches[1]
        return (band - 1) * self.reading[1] + high - low + 1

    def grid_size(self, band: int) -> int:
        """Elements of a grid, with a vector past its end that is read, and dropped."""
        lines = self.channels * self.planes * self.grid_rows(band)
        return lines * self.reading[2] * self.sheet + self.lanes

    def band(self, wanted: int) -> int:
        """Rows of a task: as many as the grid holds, unless tasks are fewer than wanted."""
        w, rows = self.window, self.positions[1]
        line = self.grid_size(2) - self.grid_size(1)
        room = (self.params["GRID"] << 10) // ITEM - self.grid_size(1)
        most = 1 + max(0, room // line)
        parts = -(-wanted // (w.batch * w.groups * self.positions[0]))
        most = min(most, -(-rows // parts))
        return -(-rows // -(-rows // most))

    def tasks(self, band: int) -> int:
        w = self.window
        return w.batch * w.groups * self.positions[0] * -(-self.positions[1] // band)

    def spots(self, band: int) -> int:
        """Vectors of a band, of whole register tiles."""
        return ceil_to(ceil_to(band * self.across, self.params["NV"]), ALIGNED)

    def slot_size(self, band: int) -> int:
        """Elements of a slot: weights, places of terms and vectors, results on their way, grid."""
        weights = ceil_to(self.tiles * self.params["MR"] * self.depth, ALIGNED)
        places = ceil_to(self.depth, ALIGNED) + 2 * self.spots(band)
        line = band * self.window.strides[2] * self.across * self.lanes
        tile = self.params["MR"] * self.params["NV"] * self.lanes
        leaving = self.rows * line if self.apart else tile
        return ceil_to(weights + places + leaving + self.grid_size(band), ALIGNED)

    @property
    def apart(self) -> bool:
        """Whether neighbours in a row of the result belong to phases of a stride."""
        return self.back and self.window.strides[2] > 1


def _reach(kernel: int, _stride: int, pad: int, dilation: int) -> tuple[int, int]:
    return -pad, (kernel - 1) * dilation - pad


def _reach_back(kernel: int, stride: int, pad: int, dilation: int) -> tuple[int, int]:
    """Over all phases ``u``, whose taps ``first, first + stride, ...`` read backwards."""
    low, high = 0, 0
    for place, first in (divmod(u + pad, stride) for u in range(stride)):
        taps = -(-(kernel - first) // stride)
        if taps > 0:
            low, high = min(low, place - (taps - 1) * dilation), max(high, place)
    return low, high


def lanes_of(facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    return min(max(facts.vector_bytes // ITEM, LEAST_LANES), MOST_LANES)


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why bands of rows do not fit or do not pay, else ``None``."""
    if call.identifier == "coexec::ConvWeightGrad":
        return "the gradient of the weights has variants of its own"
    refusal = refuse_convolution(call, facts)
    if refusal:
        return refusal
    if facts.unit_kind != "cpu":
        return "a task needs a cache of its own"
    if accumulator(call.output(0).dtype) != "float32":
        return f"{call.output(0).dtype.name}: grids are of float32"
    w = Window.of(call)
    if min(w.pads) < 0:
        return "negative pads"
    if call.identifier != "Conv" and any(
        s > 1 and d > 1 for s, d in zip(w.strides, w.dilations, strict=True)
    ):
        return "strides and dilations of one axis"
    if 0 in (w.inner, w.outer, w.batch, prod(w.in_size), prod(w.out_size)):
        return "nothing to sum"
    return refuse_cost(Bands.of(call, facts, suited(call, facts)), facts.compute_units)


def refuse_cost(b: Bands, units: int) -> str | None:
    """Why other variants are as fast, else ``None``."""
    w = b.window
    if b.tasks(1) < units:
        return f"{b.tasks(1)} rows for {units} compute units"
    if w.taps == 1:
        return "one tap: a product"
    few = min(b.rows, b.channels) <= FEW_CHANNELS
    if not few and w.kernel[0] == 1:
        return f"more than {FEW_CHANNELS} channels on both sides of two axes"
    if b.tiles * b.params["MR"] * b.depth > MOST_WEIGHTS:
        return "weights that fit no slot"
    if b.grid_size(1) > MOST_GRID:
        return "rows that fit no slot"
    rows, width = b.tiles * b.params["MR"], b.across * b.lanes
    if rows * width > MOST_PADDING * b.rows * b.positions[2]:
        return f"{b.rows} rows of {b.positions[2]} positions leave registers empty"
    return None


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The register tile for the device's registers that wastes the least."""
    w = Window.of(call)
    forward = call.identifier == "Conv"
    rows = w.outer if forward else w.inner
    small = SMALL_TILES if forward else ROOMY_TILES
    times = WIDE_TILES if facts.vector_bytes >= WIDE_VECTOR_BYTES else small
    height, vectors = min(times, key=lambda tile: times[tile] * ceil_to(rows, tile[0]))
    return {"MR": height, "NV": vectors}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel, whose work-items have slots of their own."""
    if call.output(0).size == 0:
        return Lowering(())
    b = Bands.of(call, facts, params)
    w, bias = b.window, call.has_input(2)
    wanted = facts.compute_units * params["SLOTS"]
    band = b.band(wanted)
    tasks, slot = b.tasks(band), b.slot_size(band)
    slots = min(wanted, tasks)
    across = (w.taps, w.inner * w.taps)
    numbers = (
        *(int(bias), tasks, slot, w.batch, b.rows, b.channels),
        *(*b.positions, band, *b.source, *b.result),
        *(*w.kernel, *w.strides, *w.pads, *w.dilations),
        *(low for low, _ in b.reaches),
        *(b.planes, b.grid_rows(band), b.sheet, b.spots(band)),
        *(across if b.back else across[::-1]),
        w.outer * w.inner * w.taps,
    )
    kernel = KernelCall(
        family="conv_bands",
        entry="bands",
        args=(
            *(inp(0), inp(1), inp(2) if bias else inp(0), out(0), scratch(0)),
            *map(i32, numbers),
        ),
        global_size=(slots,),
        local_size=(1,),
        defines={
            "T": c_type(call.output(0).dtype),
            "SAME": int(not is_narrow(call.output(0).dtype)),
            "V": b.lanes,
            "BACK": int(b.back),
            "APART": int(b.apart),
            "MR": params["MR"],
            "NV": params["NV"],
        },
        flop=2 * w.out_channels * w.inner * w.taps * w.pixels * w.batch,
        bytes=sum(call.input(i).nbytes for i in (0, 1)) + call.output(0).nbytes,
        finishes="tensors",
    )
    return Lowering((kernel,), (slots * slot * ITEM,))
