"""One bit for each element, and what passes by them: ``bit_masks.cl``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.ops.bit_masks import BLOCK, bounds_of, words_of
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Scalar,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
)

PACK, UNPACK, SELECT = "coexec::PackBits", "coexec::UnpackBits", "coexec::SelectByBits"
ENTRIES: Mapping[str, str] = {PACK: "pack", UNPACK: "unpack", SELECT: "select"}


def data_of(call: OpCall) -> TensorType:
    """The tensor with an element for each bit."""
    if call.identifier == PACK:
        return call.input(0)
    return call.output(0)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if data_of(call).dtype.name not in ("float16", "float32", "float64", "bool"):
        return f"no kernel for {data_of(call).dtype.name}"
    return refuse_types((*call.inputs, *call.outputs), facts)


def applies_lanes(call: OpCall, facts: DeviceFacts) -> str | None:
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    if data_of(call).dtype.name not in ("float16", "float32"):
        return f"no vectors of {data_of(call).dtype.name}"
    return applies(call, facts)


def bounds_arguments(call: OpCall, dtype: str) -> tuple[Argument, ...]:
    """low, high, open: see ``bit_masks.cl``."""
    low, high = bounds_of(call) if data_of(call).dtype.kind == "f" else (0.0, None)
    none = int(low is None) + 2 * int(high is None)
    return Scalar(low or 0.0, dtype), Scalar(high or 0.0, dtype), i32(none)


def _kernel(
    call: OpCall, entry: str, count: int, global_size: int, local: int, lanes: int
) -> Lowering:
    data = data_of(call)
    if data.size == 0:
        return Lowering(())
    wide = data.dtype == np.float64
    defines: dict[str, str | int | float] = {
        "T": c_type(data.dtype),
        "ACC": "double" if wide else "float",
        "LANES": lanes,
    }
    if lanes:
        defines["SAME"] = int(data.dtype != np.float16)
    tensors: tuple[Operand, ...] = (
        (inp(0), inp(1), out(0)) if call.identifier == SELECT else (inp(0), out(0))
    )
    numbers: tuple[Argument, ...] = (i32(data.size), *([i32(count)] if count else []))
    if call.identifier == PACK:
        numbers += bounds_arguments(call, "float64" if wide else "float32")
    kernel = KernelCall(
        family="bit_masks",
        entry=entry,
        args=(*tensors, *numbers),
        global_size=(ceil_to(global_size, local),),
        local_size=(local,),
        defines=defines,
    )
    return Lowering((kernel,))


def lower_lanes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Shares of the blocks, each a work-item's."""
    blocks = -(-data_of(call).size // BLOCK)
    items = max(min(facts.compute_units * params["SHARES"], blocks), 1)
    entry = "pack" if call.identifier == PACK else "select_by_bits"
    return _kernel(call, entry, blocks, items, 1, 1)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A word or an element per work-item."""
    size = data_of(call).size
    count = words_of(size) if call.identifier == PACK else 0
    return _kernel(
        call, f"{ENTRIES[call.identifier]}_naive", count, count or size, params["LOCAL"], 0
    )


FAMILY = KernelFamily(
    "bit_masks",
    (PACK, UNPACK, SELECT),
    (
        Variant("lanes", lower_lanes, applies_lanes, space={"SHARES": (8, 4, 16)}, units=("cpu",)),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
