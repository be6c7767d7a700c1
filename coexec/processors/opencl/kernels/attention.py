"""Attention of few queries to many keys; with more queries, matrix products do better."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.attention_geometry import AttentionGeometry
from coexec.processors.opencl.family import (
    HALF,
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    c_type,
    ceil_to,
    f32,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)

VECTOR = 16
MOST_ROWS = 32
"""Queries of all heads that share a key head."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    g = AttentionGeometry.of(call)
    if g.packed or len(call.inputs) > 4 or len(call.outputs) > 1:
        return "heads side by side, a past, lengths or other results: its body does that"
    if not _is_one_type(call) or g.repeats * g.rows > MOST_ROWS:
        return f"more than {MOST_ROWS} queries for a key, or numbers above float32 or of two types"
    if g.head_size % VECTOR or g.value_size % VECTOR or not call.output(0).size or not g.columns:
        return f"keys or values are no vectors of {VECTOR}"
    if g.left >= 0 or g.right >= 0 or call.attribute("softmax_precision", 0) not in (0, 1):
        return "windows, or another precision of the softmax"
    if call.has_input(3) and call.input(3).shape[-1] != g.columns:
        return "a mask shorter than the keys"
    return refuse_types((*call.inputs, *call.outputs), facts)


def _is_one_type(call: OpCall) -> bool:
    """Whether queries, keys and values are all float32, or all float16."""
    kinds = {call.input(index).dtype for index in range(3)}
    return len(kinds) == 1 and kinds <= {np.dtype(np.float32), HALF}


def suited(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """A GPU wants many work-items, a core one that its caches hold the values of."""
    return {"CHUNK": 16} if facts.unit_kind == "gpu" else {}


def _mask_steps(call: OpCall) -> tuple[int, int, int]:
    """Elements from one sample, head and row of a mask to the next; 0 where it has only one."""
    if not call.has_input(3):
        return 0, 0, 0
    shape = (1, 1, 1, 1, *call.input(3).shape)[-4:]
    steps, size = [], shape[3]
    for extent in shape[2::-1]:
        steps.append(size if extent > 1 else 0)
        size *= extent
    return steps[2], steps[1], steps[0]


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    g, chunk = AttentionGeometry.of(call), params["CHUNK"]
    pairs, chunks, rows = g.batch * g.kv_heads, -(-g.columns // chunk), g.repeats * g.rows
    masked = call.has_input(3)
    dtype = call.input(0).dtype
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "WIDENED": int(dtype == HALF),
        "M": c_type(call.input(3).dtype) if masked else "float",
        "SIZE": g.head_size,
        "VALUES": g.value_size,
        "ROWS": rows,
        "CHUNK": chunk,
        "MASK": (1 if call.input(3).dtype == np.bool_ else 2) if masked else 0,
        "CAPPED": int(g.softcap > 0),
        "CAUSAL": int(g.causal),
    }
    numbers = (pairs, g.kv_heads, g.columns, g.rows, *_mask_steps(call))
    tensors = (inp(0), inp(1), inp(2), inp(3 if masked else 0), *map(scratch, range(3)))
    args: tuple[Argument, ...] = (*tensors, *map(i32, numbers), f32(g.scale), f32(g.softcap))
    part = KernelCall("attention", "part", args, (chunks, pairs), (1, 1), defines)
    lines = pairs * rows
    ends = (scratch(1), scratch(2), out(0), i32(chunks), i32(lines))
    join = KernelCall("attention", "join", ends, (ceil_to(lines, 4),), (4,), defines)
    slots = 4 * pairs * chunks * rows
    return Lowering((part, join), (slots * chunk, slots * g.value_size, slots * 2))


FAMILY = KernelFamily(
    "attention",
    ("Attention",),
    (Variant("naive", lower, applies, {"CHUNK": (256, 64, 16, 1024)}, suited),),
)
