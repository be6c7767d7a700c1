"""Activations as blocks of small integers, and back: ``compress.cl``, ``compress_words.cl``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.compressed import BLOCK, WORD, bits_of, blocks_of
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
)

COMPRESS, DECOMPRESS = "coexec::CompressBlocks", "coexec::DecompressBlocks"
FLOATS = ("float16", "float32", "float64")

Defines = dict[str, str | int | float]


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    kind = call.input(0) if call.identifier == COMPRESS else call.output(0)
    if kind.dtype.name not in FLOATS:
        return f"no kernel for {kind.dtype.name}"
    return refuse_types((*call.inputs, *call.outputs), facts)


def applies_lanes(call: OpCall, facts: DeviceFacts) -> str | None:
    kind = call.input(0) if call.identifier == COMPRESS else call.output(0)
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    if kind.dtype == np.float64:
        return "codes are made in float32"
    return applies(call, facts)


def _defines(call: OpCall, lanes: int) -> Defines:
    packing = call.identifier == COMPRESS
    kind = call.input(0) if packing else call.output(0)
    ends = call.output(1) if packing else call.input(1)
    wide = kind.dtype == np.float64
    found: Defines = {
        "T": c_type(kind.dtype),
        "ACC": "double" if wide else "float",
        "E": c_type(ends.dtype),
        "BITS": bits_of(call),
        "LANES": int(lanes > 0),
    }
    if lanes:
        found |= {"V": lanes, "SAME": int(kind.dtype != np.float16)}
    return found


def _lowered(
    call: OpCall,
    family: str,
    ending: str,
    defines: Defines,
    global_size: int,
    local: int,
) -> Lowering:
    """Kernel ``compress`` or ``decompress`` with that ending; nothing where there is no value."""
    packing = call.identifier == COMPRESS
    size = (call.input(0) if packing else call.output(0)).size
    if size == 0:
        return Lowering(())
    kernel = KernelCall(
        family=family,
        entry=("compress" if packing else "decompress") + ending,
        args=(
            *((inp(0), out(0), out(1)) if packing else (inp(0), inp(1), out(0))),
            i32(size),
            i32(blocks_of(size)),
        ),
        global_size=(ceil_to(global_size, local),),
        local_size=(local,),
        defines=defines,
    )
    return Lowering((kernel,))


def _sizes(call: OpCall) -> tuple[int, int]:
    """Blocks of a call, and words of a block."""
    kind = call.input(0) if call.identifier == COMPRESS else call.output(0)
    return blocks_of(kind.size), BLOCK * bits_of(call) // WORD


def lower_lanes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Shares of the blocks, each a work-item's."""
    blocks, words = _sizes(call)
    lanes = max(min(facts.vector_bytes // 4, words, 16), 4)
    items = max(min(facts.compute_units * params["SHARES"], blocks), 1)
    return _lowered(call, "compress", "", _defines(call, lanes), items, 1)


def lower_words(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One word of a block's codes per work-item, blocks side by side in a group."""
    blocks, words = _sizes(call)
    local = params["LOCAL"]
    defines = {**_defines(call, 0), "LOCAL": local}
    return _lowered(call, "compress_words", "_words", defines, blocks * words, local)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One block per work-item."""
    blocks, _ = _sizes(call)
    return _lowered(call, "compress", "_naive", _defines(call, 0), blocks, params["LOCAL"])


FAMILY = KernelFamily(
    "compress",
    (COMPRESS, DECOMPRESS),
    (
        Variant("lanes", lower_lanes, applies_lanes, space={"SHARES": (8, 4, 16)}, units=("cpu",)),
        Variant("words", lower_words, applies, {"LOCAL": (64, 128, 256)}, units=("gpu",)),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
