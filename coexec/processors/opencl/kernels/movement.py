"""Strided moves: Transpose, Slice, Concat, Split, Expand, Tile, DepthToSpace, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import prod

from coexec.core.types import OpCall
from coexec.ops.axes import known_ints
from coexec.ops.movement import (
    BlockMove,
    depth_to_space_move,
    permutation,
    sequence_axes,
    space_to_depth_move,
    trilu_diagonal,
)
from coexec.ops.pieces import concat_axis, cuts, split_axis, split_sizes
from coexec.processors.opencl.family import (
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
from coexec.processors.opencl.kernels import pieces
from coexec.processors.opencl.kernels.moves import (
    MAX_RANK,
    WORDS,
    Move,
    collapsed,
    refuse_moves,
    row_grid,
    row_major,
    span_of,
    swapped_axis,
    unrolled,
    widened,
)


def _permuted(call: OpCall, view: Sequence[int], perm: Sequence[int]) -> list[Move]:
    """Input 0, seen as ``view``, with its dimensions in the order ``perm``."""
    strides = row_major(view)
    dims = tuple(view[p] for p in perm)
    itemsize = call.input(0).dtype.itemsize
    src = tuple(strides[p] for p in perm)
    return [Move(inp(0), out(0), itemsize, dims, src, row_major(dims))]


def transpose_moves(call: OpCall) -> list[Move]:
    return _permuted(call, call.input(0).shape, permutation(call))


def _block_moves(rule: Callable[[OpCall], BlockMove]) -> Callable[[OpCall], list[Move]]:
    return lambda call: _permuted(call, *rule(call))


def slice_moves(call: OpCall) -> list[Move]:
    data, parts = call.input(0), cuts(call)
    strides, dims = row_major(data.shape), call.output(0).shape
    src = tuple(c.step * s for c, s in zip(parts, strides, strict=True))
    start = sum(c.start * s for c, s in zip(parts, strides, strict=True))
    return [Move(inp(0), out(0), data.dtype.itemsize, dims, src, row_major(dims), start)]


def concat_moves(call: OpCall) -> list[Move]:
    axis, result = concat_axis(call), call.output(0)
    dst = row_major(result.shape)
    parts = [call.input(i) for i in range(len(call.inputs))]
    starts = accumulate((p.shape[axis] for p in parts[:-1]), initial=0)
    size = result.dtype.itemsize
    return [
        Move(inp(i), out(0), size, p.shape, row_major(p.shape), dst, 0, start * dst[axis])
        for i, (p, start) in enumerate(zip(parts, starts, strict=True))
    ]


def split_moves(call: OpCall) -> list[Move]:
    axis, data = split_axis(call), call.input(0)
    src = row_major(data.shape)
    starts = accumulate(split_sizes(call)[:-1], initial=0)
    return [
        Move(inp(0), out(i), p.dtype.itemsize, p.shape, src, row_major(p.shape), start * src[axis])
        # Outputs that a repetition leaves out at the end are not there at all.
        for i, (p, start) in enumerate(zip(call.outputs, starts, strict=False))
        if p is not None
    ]


def expand_moves(call: OpCall) -> list[Move]:
    data, result = call.input(0), call.output(0)
    lead = (1,) * (result.rank - data.rank) + data.shape
    strides = row_major(lead)
    src = tuple(0 if d == 1 else s for d, s in zip(lead, strides, strict=True))
    return [Move(inp(0), out(0), data.dtype.itemsize, result.shape, src, row_major(result.shape))]


def tile_moves(call: OpCall) -> list[Move]:
    data, repeats = call.input(0), known_ints(call, 1, "repeats")
    # Every dimension is (repeat, original): the first has stride 0 in the source.
    dims = [n for pair in zip(repeats, data.shape, strict=True) for n in pair]
    src = [n for stride in row_major(data.shape) for n in (0, stride)]
    return [Move(inp(0), out(0), data.dtype.itemsize, tuple(dims), tuple(src), row_major(dims))]


LEAST_RUN = 4
"""Elements of a run that is copied by vectors."""

LEAST_PART = 4096
"""Bytes of a run below which it is not cut into parts."""

NARROW = 8
"""Rows of fewer elements are not worth a work-item each."""

MOVES: Mapping[str, Callable[[OpCall], list[Move]]] = {
    "Transpose": transpose_moves,
    "Slice": slice_moves,
    "Concat": concat_moves,
    "Split": split_moves,
    "Expand": expand_moves,
    "Tile": tile_moves,
    "DepthToSpace": _block_moves(depth_to_space_move),
    "SpaceToDepth": _block_moves(space_to_depth_move),
}
"""The moves of each operator, in plain element strides."""


def _outer_axes(move: Move, axes: Sequence[int]) -> tuple[Scalar, ...]:
    """(size, source stride, target stride) of the outer dimensions, filled up to the signature."""
    triples = [(move.dims[a], move.src_strides[a], move.dst_strides[a]) for a in axes]
    triples += [(1, 0, 0)] * (MAX_RANK - 1 - len(triples))
    return tuple(i32(value) for triple in triples for value in triple)


def _steps(src_step: int, dst_step: int) -> dict[str, str | int | float]:
    """Defines for strides that let a compiler vectorise (others stay run-time arguments)."""
    fixed: dict[str, str | int | float] = {}
    if src_step in (0, 1):
        fixed["SRC_STEP"] = src_step
    if dst_step == 1:
        fixed["DST_STEP"] = 1
    return fixed


def _copy(move: Move, params: Mapping[str, int]) -> KernelCall:
    n, rows = move.dims[-1], prod(move.dims[:-1])
    src_step, dst_step = move.src_strides[-1], move.dst_strides[-1]
    scalars = (move.src_offset, move.dst_offset, n, src_step, dst_step, rows)
    span = span_of(n, params["SPAN"])
    sizes = row_grid(n, rows, span, params["LOCAL"])
    return KernelCall(
        "movement",
        "copy",
        (move.src, move.dst, *map(i32, scalars), *_outer_axes(move, range(move.rank - 1))),
        *sizes,
        {
            "T": WORDS[move.itemsize],
            "RANK": move.rank,
            "SPAN": span,
            **_steps(src_step, dst_step),
        },
        bytes=2 * move.size * move.itemsize,
    )


def _copy_narrow(move: Move, params: Mapping[str, int]) -> KernelCall:
    n, rows = move.dims[-2], prod(move.dims[:-2])
    src_step, dst_step = move.src_strides[-2], move.dst_strides[-2]
    narrow = (move.src_strides[-1], move.dst_strides[-1])
    scalars = (move.src_offset, move.dst_offset, n, src_step, dst_step, rows, *narrow)
    span = span_of(n, params["SPAN"])
    sizes = row_grid(n, rows, span, params["LOCAL"])
    return KernelCall(
        "movement",
        "copy_narrow",
        (move.src, move.dst, *map(i32, scalars), *_outer_axes(move, range(move.rank - 2))),
        *sizes,
        {
            "T": WORDS[move.itemsize],
            "RANK": move.rank - 1,
            "SPAN": span,
            "NARROW": move.dims[-1],
            **_steps(src_step, dst_step),
        },
        bytes=2 * move.size * move.itemsize,
    )


def _swap(move: Move, axis: int, block: int) -> KernelCall:
    outer = [a for a in range(move.rank - 1) if a != axis]
    na, nb, rows = move.dims[-1], move.dims[axis], prod(move.dims[a] for a in outer)
    steps = (move.src_strides[-1], move.dst_strides[axis])
    scalars = (move.src_offset, move.dst_offset, na, nb, *steps)
    # Small blocks are for devices that want many work-items together, large ones for others.
    side = 8 if block == 4 else 1
    word = WORDS[move.itemsize]
    return KernelCall(
        "movement",
        "swap",
        (move.src, move.dst, *map(i32, scalars), *_outer_axes(move, outer)),
        (ceil_to(-(-nb // block), side), ceil_to(-(-na // block), side), rows),
        (side, side, 1),
        {"T": word, "T4": f"{word}4", "RANK": len(outer) + 1, "BLOCK": block},
        bytes=2 * move.size * move.itemsize,
    )


def _is_run(move: Move) -> bool:
    """Whether the innermost dimension is consecutive in the target, and so or one in the source."""
    consecutive = move.dst_strides[-1] == 1 and move.src_strides[-1] in (0, 1)
    return consecutive and move.dims[-1] >= LEAST_RUN


def _runs(move: Move, facts: DeviceFacts, params: Mapping[str, int]) -> KernelCall:
    """Runs as explicit vectors; long ones in parts, so that all compute units have some."""
    n, rows = move.dims[-1], prod(move.dims[:-1])
    shares = facts.compute_units * params["SHARES"]
    lanes = max(min(max(facts.vector_bytes, 16) // move.itemsize, 16), 4)
    part = ceil_to(-(-n // max(-(-shares // rows), 1)), lanes)
    part = max(part, min(n, LEAST_PART // move.itemsize))
    parts = -(-n // part)
    scalars = (move.src_offset, move.dst_offset, n, rows, parts, part)
    return KernelCall(
        "runs",
        "runs",
        (move.src, move.dst, *map(i32, scalars), *_outer_axes(move, range(move.rank - 1))),
        (min(shares, rows * parts),),
        (1,),
        {
            "T": WORDS[move.itemsize],
            "V": lanes,
            "RANK": move.rank,
            "REPEAT": int(move.src_strides[-1] == 0),
        },
        bytes=2 * move.size * move.itemsize,
    )


def _fast(move: Move, facts: DeviceFacts, params: Mapping[str, int]) -> KernelCall:
    """Runs as vectors (CPUs), wide words where runs allow, tiles where other axes are inner."""
    if facts.unit_kind == "cpu" and _is_run(move):
        return _runs(move, facts, params)
    wide = widened(move, min(params["WORD"], facts.alignment))
    if wide.dims[-1] < NARROW and wide.rank > 1:
        return _copy_narrow(wide, params)
    axis = swapped_axis(wide)
    if axis is not None and wide.dims[axis] >= NARROW:
        return _swap(wide, axis, params["BLOCK"])
    return _copy(wide, params)


def _moves(call: OpCall) -> list[Move]:
    found = (collapsed(m) for m in MOVES[call.op_type](call) if m.size)
    return [part for move in found for part in unrolled(move)]


def lower_fast(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    if call.op_type in ARRANGED:
        return ARRANGED[call.op_type](call, params)
    return Lowering(tuple(_fast(move, facts, params) for move in _moves(call)))


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One element per work-item."""
    single = {**params, "SPAN": 1}
    if call.op_type in ARRANGED:
        return ARRANGED[call.op_type](call, single)
    return Lowering(tuple(_copy(move, single) for move in _moves(call)))


def lower_trilu(call: OpCall, params: Mapping[str, int]) -> Lowering:
    data = call.input(0)
    if not data.size:
        return Lowering(())
    rows, columns = data.shape[-2:]
    # Beyond the matrix every diagonal acts alike, so that any int64 fits the argument.
    diagonal = max(-rows - 1, min(columns + 1, trilu_diagonal(call)))
    span, lines = span_of(columns, params["SPAN"]), data.size // columns
    sizes = row_grid(columns, lines, span, params["LOCAL"])
    kernel = KernelCall(
        "movement",
        "trilu",
        (inp(0), out(0), *map(i32, (columns, rows, lines, diagonal))),
        *sizes,
        {
            "T": WORDS[data.dtype.itemsize],
            "UPPER": int(bool(call.attribute("upper", 1))),
            "SPAN": span,
        },
    )
    return Lowering((kernel,))


def lower_reverse_sequence(call: OpCall, params: Mapping[str, int]) -> Lowering:
    data, (_, time) = call.input(0), sequence_axes(call)
    if not data.size:
        return Lowering(())
    first, second = data.shape[:2]
    inner = prod(data.shape[2:])
    span = span_of(inner, params["SPAN"])
    sizes = row_grid(inner, first * second, span, params["LOCAL"])
    kernel = KernelCall(
        "movement",
        "reverse",
        (inp(0), inp(1), out(0), *map(i32, (inner, first, second, int(time == 0)))),
        *sizes,
        {
            "T": WORDS[data.dtype.itemsize],
            "L": c_type(call.input(1).dtype),
            "SPAN": span,
        },
    )
    return Lowering((kernel,))


COALESCED: Mapping[str, int] = {"SPAN": 1, "WORD": 16, "LOCAL": 64, "BLOCK": 4}
"""On a GPU neighbouring items move neighbouring words; of a transposed tile each has 4 x 4."""


def suited_moves(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """What an item moves: long spans for cores that follow one stream each, words for waves."""
    return COALESCED if facts.unit_kind == "gpu" else {}


ARRANGED: Mapping[str, Callable[[OpCall, Mapping[str, int]], Lowering]] = {
    "Trilu": lower_trilu,
    "ReverseSequence": lower_reverse_sequence,
}
"""Operators that are no strided move: each has a kernel of its own."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_moves((*call.inputs, *call.outputs))


FAMILY = KernelFamily(
    "movement",
    (*MOVES, *ARRANGED),
    (
        Variant("pieces", pieces.lower, pieces.refuse, pieces.SPACE, units=("cpu",)),
        Variant(
            "streaming",
            lower_fast,
            applies,
            {
                "SPAN": (16, 64, 4, 1),
                "WORD": (4, 16),
                "LOCAL": (16, 64, 4),
                "BLOCK": (32, 16, 4),
                "SHARES": (8, 4, 16),
            },
            suited_moves,
        ),
        Variant("naive", lower_naive, applies, {"LOCAL": (64,)}),
    ),
)
