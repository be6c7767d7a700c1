"""Products of unsigned bytes by a known matrix, by dot products of words of four."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Variant,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.fusion.integer_matmul import (
    A_SCALE,
    A_ZERO,
    BIAS,
    INTEGER_MATMUL,
    SCALES,
    WEIGHTS,
    ZEROS,
    A,
    stored_columns,
    work,
)
from coexec.processors.opencl.fusion.integer_operators import LANES, WORD
from coexec.processors.opencl.kernels.integer_conv import tile_of, vectors_of

FAMILY_FILE = "integer_matmul"
Defines = dict[str, str | int | float]


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def sizes_of(call: OpCall) -> tuple[int, int, int]:
    """Rows of all batches, columns, depth."""
    depth, columns = call.input(WEIGHTS).shape
    return call.output(0).size // max(columns, 1), columns, depth


def _defines(call: OpCall) -> Defines:
    found: Defines = {"SCALED": int(call.has_input(A_SCALE))}
    for index, name in ((A_ZERO, "ZERO_A"), (ZEROS, "ZERO_B"), (BIAS, "BIAS")):
        if call.has_input(index):
            found[name] = 1
    return found


def _zeros_of_rows(call: OpCall) -> tuple[Argument, ...]:
    if not call.has_input(A_ZERO):
        return ()
    return inp(A_ZERO), i32(call.input(A_ZERO).size)


def _if_there(call: OpCall, *indices: int) -> tuple[Operand, ...]:
    return tuple(inp(index) for index in indices if call.has_input(index))


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per element of the result."""
    (_, columns, depth), size, local = sizes_of(call), call.output(0).size, params["LOCAL"]
    if not size:
        return Lowering(())
    more = (*_zeros_of_rows(call), *_if_there(call, ZEROS, A_SCALE, SCALES, BIAS))
    kernel = KernelCall(
        FAMILY_FILE,
        "products_naive",
        (inp(A), inp(WEIGHTS), out(0), *more, *map(i32, (size, columns, depth))),
        (ceil_to(size, local),),
        (local,),
        _defines(call),
    )
    return Lowering((kernel,))


def applies_dots(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why dot products do not compute a call, else ``None``."""
    return applies(call, facts) if call.output(0).size else "an empty result"


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    rows, columns, _ = sizes_of(call)
    vectors = vectors_of(stored_columns(columns))
    return {"VECS": vectors, "TILE": tile_of(rows, vectors)}


def lower_dots(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Weights in words and their sums first, then tiles of dot products."""
    rows, columns, depth = sizes_of(call)
    stored, words = stored_columns(columns), -(-depth // WORD)
    wanted, tile = params["VECS"], min(params["TILE"], rows)
    vectors = wanted if stored % (LANES * wanted) == 0 else vectors_of(stored)
    vnni = facts.dots == "vnni"
    defines = {**_defines(call), "VECS": vectors, "TILE": tile, "VNNI": int(vnni)}
    blocks = [stored * words * WORD, stored * 4]
    calls = [
        _prepared("pack_words", call, stored * words, (columns, depth, words), 0, defines),
        _prepared("column_sums", call, stored, (columns, depth), 1, defines),
    ]
    source: Operand = inp(A)
    if depth % WORD:
        source = scratch(len(blocks))
        blocks.append(rows * words * WORD)
        calls.append(_by_rows("pad_rows", inp(A), source, rows, (depth, words), defines))
    sums: tuple[Argument, ...] = ()
    if call.has_input(ZEROS):
        sums = (scratch(len(blocks)),)
        blocks.append(rows * 4)
        calls.append(_by_rows("row_sums", source, sums[0], rows, (words,), defines))
    lanes, own = 1 if vnni else LANES, work(call)
    more = (
        *(*_zeros_of_rows(call), *_if_there(call, ZEROS), *sums),
        *_if_there(call, A_SCALE, SCALES, BIAS),
    )
    products = KernelCall(
        FAMILY_FILE,
        "products",
        (source, scratch(0), scratch(1), out(0), *more, *map(i32, (rows, columns, words))),
        (lanes, -(-rows // tile), stored // (LANES * vectors)),
        (lanes, 1, 1),
        defines,
        flop=own.flop,
        bytes=own.bytes,
        finishes="tensors" if call.has_input(A_SCALE) else "nothing",
    )
    return Lowering((*calls, products), tuple(blocks))


def _prepared(
    entry: str, call: OpCall, items: int, sizes: tuple[int, ...], block: int, defines: Defines
) -> KernelCall:
    """What is made of the weights, once."""
    packs = entry == "pack_words"
    more = () if packs else _if_there(call, ZEROS)
    return KernelCall(
        FAMILY_FILE,
        entry,
        (inp(WEIGHTS), scratch(block), *more, *map(i32, sizes)),
        (items,),
        None,
        defines,
        bytes=call.input(WEIGHTS).nbytes + items * WORD,
        layout=packs,
        prepares=True,
    )


def _by_rows(
    entry: str,
    source: Argument,
    target: Argument,
    rows: int,
    sizes: tuple[int, ...],
    defines: Defines,
) -> KernelCall:
    return KernelCall(
        FAMILY_FILE,
        entry,
        (source, target, *map(i32, sizes)),
        (rows,),
        (1,),
        defines,
        bytes=rows * sizes[-1] * WORD * 2,
        layout=entry == "pad_rows",
    )


FAMILY = KernelFamily(
    FAMILY_FILE,
    (INTEGER_MATMUL.identifier,),
    (
        Variant(
            "dots",
            lower_dots,
            applies_dots,
            space={"VECS": (4, 3, 2, 1), "TILE": (6, 4, 5, 7, 8, 12, 14, 1, 2, 3)},
            suited=suited,
            units=("cpu",),
        ),
        Variant("naive", lower_naive, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
