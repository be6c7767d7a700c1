"""The gradient of 3 x 3 weights by minimal filtering on tiles of 4 x 4 positions.

winograd_weight.cl is the transpose of F(4 x 4, 3 x 3) of Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", arXiv 1509.09308: 36 multiplications for a tile where direct sums
count 144. Tiles are the terms of the sums; parts of them are added in order. Tiles of 2 x 2 (16
multiplications where direct sums that skip the padding of such a plane count 16) save nothing.

Errors against float64 as shares of the results' standard deviation (normal data, 32 images, padded
by 1; both runtimes alike), largest / root mean square:

    channels, size     here               outer products
    64,  32 x 32       4.1e-6 / 8.2e-7    1.4e-6 / 3.0e-7
    256, 8 x 8         6.6e-6 / 8.5e-7    1.9e-6 / 2.7e-7
    512, 4 x 4         6.7e-6 / 7.1e-7    3.1e-6 / 2.5e-7
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.compressed import BLOCK, code_bytes
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels import outer
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Window, refuse_convolution
from coexec.processors.opencl.kernels.winograd import (
    GROUP,
    PAD,
    PATCH,
    POINTS,
    TAPS,
    TILE,
    refuse_window,
    types_of,
)

SPACE: Mapping[str, tuple[int, ...]] = {
    "MR": (6, 12, 4),
    "NV": (2, 3),
    "TILES": (64, 32, 128),
    "CHANNELS": (24, 48),
    "SLOTS": (1, 2),
}
"""Register tile (MR channels, NV vectors of rows of y), tiles summed in registers, channels of x
transformed at a time, tasks in work per compute unit."""

PATCH_COST, GRADIENT_COST = 8, 5
"""Time to transform a tile's patch for each channel, and its positions of each row of y."""
BACK_COST = 4
"""Time to transform the sums of a channel and a row back, and to add them."""
FINISH_COST = 2
"""Time of the last kernel for each channel and row of a part. All times are in multiplications of
a point, a channel and a row."""
DIRECT_COST = 0.14
"""Time of direct sums (outer.cl) for a position, a channel and a row, all compute units together:
the least of what was measured on 16 to 512 channels at 2 x 2 to 56 x 56 on both runtimes (0.14 to
0.3), so that what is chosen pays."""


@dataclass(frozen=True)
class Division:
    """Tasks of ``part`` tiles and ``row_block`` rows of y."""

    tiles: int
    rows: int
    channels: int
    part: int
    row_block: int
    block: int

    @property
    def splits(self) -> int:
        return -(-self.tiles // self.part)

    @property
    def tasks(self) -> int:
        return self.splits * -(-self.rows // self.row_block)

    def time(self, units: int) -> float:
        """Of the busiest compute unit, in multiplications of a point, a channel and a row."""
        sums = self.channels * self.row_block
        transforms = PATCH_COST * self.channels + GRADIENT_COST * self.row_block
        rounds = -(-self.part // self.block)
        task = self.part * (sums + transforms) + rounds * BACK_COST * sums
        finish = FINISH_COST * (self.splits + 1) * self.channels * self.rows / units
        return -(-self.tasks // units) * task + finish


@dataclass(frozen=True)
class Source:
    """What the kernel reads as x: arguments, elements where patches are taken from, bytes."""

    arguments: tuple[Argument, ...]
    size: int
    nbytes: int
    defines: Mapping[str, int] = field(default_factory=dict)


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why tiles of 4 x 4 positions do not fit or do not pay, else ``None``."""
    if call.identifier != "coexec::ConvWeightGrad":
        return "only the gradient of the weights sums over tiles"
    refusal = refuse_convolution(call, facts) or refuse_window(Window.of(call), facts)
    if refusal:
        return refusal
    if accumulator(call.output(0).dtype) != "float32":
        return f"{call.output(0).dtype.name}: transforms are made in float32"
    return refuse_cost(call, facts)


def refuse_cost(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why transforms, tiles that are partly empty and so few of them do not pay, else ``None``."""
    w = Window.of(call)
    params = {name: values[0] for name, values in SPACE.items()} | dict(suited(call, facts))
    d = divide(w, params["NV"] * lanes_of(facts), facts, params)
    direct = DIRECT_COST * w.batch * w.pixels * w.in_channels * w.out_channels
    if d.time(facts.compute_units) * facts.compute_units <= direct:
        return None
    return (
        f"{d.tiles} tiles for {w.batch * w.pixels} positions: transforms cost more than they save"
    )


def lanes_of(facts: DeviceFacts) -> int:
    """Floats of a vector; transforms take eight rows of y at a time."""
    return 16 if facts.vector_bytes >= 64 else 8


def suited(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Tiles of registers for 32 registers of 64 bytes; else those for 16 of 32 bytes hold."""
    return {"MR": 12} if facts.vector_bytes >= 64 else {}


def tile_count(w: Window) -> int:
    """Tiles of all images."""
    return w.batch * -(-w.out_size[1] // TILE) * -(-w.out_size[2] // TILE)


def divide(w: Window, panel: int, facts: DeviceFacts, params: Mapping[str, int]) -> Division:
    """The fastest division into parts of the tiles and blocks of rows."""
    tiles, units = tile_count(w), facts.compute_units
    wanted = units * params["SLOTS"]
    panels = -(-w.out_channels // panel)
    found = []
    for groups in range(1, min(panels, wanted) + 1):
        rows = -(-panels // groups) * panel
        for parts in range(1, min(tiles, -(-wanted // groups)) + 1):
            part = -(-tiles // parts)
            block = -(-part // -(-part // params["TILES"]))
            found.append(Division(tiles, panels * panel, w.in_channels, part, rows, block))
    return min(found, key=lambda d: d.time(units))


def refuse_codes(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why x cannot be expanded plane by plane, else ``None``."""
    refusal = refuse(call, facts)
    if refusal:
        return refusal
    if call.output(0).dtype != np.float32:
        return f"codes of {call.output(0).dtype.name} have kernels of their own"
    w = Window.of(call)
    block = min(SPACE["CHANNELS"][0], ceil_to(w.in_channels, GROUP))
    whole = BLOCK // gcd(BLOCK, w.in_pixels)
    if w.in_channels % whole or block % whole:
        return "a block of codes belongs to two images or two blocks of channels"
    return None


def images_of(w: Window, tiles: int) -> int:
    """Images that so many tiles in a row may lie in."""
    own = tile_count(w) // w.batch
    return min((tiles + own - 2) // own + 1, w.batch)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Sums of parts of the tiles, then their sum."""
    return lower_codes(call, facts, params, bits=0)


def lower_codes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int], bits: int) -> Lowering:
    """The same, with words of x as operand 0 and ends as operand 2; 0 bits: with x itself."""
    if call.output(0).size == 0:
        return Lowering(())
    w = Window.of(call)
    lanes = lanes_of(facts)
    panel = params["NV"] * lanes
    d = divide(w, panel, facts, params)
    slots = min(d.tasks, facts.compute_units * params["SLOTS"])
    channels = min(params["CHANNELS"], ceil_to(w.in_channels, GROUP))
    slot = slot_elements(d, channels, panel, params["MR"])
    source = Source((inp(0),), call.input(0).size, call.input(0).nbytes)
    if bits:
        size = images_of(w, d.block) * channels * w.in_pixels
        moved = code_bytes(call.input(0).size, call.input(0).dtype, bits)
        source = Source((inp(0), inp(2), i32(slot)), size, moved, {"BITS": bits})
        slot += ceil_to(size, 16)
    parts = d.splits * ceil_to(w.out_channels, panel) * w.in_channels * TAPS
    calls = (
        sum_call(call, w, d, channels, slots, slot, {"V": lanes} | pick(params), source),
        finish_call(call, w, d, lanes, facts, params),
    )
    return Lowering(calls, (slots * slot * 4, parts * 4))


def pick(params: Mapping[str, int]) -> dict[str, int]:
    """Those tunables that the program is built with."""
    return {name: params[name] for name in ("MR", "NV")}


def slot_elements(d: Division, channels: int, panel: int, height: int) -> int:
    """Floats of a slot of winograd_weight.cl: sums, masks, places, a stage, transforms of both."""
    sums = POINTS * (ceil_to(channels, height) * panel + PAD)
    places = ceil_to(d.block * PATCH * (GROUP + 1) + GROUP + GROUP * GROUP * PATCH, 16)
    gradients = d.row_block // panel * POINTS * (d.block * panel + PAD)
    patches = POINTS * (d.block * channels + PAD)
    return ceil_to(sums + places + gradients + patches + height, 16)


def sum_call(
    call: OpCall,
    w: Window,
    d: Division,
    channels: int,
    slots: int,
    slot: int,
    defines: Mapping[str, int],
    source: Source,
) -> KernelCall:
    """The kernel that transforms, multiplies and transforms back."""
    y = call.input(1)
    numbers = (
        w.out_channels,
        d.row_block,
        w.in_channels,
        channels,
        d.tiles,
        d.part,
        d.block,
        d.tasks,
        slot,
        source.size,
        y.size,
        *w.in_size[1:],
        *w.out_size[1:],
        *w.pads[1:],
    )
    products = w.in_channels * w.out_channels
    return KernelCall(
        family="winograd_weight",
        entry="winograd_weight",
        args=(*source.arguments, inp(1), scratch(1), scratch(0), *map(i32, numbers)),
        global_size=(slots,),
        local_size=(1,),
        defines={**types_of(y.dtype, prepared=False), **defines, **source.defines},
        # The multiplications really done: a quarter of what direct sums count.
        flop=2 * POINTS * products * d.tiles,
        bytes=source.nbytes + y.nbytes + 4 * TAPS * products * d.splits,
    )


def finish_call(
    call: OpCall,
    w: Window,
    d: Division,
    lanes: int,
    facts: DeviceFacts,
    params: Mapping[str, int],
) -> KernelCall:
    """The kernel of outer.cl that adds the parts: they lie as its own do."""
    rows, vectors = w.in_channels * TAPS, params["NV"]
    product = outer.Outer(call.output(0).dtype, w, inp(0), inp(1), out(0), (rows, 1, 0))
    parts = outer.Division(
        lanes,
        vectors,
        outer.tile_rows(facts, vectors),
        lane_blocks=1,
        channels=w.in_channels,
        splits=d.splits,
        part=d.part,
        tasks=d.tasks,
    )
    return outer.finish_call(product, parts, {"LENGTH": outer.SPACE["LENGTH"][0]})
