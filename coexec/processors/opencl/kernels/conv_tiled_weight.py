"""The gradient of a convolution's weights on GPUs: tiles of work-groups (conv_tiled_weight.cl)."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.conv_products import flattened
from coexec.processors.opencl.kernels.conv_tiled import refuse_tiles, summed
from coexec.processors.opencl.kernels.tiles import COLUMNS, Tile, best_tile, divided, parts_bytes
from coexec.processors.opencl.kernels.window import Window

SPACE: Mapping[str, tuple[int, ...]] = {
    "TM": (32, 64, 16),
    "TN": (64, 32),
    "TK": (32, 16),
    "GROUPS": (4, 2, 8, 16),
}
"""Rows and columns of a tile, terms of a step, groups per compute unit that are enough."""

COLUMN_BYTES = 16
"""What a column means, in local memory."""


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why tiles do not fit this gradient, else ``None``."""
    if call.identifier != "coexec::ConvWeightGrad":
        return "only the gradient of the weights sums over positions"
    if Window.of(call).pixels == 0:
        return "nothing to sum"
    return refuse_tiles(call, facts)


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The tile that wastes and reads the least: the sum can always be cut."""
    w = Window.of(call)
    return best_tile(w.outer, w.inner * w.taps, 2 * facts.compute_units, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """The product, and the sum of its parts where there are some."""
    result = call.output(0)
    if result.size == 0:
        return Lowering(())
    w = flattened(Window.of(call))
    tile = Tile.of(params)
    room = facts.local_bytes - tile.columns * COLUMN_BYTES
    tile = tile.within(room, result.dtype, 2 * COLUMNS)
    columns, positions = w.inner * w.taps, w.batch * w.pixels
    across, along = -(-columns // tile.columns), -(-w.outer // tile.rows)
    parts, span = divided(
        positions, positions, tile.terms, across * along * w.groups, facts, params
    )
    kernel = KernelCall(
        family="conv_tiled_weight",
        entry="conv_tiled_weight",
        args=(
            *(inp(0), inp(1), out(0) if parts == 1 else scratch(0)),
            *map(i32, (w.outer, w.inner, w.batch, w.groups, span, result.size)),
            *map(i32, (*w.in_size, *w.out_size, *w.kernel, *w.strides, *w.pads, *w.dilations)),
        ),
        global_size=(across * tile.items[0], along * tile.items[1], w.groups * parts),
        local_size=(*tile.items, 1),
        defines={
            **tile.defines(result.dtype),
            "PARTS": int(parts > 1),
            "FLAT": int(w.pointwise),
        },
        flop=2 * result.size * positions,
        bytes=call.input(0).nbytes + call.input(1).nbytes + parts_bytes(result, parts),
    )
    return Lowering((kernel,)) if parts == 1 else summed(kernel, call, parts)
