"""3 x 3 convolutions on GPUs by minimal filtering on tiles of 4 x 4 results (winograd_items.cl).

Three transforms around the products of :mod:`coexec.processors.opencl.kernels.conv_tiled`. Errors
are those of :mod:`coexec.processors.opencl.kernels.winograd`. The transforms go through memory, so
that it pays with many channels; where, :func:`refuse_cost` reckons: nothing was measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from coexec.core.types import OpCall
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
from coexec.processors.opencl.kernels import conv_tiled
from coexec.processors.opencl.kernels.conv_tiled import Tiled
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.tiles import COLUMNS, Tile, best_tile, type_defines
from coexec.processors.opencl.kernels.window import Window
from coexec.processors.opencl.kernels.winograd import POINTS, TILE, Filtering

SPACE: Mapping[str, tuple[int, ...]] = {
    "TM": (64, 32),
    "TN": (64, 32),
    "TK": (16, 8, 32),
    "LOCAL": (64, 128),
}
"""The tiles of the products (tiles.py), items of a group that transforms."""

FLOP_PER_BYTE = 20
"""Of GPUs of phones, whose memory gives 30 to 70 GB/s beside 0.5 to 2 TFLOP/s."""
LEAST_GAIN = 0.75
"""Time in terms of a direct convolution's."""
MOST_BYTES = 64 << 20
"""Of what lies between the kernels."""
FLOAT = np.dtype(np.float32)
NO_SIZE = (1, 1, 1)


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why tiles of 4 x 4 results do not fit or do not pay, else ``None``."""
    refusal = conv_tiled.refuse(call, facts)
    if refusal:
        return refusal
    w = Window.of(call)
    if w.kernel != (1, 3, 3) or w.in_size[0] != 1 or w.out_size[0] != 1 or w.pads[0] != 0:
        return f"kernel {w.kernel}: not 3 x 3 over two axes"
    if (w.groups, w.strides, w.dilations) != (1, (1, 1, 1), (1, 1, 1)):
        return "groups, strides or dilations"
    if accumulator(call.output(0).dtype) != FLOAT.name:
        return f"{call.output(0).dtype.name}: transforms are made in float32"
    f = Filtering.of(call)
    if 0 in (f.rows, f.channels, f.positions):
        return "nothing to sum"
    if sum(_scratch(f)) > MOST_BYTES:
        return f"transforms take {sum(_scratch(f)) >> 20} MiB"
    return refuse_cost(f)


def refuse_cost(f: Filtering) -> str | None:
    """Why a direct convolution takes less time, by flop and bytes, else ``None``."""
    direct = 2 * 9 * f.rows * f.channels * f.positions
    weights, data, sums = _scratch(f)
    moved = 2 * (data + sums + (0 if f.prepared else weights))
    filtered = 2 * POINTS * f.rows * f.channels * _pitch(f) + FLOP_PER_BYTE * moved
    return None if filtered < LEAST_GAIN * direct else "transforms take as long as they save"


def _pitch(f: Filtering) -> int:
    """Tiles, in whole vectors."""
    return ceil_to(f.tiles, COLUMNS)


def _scratch(f: Filtering) -> tuple[int, int, int]:
    """Bytes of the transforms of weights and data, and of sums."""
    sizes = (f.rows * f.channels, f.channels * _pitch(f), f.rows * _pitch(f))
    a, b, c = (POINTS * size * FLOAT.itemsize for size in sizes)
    return a, b, c


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The tile of the products that wastes the least."""
    f = Filtering.of(call)
    best = best_tile(f.rows, _pitch(f), POINTS, facts)
    return {**best, "TM": max(best["TM"], min(SPACE["TM"]))}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """The transforms of weights and data, the products, and the transform of the results."""
    f = Filtering.of(call)
    y, pitch = call.output(0), _pitch(f)
    across, down = (-(-f.out_size[axis] // TILE) for axis in (1, 0))
    weights, data, sums = _scratch(f)
    total = f.rows * f.channels
    strides = (f.weight_row, f.weight_channel, int(f.reversed))
    filters = _items(
        call, 0, (inp(1), scratch(0)), (total, f.channels, *strides), total, params["LOCAL"]
    )
    tiles = (f.tiles, pitch)
    places = (f.channels, *f.in_size, across, down, *f.pads)
    patches = _items(
        call,
        1,
        (inp(0), scratch(1)),
        (f.channels * pitch, *tiles, *places),
        f.channels * pitch,
        params["LOCAL"],
    )
    results = _items(
        call,
        2,
        (scratch(2), f.bias or inp(1), out(0)),
        (
            *(int(f.bias is not None), f.rows * pitch, *tiles, f.rows),
            *(*f.out_size, across, down),
        ),
        f.rows * pitch,
        params["LOCAL"],
    )
    calls = (
        replace(filters, prepares=True, bytes=call.input(1).nbytes + weights),
        replace(patches, bytes=call.input(0).nbytes + data),
        _products(f, facts, params),
        replace(results, bytes=sums + y.nbytes, finishes="tensors"),
    )
    return Lowering(calls, (weights, data, sums))


def _items(
    call: OpCall,
    stage: int,
    operands: tuple[Argument, ...],
    numbers: tuple[int, ...],
    items: int,
    local: int,
) -> KernelCall:
    """A transform, by its number in winograd_items.cl."""
    return KernelCall(
        family="winograd_items",
        entry=("filter_items", "data_items", "result_items")[stage],
        args=(*operands, *map(i32, numbers)),
        global_size=(ceil_to(items, local),),
        local_size=(local,),
        defines={**type_defines(call.output(0).dtype), "STAGE": stage},
    )


def _products(f: Filtering, facts: DeviceFacts, params: Mapping[str, int]) -> KernelCall:
    """The 36 products as groups of a convolution of one tap."""
    line = (1, 1, _pitch(f))
    tiled = Tiled(
        f.rows,
        f.channels,
        1,
        POINTS,
        (f.rows * f.channels, f.channels, 1),
        line,
        line,
        NO_SIZE,
        NO_SIZE,
        (0, 0, 0),
        NO_SIZE,
        back=False,
        flat=True,
    )
    tile = Tile.of(params).within(facts.local_bytes, FLOAT, COLUMNS)
    operands = (scratch(1), scratch(0), None, scratch(2))
    product = conv_tiled.product_call(
        tiled, operands, tile, FLOAT, staged=facts.on_chip, parts=1, span=f.channels
    )
    return replace(product, bytes=sum(_scratch(f)), finishes="nothing")
