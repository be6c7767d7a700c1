"""Look-ups by index: Gather, GatherElements, GatherND."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from coexec.core.types import OpCall
from coexec.ops.index import gather_axis
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Scalar,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
)
from coexec.processors.opencl.kernels.moves import (
    MAX_RANK,
    WORDS,
    Move,
    collapsed,
    refuse_moves,
    row_major,
)


def word_width(inner: int, itemsize: int, limit: int) -> int:
    """How many elements of a run of ``inner`` travel in one word of at most ``limit`` bytes."""
    width = max(limit // itemsize, 1)
    while inner % width:
        width //= 2
    return width


def axis_pairs(dims: Sequence[int], strides: Sequence[int], slots: int) -> tuple[Scalar, ...]:
    """(size, stride) arguments, filled up to the ``slots`` of the kernel's signature."""
    pairs = [*zip(dims, strides, strict=True), *[(1, 0)] * (slots - len(dims))]
    return tuple(i32(value) for pair in pairs for value in pair)


def _rows(
    entry: str,
    args: Sequence[Argument],
    extent: tuple[int, int],
    defines: Mapping[str, str | int | float],
    local: int,
) -> Lowering:
    """One kernel over (innermost, rows); narrow rows share a work-group."""
    inner, rows = extent
    if not inner * rows:
        return Lowering(())
    width = min(local, 1 << (inner - 1).bit_length())
    height = local // width
    grid = (ceil_to(inner, width), ceil_to(rows, height))
    return Lowering((KernelCall("index", entry, tuple(args), grid, (width, height), defines),))


Lower = Callable[[OpCall, int, int], Lowering]


def lower_gather(call: OpCall, local: int, limit: int) -> Lowering:
    data, indices, axis = call.input(0), call.input(1), gather_axis(call)
    outer, n, inner = prod(data.shape[:axis]), data.shape[axis], prod(data.shape[axis + 1 :])
    width = word_width(inner, data.dtype.itemsize, limit)
    inner, rows = inner // width, outer * indices.size
    defines: dict[str, str | int | float] = {
        "T": WORDS[data.dtype.itemsize * width],
        "I": c_type(indices.dtype),
    }
    args: tuple[Argument, ...] = (inp(0), inp(1), out(0), *map(i32, (inner, indices.size, n, rows)))
    return _rows("gather", args, (inner, rows), defines, local)


def lower_gather_elements(call: OpCall, local: int, limit: int) -> Lowering:
    data, indices, axis = call.input(0), call.input(1), gather_axis(call)
    strides = row_major(data.shape)
    # The axis itself has stride 0 here: the index decides about it.
    lanes = tuple(0 if i == axis else s for i, s in enumerate(strides))
    shape = indices.shape
    move = collapsed(Move(inp(0), out(0), data.dtype.itemsize, shape, lanes, row_major(shape)))
    width, rows = move.dims[-1], prod(move.dims[:-1])
    scalars = (width, move.src_strides[-1], rows, data.shape[axis], strides[axis])
    outer = axis_pairs(move.dims[:-1], move.src_strides[:-1], MAX_RANK - 1)
    defines: dict[str, str | int | float] = {
        "T": WORDS[data.dtype.itemsize],
        "I": c_type(indices.dtype),
        "RANK": move.rank,
    }
    args: tuple[Argument, ...] = (inp(0), inp(1), out(0), *map(i32, scalars), *outer)
    return _rows("gather_elements", args, (width, rows), defines, local)


def lower_gather_nd(call: OpCall, local: int, limit: int) -> Lowering:
    data, indices = call.input(0), call.input(1)
    batch, depth = int(call.attribute("batch_dims", 0)), indices.shape[-1]
    inner = prod(data.shape[batch + depth :])
    width = word_width(inner, data.dtype.itemsize, limit)
    strides = [s // width for s in row_major(data.shape)]
    rows, batches = prod(indices.shape[:-1]), prod(data.shape[:batch])
    scalars = (inner // width, rows, rows // max(batches, 1), prod(data.shape[batch:]) // width)
    coordinates = slice(batch, batch + depth)
    pairs = axis_pairs(data.shape[coordinates], strides[coordinates], MAX_RANK)
    defines: dict[str, str | int | float] = {
        "T": WORDS[data.dtype.itemsize * width],
        "I": c_type(indices.dtype),
        "DEPTH": depth,
    }
    args: tuple[Argument, ...] = (inp(0), inp(1), out(0), *map(i32, scalars), *pairs)
    return _rows("gather_nd", args, (inner // width, rows), defines, local)


LOWERINGS: Mapping[str, Lower] = {
    "Gather": lower_gather,
    "GatherElements": lower_gather_elements,
    "GatherND": lower_gather_nd,
}


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.input(0).rank > MAX_RANK:
        return f"more than {MAX_RANK} dimensions"
    return refuse_moves((*call.inputs, *call.outputs))


def lower_wide(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Rows travel in the widest words that divide them."""
    return LOWERINGS[call.op_type](call, params["LOCAL"], min(16, facts.alignment))


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    return LOWERINGS[call.op_type](call, params["LOCAL"], 1)


FAMILY = KernelFamily(
    "index",
    tuple(LOWERINGS),
    (
        Variant("wide", lower_wide, applies, {"LOCAL": (64, 16, 256)}),
        Variant("naive", lower_naive, applies, {"LOCAL": (64, 16, 256)}),
    ),
)
