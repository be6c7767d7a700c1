"""Matrix products on GPUs (tiled.cl): tiles of work-groups, and sums along the terms by groups.

A work-group of 64 or 128 items computes a tile of the result. It brings steps of both operands to
local memory, or its items read them where they lie: that is for GPUs whose local memory is plain
memory (Mali), and for few rows, of which tiles would stand empty. Where tiles are too few to occupy
the device, the sum is cut, and another kernel adds its parts up. With few rows and an operand that
runs along the terms, groups sum along these.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    Scalar,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.packed import matches as refuse_type
from coexec.processors.opencl.kernels.products import (
    Product,
    accumulator,
    padded_levels,
    refuse_product,
)
from coexec.processors.opencl.kernels.tiles import (
    COLUMNS,
    THIN,
    Tile,
    divided,
    parts_bytes,
    refuse_groups,
    suited_tile,
    type_defines,
)

DOTS_SPACE: Mapping[str, tuple[int, ...]] = {"LANES": (32, 16, 64)}
"""Items of a group that sum along the terms together."""

DOTS_ITEMS = 64
"""Work-items of a group that sums along the terms."""
FEW = 4
"""Rows that share what such a group reads."""
MOST_FEW = 16
"""Beyond, tiles read less."""
LEAST_DEPTH = 128
"""Terms that keep the lanes of a group busy."""
FEW_TASKS = 2
"""Tiles per compute unit from which on parts of sums in memory cost more than they gain."""
SUM_ITEMS = 64
"""Items of a group that adds parts up."""


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why tiles do not fit this product, else ``None``."""
    unfit = refuse_product(call, facts) or refuse_type(call.output(0).dtype)
    return unfit or refuse_groups(facts)


def refuse_dots(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why sums along the terms by groups do not fit this product, else ``None``."""
    refusal = refuse(call, facts)
    if refusal:
        return refusal
    p = Product.of(call)
    if p.depth < LEAST_DEPTH:
        return f"fewer than {LEAST_DEPTH} terms"
    if not (_is_right_many(p) or _is_left_many(p)):
        return f"more than {MOST_FEW} rows and columns, or the others do not run along terms"
    return None


def _is_right_many(p: Product) -> bool:
    """Few rows of A, and columns of B that run along terms."""
    return p.rows <= MOST_FEW and p.b[0] == 1


def _is_left_many(p: Product) -> bool:
    """Few columns of B, and rows of A that run along terms."""
    return p.columns <= MOST_FEW and p.a[1] == 1


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The tile that wastes and reads the least, of those that occupy the device."""
    p = Product.of(call)
    return suited_tile(p.rows, p.columns, p.batches, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """The product in tiles, and the sum of its parts where it is cut."""
    y = call.output(0)
    if y.size == 0:
        return Lowering(())
    p, tile = Product.of(call), Tile.of(params)
    staged = bool(params["STAGED"]) and tile.rows != THIN
    tile = tile.within(facts.local_bytes, y.dtype, 2 * COLUMNS)
    across, along = -(-p.columns // tile.columns), -(-p.rows // tile.rows)
    parts, span = _parts(p, tile, across * along * p.batches, facts, params)
    kernel = KernelCall(
        family="tiled",
        entry="tiled",
        args=(
            *_operands(p, 0, 1),
            out(0) if parts == 1 else scratch(0),
            *_factors(p, y.dtype),
            *map(i32, (*(p.c or (0, 0)), p.rows, p.columns, p.depth, parts, span, y.size)),
            *map(i32, (*p.a, *p.b, *_batch(p))),
        ),
        global_size=(across * tile.items[0], along * tile.items[1], p.batches * parts),
        local_size=(*tile.items, 1),
        defines={
            **tile.defines(y.dtype),
            **_reading(p, tile),
            "STAGED": int(staged),
            "PARTS": int(parts > 1),
            "HAS_BIAS": int(p.c is not None),
            "ALIGNED": int(p.columns % COLUMNS == 0),
        },
        flop=2 * p.rows * p.columns * p.depth * p.batches,
        bytes=_moved(call),
        finishes="tensors" if parts == 1 else "nothing",
    )
    if parts == 1:
        return Lowering((kernel,))
    nbytes = parts_bytes(y, parts)
    return Lowering((kernel, _sum(call, p, parts, nbytes)), (nbytes,))


def _parts(
    p: Product, tile: Tile, tasks: int, facts: DeviceFacts, params: Mapping[str, int]
) -> tuple[int, int]:
    """Parts of the sum and terms of each, where so many tiles are too few for the device."""
    if tasks >= FEW_TASKS * facts.compute_units:
        return 1, p.depth
    return divided(p.depth, p.depth, max(tile.terms, COLUMNS), tasks, facts, params)


def _reading(p: Product, tile: Tile) -> dict[str, str | int | float]:
    """Along which axis operands are read, and whether as vectors."""
    left, right = int(p.a[1] != 1), int(p.b[1] == 1 and p.columns > 1)
    whole_a = (p.a[0] if not left else p.a[1]) % COLUMNS == 0 and _whole(p, 1)
    whole_b = (p.b[0] if right else p.b[1]) % COLUMNS == 0 and _whole(p, 2)
    terms = p.depth % COLUMNS == 0
    fine = tile.terms % COLUMNS == 0
    vector_a = fine and whole_a and (terms if not left else p.rows % COLUMNS == 0)
    vector_b = fine and whole_b and (p.columns % COLUMNS == 0 if right else terms)
    return {
        "LEFT_ALONG": left,
        "RIGHT_ALONG": right,
        "VA": COLUMNS if vector_a else 1,
        "VB": COLUMNS if vector_b else 1,
        "FOURS": int(terms),
    }


def _whole(p: Product, operand: int) -> bool:
    """Whether the matrices of a batch begin at whole vectors."""
    return all(level[operand] % COLUMNS == 0 for level in p.batch)


def _sum(call: OpCall, p: Product, parts: int, nbytes: int) -> KernelCall:
    """The kernel that adds parts of sums up."""
    y = call.output(0)
    return KernelCall(
        family="tiled",
        entry="tiled_sum",
        args=(
            *(scratch(0), inp(1 if p.c is None else 2), out(0)),
            *_factors(p, y.dtype),
            *map(i32, (*(p.c or (0, 0)), p.rows, p.columns, y.size, parts)),
        ),
        global_size=(ceil_to(y.size, SUM_ITEMS),),
        local_size=(SUM_ITEMS,),
        defines={**type_defines(y.dtype), "STEP": 2, "HAS_BIAS": int(p.c is not None)},
        flop=parts * y.size,
        bytes=nbytes + y.nbytes,
        finishes="tensors",
    )


def lower_dots(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Sums along the terms, each by the lanes of a group."""
    y = call.output(0)
    if y.size == 0:
        return Lowering(())
    p = Product.of(call)
    bias, levels = p.c or (0, 0), padded_levels(p)
    first, second = [level[1] for level in levels], [level[2] for level in levels]
    if _is_right_many(p):
        operands, few, many = _operands(p, 0, 1), (p.rows, *p.a), (p.columns, p.b[1])
        result = (p.columns, 1)
    else:
        operands, few, many = _operands(p, 1, 0), (p.columns, p.b[1], p.b[0]), (p.rows, p.a[0])
        result, bias, first, second = (1, p.columns), (bias[1], bias[0]), second, first
    wide = p.depth % COLUMNS == 0 and few[2] == 1
    rows_whole = all(stride % COLUMNS == 0 for stride in (few[1], many[1], *first, *second))
    height = min(FEW, 1 << (few[0] - 1).bit_length())
    lanes = params["LANES"]
    tall = DOTS_ITEMS // lanes
    extents = [level[0] for level in levels[1:]]
    numbers = (*bias, few[0], many[0], p.depth, few[1], few[2], many[1], *result)
    kernel = KernelCall(
        family="tiled",
        entry="dots_of_groups",
        args=(
            *(*operands, out(0)),
            *_factors(p, y.dtype),
            *map(i32, (*numbers, *extents, *first, *second)),
        ),
        global_size=(-(-many[0] // tall) * lanes, -(-few[0] // height) * tall, p.batches),
        local_size=(lanes, tall, 1),
        defines={
            **type_defines(y.dtype),
            "STEP": 1,
            "LANES": lanes,
            "MANY": tall,
            "FEW": height,
            "VK": COLUMNS if wide and rows_whole else 1,
            "HAS_BIAS": int(p.c is not None),
        },
        flop=2 * p.rows * p.columns * p.depth * p.batches,
        bytes=_moved(call),
        finishes="tensors",
    )
    return Lowering((kernel,))


def _operands(p: Product, first: int, second: int) -> tuple[Argument, ...]:
    """Both operands and the bias; without one, any tensor stands there."""
    return inp(first), inp(second), inp(1 if p.c is None else 2)


def _factors(p: Product, dtype: np.dtype[np.generic]) -> tuple[Scalar, Scalar]:
    sums = accumulator(dtype)
    return Scalar(p.alpha, sums), Scalar(p.beta, sums)


def _batch(p: Product) -> tuple[int, ...]:
    """Extents of the inner levels of the batch, strides of A and of B."""
    levels = padded_levels(p)
    extents = [level[0] for level in levels[1:]]
    return (*extents, *(level[1] for level in levels), *(level[2] for level in levels))


def _moved(call: OpCall) -> int:
    """Bytes of operands and result, each once."""
    return sum(kind.nbytes for kind in (*call.inputs, *call.outputs) if kind is not None)
