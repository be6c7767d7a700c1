"""Activations as blocks of small integers, and back: ``compress.cl``."""

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


def _defines(call: OpCall, lanes: int) -> dict[str, str | int | float]:
    packing = call.identifier == COMPRESS
    kind = call.input(0) if packing else call.output(0)
    ends = call.output(1) if packing else call.input(1)
    wide = kind.dtype == np.float64
    found: dict[str, str | int | float] = {
        "T": c_type(kind.dtype),
        "ACC": "double" if wide else "float",
        "E": c_type(ends.dtype),
        "BITS": bits_of(call),
        "LANES": int(lanes > 0),
    }
    if lanes:
        found |= {"V": lanes, "SAME": int(kind.dtype != np.float16)}
    return found


def _kernel(
    call: OpCall, lanes: int, global_size: tuple[int, ...], local: tuple[int, ...]
) -> Lowering:
    packing = call.identifier == COMPRESS
    kind = call.input(0) if packing else call.output(0)
    if kind.size == 0:
        return Lowering(())
    entry = ("compress" if packing else "decompress") + ("" if lanes else "_naive")
    tensors = (inp(0), out(0), out(1)) if packing else (inp(0), inp(1), out(0))
    kernel = KernelCall(
        family="compress",
        entry=entry,
        args=(*tensors, i32(kind.size), i32(blocks_of(kind.size))),
        global_size=global_size,
        local_size=local,
        defines=_defines(call, lanes),
    )
    return Lowering((kernel,))


def lower_lanes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Shares of the blocks, each a work-item's."""
    kind = call.input(0) if call.identifier == COMPRESS else call.output(0)
    words = BLOCK * bits_of(call) // WORD
    lanes = max(min(facts.vector_bytes // 4, words, 16), 4)
    items = max(min(facts.compute_units * params["SHARES"], blocks_of(kind.size)), 1)
    return _kernel(call, lanes, (items,), (1,))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One block per work-item."""
    kind = call.input(0) if call.identifier == COMPRESS else call.output(0)
    local = params["LOCAL"]
    return _kernel(call, 0, (ceil_to(blocks_of(kind.size), local),), (local,))


FAMILY = KernelFamily(
    "compress",
    (COMPRESS, DECOMPRESS),
    (
        Variant("lanes", lower_lanes, applies_lanes, space={"SHARES": (8, 4, 16)}, units=("cpu",)),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
