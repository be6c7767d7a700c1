"""Bytes of a graph with channels last and back, at the borders of what is computed on bytes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
)
from coexec.processors.opencl.fusion.integer_operators import (
    FROM_LAST,
    LANES,
    MIDDLE,
    TO_LAST,
    layer_of,
)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def applies_blocks(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why bytes are not turned in blocks of 16 channels of 16 positions, else ``None``."""
    positions, _, stored = _sizes(call)
    if positions < LANES or stored % LANES:
        return f"fewer than {LANES} positions or channels"
    return applies(call, facts)


def _sizes(call: OpCall) -> tuple[int, int, int]:
    """Positions, channels, and channels as stored."""
    outside, last = _shapes(call)
    return prod(outside[2:]), outside[1], last[-1]


def _shapes(call: OpCall) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tensor's shape in the graph, and with channels last."""
    x, y = call.input(0).shape, call.output(0).shape
    return (x, y) if call.identifier == TO_LAST.identifier else (y, x)


def _kernel(
    call: OpCall, entry: str, first: tuple[Argument, ...]
) -> tuple[str, tuple[Argument, ...], dict[str, int]]:
    inwards = call.identifier == TO_LAST.identifier
    outside = call.input(0) if inwards else call.output(0)
    fill = (i32(layer_of(call).steps[0].zero),) if inwards else ()
    args = (inp(0), out(0), *first, *map(i32, _sizes(call)), *fill)
    middle = MIDDLE if outside.dtype == np.int8 else 0
    return f"{entry}{'to' if inwards else 'from'}_last", args, {"MIDDLE": middle}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    batch, local = _shapes(call)[0][0], params["LOCAL"]
    size = batch * _sizes(call)[0]
    if not size:
        return Lowering(())
    entry, args, defines = _kernel(call, "", (i32(size),))
    groups = (ceil_to(size, local),)
    return Lowering((KernelCall("byte_layout", entry, args, groups, (local,), defines),))


def lower_blocks(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A work-item for all channels of a block of positions."""
    entry, args, defines = _kernel(call, "blocks_", ())
    blocks = (-(-_sizes(call)[0] // LANES), _shapes(call)[0][0])
    return Lowering((KernelCall("byte_layout", entry, args, blocks, (1, 1), defines),))


FAMILY = KernelFamily(
    "byte_layout",
    (TO_LAST.identifier, FROM_LAST.identifier),
    (
        Variant("blocks", lower_blocks, applies_blocks),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16)}),
    ),
)
