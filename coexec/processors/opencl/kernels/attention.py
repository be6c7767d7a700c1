"""Attention of few queries to many keys; with more queries, matrix products do better.

``attention.cl`` on CPUs, ``attention_groups.cl`` on GPUs.
"""

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
LEAST_ITEMS, STEP, MOST_EACH = 64, 16, 8
"""Of a group on GPUs: items; elements of a key (STEP in the kernel) and rows at a time."""
TILES = (4, 2, 1)
"""Keys of an item of such a group."""
GROUPS_PER_UNIT = 4
"""Groups that occupy a compute unit."""

Defines = dict[str, str | int | float]


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


def _defines(call: OpCall, chunk: int) -> Defines:
    g, dtype, masked = AttentionGeometry.of(call), call.input(0).dtype, call.has_input(3)
    return {
        "T": c_type(dtype),
        "WIDENED": int(dtype == HALF),
        "M": c_type(call.input(3).dtype) if masked else "float",
        "SIZE": g.head_size,
        "VALUES": g.value_size,
        "ROWS": g.repeats * g.rows,
        "CHUNK": chunk,
        "MASK": (1 if call.input(3).dtype == np.bool_ else 2) if masked else 0,
        "CAPPED": int(g.softcap > 0),
        "CAUSAL": int(g.causal),
    }


def _operands(call: OpCall) -> tuple[Argument, ...]:
    return inp(0), inp(1), inp(2), inp(3 if call.has_input(3) else 0)


def _numbers(call: OpCall) -> tuple[Argument, ...]:
    g = AttentionGeometry.of(call)
    sizes = (g.kv_heads, g.columns, g.rows, *_mask_steps(call))
    return (*map(i32, sizes), f32(g.scale), f32(g.softcap))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Keys in chunks, each a work-item's."""
    g, chunk = AttentionGeometry.of(call), params["CHUNK"]
    pairs, chunks, rows = g.batch * g.kv_heads, -(-g.columns // chunk), g.repeats * g.rows
    defines = _defines(call, chunk)
    args = (*_operands(call), *map(scratch, range(3)), i32(pairs), *_numbers(call))
    part = KernelCall("attention", "part", args, (chunks, pairs), (1, 1), defines)
    lines = pairs * rows
    ends = (scratch(1), scratch(2), out(0), i32(chunks), i32(lines))
    join = KernelCall("attention", "join", ends, (ceil_to(lines, 4),), (4,), defines)
    slots = 4 * pairs * chunks * rows
    return Lowering((part, join), (slots * chunk, slots * g.value_size, slots * 2))


def group_bytes(call: OpCall, chunk: int, local: int) -> int:
    """Local memory of a group: scores, a step of queries and of keys or sums, what items join."""
    g = AttentionGeometry.of(call)
    rows = g.repeats * g.rows
    spare = max(4 * local * _each(rows), local * (STEP + 1) + 3)
    return 4 * (rows * (chunk + STEP) + local + spare)


def _each(rows: int) -> int:
    """Rows whose values are summed side by side."""
    return MOST_EACH if rows > MOST_EACH // 2 else MOST_EACH // 2


def applies_groups(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    if refusal:
        return refusal
    if facts.max_work_group_size < LEAST_ITEMS:
        return f"groups of {facts.max_work_group_size} items; keys take {LEAST_ITEMS}"
    needed = group_bytes(call, LEAST_ITEMS, LEAST_ITEMS)
    return f"{needed} bytes of local memory" if needed > facts.local_bytes else None


def suited_groups(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Long chunks, which leave little to join, where they still occupy the device."""
    g = AttentionGeometry.of(call)
    tiles, pairs = -(-g.columns // LEAST_ITEMS), g.batch * g.kv_heads
    most = max(1, tiles * pairs // (GROUPS_PER_UNIT * facts.compute_units))
    return {"TILES": max(n for n in TILES if n <= most)}


def lower_groups(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Keys in chunks, each a work-group's; shorter ones where local memory is."""
    g, local = AttentionGeometry.of(call), min(params["LOCAL"], facts.max_work_group_size)
    chunk = local * params["TILES"]
    while group_bytes(call, chunk, local) > facts.local_bytes and chunk > LEAST_ITEMS:
        local, chunk = (local, chunk // 2) if chunk > local else (local // 2, chunk // 2)
    pairs, chunks, rows = g.batch * g.kv_heads, -(-g.columns // chunk), g.repeats * g.rows
    defines = {**_defines(call, chunk), "LOCAL": local, "EACH": _each(rows)}
    args = (*_operands(call), scratch(0), scratch(1), *_numbers(call))
    lines, slots = pairs * rows, 4 * pairs * chunks * rows
    part = KernelCall(
        "attention_groups",
        "part_groups",
        args,
        (chunks * local, pairs),
        (local, 1),
        defines,
        flop=2 * lines * g.columns * (g.head_size + g.value_size),
        bytes=sum(kind.nbytes for kind in call.inputs if kind) + slots * (g.value_size + 2),
    )
    join = KernelCall(
        "attention_groups",
        "join_groups",
        (scratch(0), scratch(1), out(0), i32(chunks), i32(lines)),
        (ceil_to(lines * g.value_size // 4, LEAST_ITEMS),),
        (LEAST_ITEMS,),
        defines,
        flop=2 * lines * chunks * g.value_size,
        bytes=slots * (g.value_size + 2) + call.output(0).nbytes,
    )
    return Lowering((part, join), (slots * g.value_size, slots * 2))


FAMILY = KernelFamily(
    "attention",
    ("Attention",),
    (
        Variant(
            "groups",
            lower_groups,
            applies_groups,
            {"TILES": TILES, "LOCAL": (LEAST_ITEMS, 2 * LEAST_ITEMS)},
            suited_groups,
            units=("gpu",),
        ),
        Variant("naive", lower, applies, {"CHUNK": (256, 64, 16, 1024)}),
    ),
)
