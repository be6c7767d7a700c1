"""Optimizer steps whose states are kept in 8 bits: a work-group for a few blocks of a state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.opdef import COEXEC
from coexec.ops.optim_8bit import block_size, blocks_of, hyper_8bit
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Scalar,
    Variant,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.kernels.optim import numbers

FLOAT = np.dtype(np.float32)
WIDEST = 16
"""Elements of the longest vector."""

LARGEST_BLOCK = 2048
"""Elements of which two states fit into the local memory that every device has (32 KiB)."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    kinds = (kind for kind in call.inputs if kind is not None)
    if any(kind.dtype.kind == "f" and kind.dtype != FLOAT for kind in kinds):
        return "states in 8 bits: float32 alone"
    if block_size(call) > LARGEST_BLOCK or block_size(call) % WIDEST:
        return f"blocks that are no multiple of {WIDEST}, or above {LARGEST_BLOCK} elements"
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel; results that nobody reads go to scratch."""
    entry, block = call.op_type.removesuffix("8bit"), block_size(call)
    hyper, x = hyper_8bit(call), call.input(2)
    if not x.size:
        return Lowering(())
    results: list[Operand] = []
    unread: list[int] = []
    for position, source in enumerate((2, *range(4, len(call.inputs)))):
        if position < len(call.outputs) and call.has_output(position):
            results.append(out(position))
        else:
            results.append(scratch(len(unread)))
            unread.append(call.input(source).nbytes)
    arguments: list[Argument] = [inp(0), inp(1)]
    arguments += [Scalar(value, "float32") for value in numbers(entry, hyper)]
    arguments += [*(inp(i) for i in range(2, len(call.inputs))), *results, i32(x.size)]
    defines: dict[str, str | int | float] = {
        entry.upper(): 1,
        "W": params["WIDTH"],
        "LOCAL": params["LOCAL"],
        "MANY": params["MANY"],
        "BLOCK": block,
    }
    if hyper.nesterov:
        defines["NESTEROV"] = 1
    kernel = KernelCall(
        family="optim_8bit",
        entry=entry.lower(),
        args=tuple(arguments),
        global_size=(-(-blocks_of(x, block) // params["MANY"]) * params["LOCAL"],),
        local_size=(params["LOCAL"],),
        defines=defines,
    )
    return Lowering((kernel,), tuple(unread))


def lower_serial(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """An item for each block, element by element."""
    return lower(call, facts, {"WIDTH": 1, "LOCAL": 1, "MANY": 1})


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The device's own vectors on cores; on a GPU items side by side, an element each."""
    if facts.unit_kind == "gpu":
        return {"WIDTH": 1, "LOCAL": min(64, facts.max_work_group_size), "MANY": 1}
    return {"WIDTH": max(1, min(WIDEST, facts.vector_bytes // FLOAT.itemsize))}


FAMILY = KernelFamily(
    "optim_8bit",
    tuple(f"{COEXEC}::{name}8bit" for name in ("Momentum", "Adam")),
    (
        Variant(
            "vectors",
            lower,
            applies,
            space={"WIDTH": (8, 16, 4, 1), "LOCAL": (1, 16, 64), "MANY": (16, 64, 4, 1)},
            suited=suited,
        ),
        Variant("naive", lower_serial, applies),
    ),
)
