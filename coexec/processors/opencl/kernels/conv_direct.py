"""Convolutions with channels of the result in lanes, for weights that are known (conv_direct.cl).

The layout of the weights costs nothing then, and x is read where it lies: nothing is gathered.
That pays for the few channels of images whose rows fill no vectors of positions (conv_bands.py),
and where a product has so few positions that tiles along them are partly empty (7 x 7: 49 of 64).
Weights may come from memory, as they are asked for a block ahead. Elsewhere both run alike; with
strides and many channels the lines of x that are read stay in no cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coexec.core.types import OpCall
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
from coexec.processors.opencl.kernels.packed import WIDE_VECTOR_BYTES
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.widen import is_narrow, widen, widened_bytes
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "PX": (6, 4, 8, 12),
    "NV": (2, 3, 1, 4),
    "BLOCK": (24, 48, 72),
    "DEPTH": (128, 64, 256),
    "SLOTS": (4, 2, 8),
}
"""Register tile (PX positions, NV vectors of channels), positions of a task, terms of a sum between
visits to the slot, tasks in work per compute unit. More positions do not fit (conv_direct.cl)."""

IMAGE_CHANNELS = 4
"""Input channels of what is gathered at great cost."""
FEW_POSITIONS = 256
"""Of a product: its tiles along positions are partly empty, or divide badly among units."""
MOST_PADDING = 1.25
"""Rows that are computed in terms of those that there are."""
MOST_WEIGHTS, MOST_ONCE = (1 << 18) - 1, (1 << 19) - 1
"""Elements that stay in cache from one block of positions to the next, and those that panels of
packed tiles, which are short and many, read no faster where all positions are one block."""
WIDE_WEIGHTS, WIDE_ONCE = 1 << 19, 1 << 21
"""Those for wide vectors: as weights are asked for ahead, all of ResNet-50's with 7 x 7 and 14 x 14
positions (up to 1 << 20 and 1 << 19 elements) take 0.76 to 0.96 of what packed tiles do."""

SMALL_TILES = {(6, 2): 1.0, (4, 3): 1.0}
"""Tiles (positions, vectors) whose sums and operands fit 16 registers, and the time of a
multiplication on each."""
WIDE_TILES = {(6, 4): 1.0, (6, 3): 1.03, (8, 2): 1.07}
"""Those for 32 registers. Each position has an address, in one of 16 registers of another kind:
tiles of 12 x 2 take up to twice the time on both runtimes, those of 8 x 3 1.4 times that on one."""
LEAST_LANES, MOST_LANES = 4, 16
SPAN, BAND = 64, 16
"""Terms that one work-item packs, rows that one pads."""
ITEM = 4
"""Bytes of an element."""


@dataclass(frozen=True)
class Direct:
    """A convolution over two axes in the terms of conv_direct.cl; ``lanes`` of a vector."""

    window: Window
    lanes: int
    params: Mapping[str, int]

    @classmethod
    def of(cls, call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Direct:
        return cls(Window.of(call), lanes_of(facts), params)

    @property
    def panel(self) -> int:
        """Rows of a panel."""
        return self.params["NV"] * self.lanes

    @property
    def panels(self) -> int:
        return -(-self.window.outer // self.panel)

    @property
    def depth(self) -> int:
        return self.window.inner * self.window.taps

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of x with all that windows reach."""
        w = self.window
        reach = [
            (o - 1) * s + (k - 1) * d + 1
            for o, s, k, d in zip(w.out_size, w.strides, w.kernel, w.dilations, strict=True)
        ]
        return (reach[1], reach[2]) if self.padded else (w.in_size[1], w.in_size[2])

    @property
    def padded(self) -> bool:
        """Whether some tap falls outside of x."""
        w = self.window
        ends = (
            (o - 1) * s + (k - 1) * d - p
            for o, s, k, d, p in zip(
                w.out_size, w.strides, w.kernel, w.dilations, w.pads, strict=True
            )
        )
        return any(w.pads) or any(end >= n for end, n in zip(ends, w.in_size, strict=True))

    @property
    def steps(self) -> tuple[int, int]:
        """Elements of the grid between taps of one row, and of one column."""
        w = self.window
        return w.dilations[1] * self.grid[1], w.dilations[2]

    @property
    def packed_bytes(self) -> int:
        return self.window.groups * self.panels * (1 + self.depth) * self.panel * ITEM

    def panel_block(self, slots: int) -> int:
        """Panels of a task: all, unless positions alone leave slots idle."""
        others = self.blocks * self.window.batch * self.window.groups
        parts = min(self.panels, -(-slots // others))
        return -(-self.panels // parts)

    @property
    def depth_block(self) -> int:
        parts = -(-self.depth // self.params["DEPTH"])
        return -(-self.depth // parts)

    @property
    def blocks(self) -> int:
        return -(-self.window.pixels // self.block)

    @property
    def block(self) -> int:
        """Positions of a task, in whole tiles."""
        positions = self.params["PX"]
        return ceil_to(min(self.params["BLOCK"], max(1, self.window.pixels)), positions)

    def tasks(self, slots: int) -> int:
        w = self.window
        parts = -(-self.panels // self.panel_block(slots))
        return w.batch * w.groups * parts * self.blocks


def lanes_of(facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    return min(max(facts.vector_bytes // ITEM, LEAST_LANES), MOST_LANES)


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why channels in lanes do not fit or do not pay, else ``None``."""
    if call.identifier != "Conv":
        return "only convolutions forward"
    refusal = refuse_convolution(call, facts)
    if refusal:
        return refusal
    if facts.unit_kind != "cpu":
        return "a task needs a cache of its own"
    if accumulator(call.output(0).dtype) != "float32":
        return f"{call.output(0).dtype.name}: panels are of float32"
    if call.constant(1) is None:
        return "weights that change are packed anew each time"
    w = Window.of(call)
    if (w.in_size[0], w.kernel[0], w.out_size[0], w.pads[0]) != (1, 1, 1, 0):
        return "three spatial axes"
    if min(w.pads) < 0:
        return "negative pads"
    wide = facts.vector_bytes >= WIDE_VECTOR_BYTES
    return refuse_cost(Direct(w, lanes_of(facts), suited(call, facts)), wide=wide)


def refuse_cost(d: Direct, *, wide: bool) -> str | None:
    """Why packed tiles are as fast, else ``None``."""
    w = d.window
    if ceil_to(w.outer, d.panel) > MOST_PADDING * w.outer or w.inner == 0:
        return f"{w.outer} rows leave lanes empty"
    if w.taps > 1:
        many = w.inner > IMAGE_CHANNELS
        return f"more than {IMAGE_CHANNELS} channels: gathering them costs little" if many else None
    if not w.pointwise or w.batch * w.pixels > FEW_POSITIONS:
        return f"strides, or more than {FEW_POSITIONS} positions"
    most, once = (WIDE_WEIGHTS, WIDE_ONCE) if wide else (MOST_WEIGHTS, MOST_ONCE)
    if w.inner * w.outer > (most if d.blocks > 1 else once):
        return "weights that fit no cache"
    return None


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The register tile for the device's registers that takes least time."""
    w, lanes = Window.of(call), lanes_of(facts)
    wide = facts.vector_bytes >= WIDE_VECTOR_BYTES
    tiles = WIDE_TILES if wide else SMALL_TILES

    def time(tile: tuple[int, int]) -> float:
        positions, vectors = tile
        return tiles[tile] * ceil_to(w.pixels, positions) * ceil_to(w.outer, vectors * lanes)

    positions, vectors = min(tiles, key=time)
    whole = [block for block in SPACE["BLOCK"] if block >= w.pixels]
    block = whole[0] if whole else 48 if wide else 24
    return {"PX": positions, "NV": vectors, "BLOCK": block}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Packed weights (once), a padded or widened copy of x where need be, and the products."""
    if call.output(0).size == 0:
        return Lowering(())
    d = Direct.of(call, facts, params)
    dtype = call.output(0).dtype
    narrow = is_narrow(dtype)
    types: dict[str, str | int] = {
        "T": c_type(dtype),
        "SAME": int(not narrow),
        "V": d.lanes,
        "NV": params["NV"],
    }
    layout, defines = {**types, "LAYOUT": 1}, {**types, "PX": params["PX"]}
    wanted = facts.compute_units * params["SLOTS"]
    calls = [_pack(d, call, layout)]
    source, grid_bytes = inp(0), 0
    if d.padded:
        source = scratch(3)
        grid_bytes = d.window.batch * d.window.in_channels * d.grid[0] * d.grid[1] * ITEM
        calls.append(_pad(d, call, source, grid_bytes, layout))
    elif narrow:
        source, grid_bytes = scratch(3), widened_bytes(call.input(0).size, dtype)
        calls.append(widen(inp(0), call.input(0).size, dtype, source))
    calls.append(_product(d, call, source, wanted, defines))
    slot_bytes = min(wanted, d.tasks(wanted)) * d.block * d.panel * ITEM
    blocks = (d.packed_bytes, d.depth * ITEM, slot_bytes, grid_bytes)
    return Lowering(tuple(calls), blocks if grid_bytes else blocks[:3])


def _pack(d: Direct, call: OpCall, defines: Mapping[str, str | int]) -> KernelCall:
    w = d.window
    bias = call.has_input(2)
    plane = d.grid[0] * d.grid[1]
    numbers = (int(bias), w.outer, d.panels, d.depth, w.taps, w.kernel[2], plane, *d.steps)
    return KernelCall(
        family="conv_direct",
        entry="direct_pack",
        args=(inp(1), inp(2) if bias else inp(1), scratch(0), scratch(1), *map(i32, numbers)),
        global_size=(w.groups * d.panels, -(-d.depth // SPAN)),
        defines=defines,
        bytes=call.input(1).nbytes + d.packed_bytes,
        layout=True,
    )


def _pad(
    d: Direct, call: OpCall, to: Operand, nbytes: int, defines: Mapping[str, str | int]
) -> KernelCall:
    w = d.window
    numbers = (*w.in_size[1:], *d.grid, *w.pads[1:])
    return KernelCall(
        family="conv_direct",
        entry="direct_pad",
        args=(inp(0), to, *map(i32, numbers)),
        global_size=(w.batch * w.in_channels, -(-d.grid[0] // BAND)),
        local_size=(1, 1),
        defines=defines,
        bytes=call.input(0).nbytes + nbytes,
        layout=True,
    )


def _product(
    d: Direct, call: OpCall, source: Operand, wanted: int, defines: Mapping[str, str | int]
) -> KernelCall:
    w = d.window
    plane = d.grid[0] * d.grid[1]
    tasks, panel_block = d.tasks(wanted), d.panel_block(wanted)
    work = (d.block, tasks, d.blocks, -(-d.panels // panel_block), panel_block, d.panels)
    sizes = (w.groups, w.outer, d.depth, d.depth_block)
    strides = (w.in_channels * plane, w.inner * plane)
    places = (w.pixels, w.out_size[2], w.strides[1] * d.grid[1], w.strides[2])
    return KernelCall(
        family="conv_direct",
        entry="direct",
        args=(
            *(source, scratch(0), scratch(1), out(0), scratch(2)),
            *map(i32, (*work, *sizes, *strides, *places)),
        ),
        global_size=(min(wanted, tasks),),
        local_size=(1,),
        defines=defines,
        flop=2 * w.outer * d.depth * w.pixels * w.batch * w.groups,
        bytes=call.input(0).nbytes + d.packed_bytes + call.output(0).nbytes,
        finishes="tensors",
    )
