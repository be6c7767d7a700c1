"""Concat and Split on CPUs: all pieces in one launch (pieces.cl)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from coexec.core.types import OpCall, TensorType
from coexec.ops.pieces import concat_axis, split_axis, split_sizes
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    i32,
    inp,
    out,
)
from coexec.processors.opencl.kernels.moves import WORDS, refuse_moves
from coexec.processors.opencl.kernels.tensor_list import first_chunks, tensor_text

SPACE: Mapping[str, tuple[int, ...]] = {"SHARES": (8, 4, 16), "CHUNK": (4096, 1024, 16384)}
"""Shares of the work per compute unit; elements of a piece that a share takes at a time."""

MOST_PIECES = 16
"""Of one launch: more are several, with a program for each number of pieces."""
LEAST_RUN = 4
"""Elements of a piece in a row that are copied by vectors."""
LEAST_LANES, MOST_LANES = 4, 16


@dataclass(frozen=True)
class Piece:
    """A part of every row: ``run`` columns from ``start`` on."""

    operand: Operand
    run: int
    start: int


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why a call is not several pieces of rows that one launch moves, else ``None``."""
    if call.op_type not in ("Concat", "Split"):
        return f"{call.op_type}: no pieces of rows"
    refusal = refuse_moves((*call.inputs, *call.outputs))
    if refusal:
        return refusal
    if facts.unit_kind != "cpu":
        return "a work-item for many rows is for CPUs"
    found = pieces_of(call)
    if len(found) < 2:
        return "one piece"
    if min(piece.run for piece in found) < LEAST_RUN:
        return f"pieces of fewer than {LEAST_RUN} elements in a row"
    return None


def rows_of(call: OpCall) -> tuple[TensorType, int]:
    """The whole, and the axis from which on its elements are a row."""
    if call.op_type == "Split":
        return call.input(0), split_axis(call)
    return call.output(0), concat_axis(call)


def pieces_of(call: OpCall) -> list[Piece]:
    """The pieces that hold anything and that somebody reads."""
    whole, axis = rows_of(call)
    cut = call.op_type == "Split"
    extents = split_sizes(call) if cut else [kind.shape[axis] for kind in call.inputs if kind]
    runs = [extent * prod(whole.shape[axis + 1 :]) for extent in extents]
    starts = accumulate(runs[:-1], initial=0)
    return [
        Piece((out if cut else inp)(index), run, start)
        for index, (run, start) in enumerate(zip(runs, starts, strict=True))
        if whole.size and run and not (cut and not call.has_output(index))
    ]


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """As many pieces in a launch as its arguments can hold."""
    found = pieces_of(call)
    batches = (found[i : i + MOST_PIECES] for i in range(0, len(found), MOST_PIECES))
    return Lowering(tuple(_launch(call, batch, facts, params) for batch in batches))


def _launch(
    call: OpCall, pieces: Sequence[Piece], facts: DeviceFacts, params: Mapping[str, int]
) -> KernelCall:
    cut = call.op_type == "Split"
    whole, axis = rows_of(call)
    width, itemsize = prod(whole.shape[axis:]), whole.dtype.itemsize
    sizes = [whole.size // width * piece.run for piece in pieces]
    firsts, chunks = first_chunks(sizes, params["CHUNK"])
    arguments: list[Argument] = [inp(0) if cut else out(0), i32(width), i32(chunks)]
    for piece, size, first in zip(pieces, sizes, firsts, strict=True):
        arguments += [piece.operand, *map(i32, (size, first, piece.run, piece.start))]
    sources, targets = ((), ("piece",)) if cut else (("piece",), ())
    return KernelCall(
        "pieces",
        "pieces",
        tuple(arguments),
        (min(facts.compute_units * params["SHARES"], chunks),),
        (1,),
        {
            "T": WORDS[itemsize],
            "V": min(max(facts.vector_bytes // itemsize, LEAST_LANES), MOST_LANES),
            "CHUNK": params["CHUNK"],
            "CUT": int(cut),
            **tensor_text(sources, targets, "T", len(pieces), ("run", "start")),
        },
        bytes=2 * sum(sizes) * itemsize,
    )
