"""Products with weights of 4 or 8 bits that stay packed: few_bits.cl, few_bits_groups.cl."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.packed_product import (
    MATMUL_NBITS,
    PACKED,
    SCALES,
    ZEROS,
    PackedProduct,
    packed_product_work,
)
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
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
    scratch,
)

LEAST_LANES, MOST_LANES = 4, 16
MOST_ROWS = 32
"""With more rows, weights are used often enough to be worth unpacking: the body does that."""
GROUP, MOST_FEW = 64, 4
"""Work-items of a group on a GPU, and the rows that share what it reads."""
MIDDLE, BYTES, NUMBERS = range(3)
"""What zero points are."""


def lanes_of(facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    return min(max(facts.vector_bytes // 4, LEAST_LANES), MOST_LANES)


def _points(call: OpCall) -> int:
    if not call.has_input(ZEROS):
        return MIDDLE
    return BYTES if call.input(ZEROS).dtype == np.uint8 else NUMBERS


def _defines(call: OpCall, p: PackedProduct) -> dict[str, str | int | float]:
    dtype = call.input(0).dtype
    return {
        "T": c_type(dtype),
        "ACC": compute_type(dtype),
        "BITS": p.bits,
        "BLOCK": p.block,
        "POINTS": _points(call),
    }


def _weights(call: OpCall) -> tuple[Argument, ...]:
    """Packed weights, scales and zero points; where there are none, weights in their place."""
    return inp(PACKED), inp(SCALES), inp(ZEROS if call.has_input(ZEROS) else PACKED)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if PackedProduct.of(call).rows > MOST_ROWS:
        return f"more than {MOST_ROWS} rows: unpacking the weights pays, as the body does"
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per result."""
    p, size, local = PackedProduct.of(call), call.output(0).size, params["LOCAL"]
    if not size:
        return Lowering(())
    sizes = map(i32, (size, p.columns, p.depth, p.blocks))
    args = (inp(0), *_weights(call), out(0), *sizes)
    grid = (ceil_to(size, local),)
    defines = {**_defines(call, p), "PANELS": 0}
    kernel = KernelCall("few_bits", "few_bits_naive", args, grid, (local,), defines)
    return Lowering((kernel,))


def applies_panels(call: OpCall, facts: DeviceFacts) -> str | None:
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    if call.input(0).dtype != np.float32 or not call.output(0).size:
        return "panels are of float32, and there is something to compute"
    return applies(call, facts)


def suited(call: OpCall, _facts: DeviceFacts) -> Mapping[str, int]:
    """As many rows at a time as there are, up to four."""
    return {"ROWS": min(PackedProduct.of(call).rows, 4)}


def lower_panels(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Weights in panels of columns, packed; a task takes a run of panels."""
    p, lanes, rows = PackedProduct.of(call), lanes_of(facts), params["ROWS"]
    panels = -(-p.columns // lanes)
    tasks = min(panels, facts.compute_units * params["PER_UNIT"])
    points = _points(call)
    defines = {**_defines(call, p), "V": lanes, "ROWS": rows}
    words, factors, zeros, slots = map(scratch, range(4))
    width = panels * lanes * 4
    pack = KernelCall(
        "few_bits",
        "pack_bits",
        (*_weights(call), words, factors, zeros, i32(p.columns), i32(p.blocks)),
        (panels,),
        (1,),
        defines,
        layout=True,
        prepares=True,
    )
    work = packed_product_work(call)
    sizes = map(i32, (p.rows, p.columns, p.depth, p.blocks, panels))
    multiply = KernelCall(
        "few_bits",
        "few_bits",
        (inp(0), words, factors, zeros, out(0), slots, *sizes),
        (tasks,),
        (1,),
        defines,
        flop=work.flop,
        bytes=work.bytes,
        finishes="tensors",
    )
    blocks = (
        width * p.blocks * p.block * p.bits // 32,
        width * p.blocks,
        width * p.blocks if points else 4,
        tasks * rows * p.blocks * (p.block + 1) * 4,
    )
    return Lowering((pack, multiply), blocks)


def refuse_groups(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why groups that sum along the columns do not fit this product, else ``None``."""
    if facts.max_work_group_size < GROUP:
        return f"groups of {facts.max_work_group_size} items; these are of {GROUP}"
    return applies(call, facts)


def lower_groups(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Items side by side read words of a column side by side."""
    p, y = PackedProduct.of(call), call.output(0)
    if not y.size:
        return Lowering(())
    lanes = params["LANES"]
    many, few = GROUP // lanes, min(MOST_FEW, 1 << (p.rows - 1).bit_length())
    own = _defines(call, p)
    shape = {"PANELS": 0, "SAME": int(own["T"] == own["ACC"])}
    work = packed_product_work(call)
    kernel = KernelCall(
        "few_bits_groups",
        "few_bits_groups",
        (inp(0), *_weights(call), out(0), *map(i32, (p.rows, p.columns, p.depth, p.blocks))),
        (-(-p.columns // many) * lanes, -(-p.rows // few) * many),
        (lanes, many),
        {**own, **shape, "LANES": lanes, "MANY": many, "FEW": few},
        flop=work.flop,
        bytes=work.bytes,
        finishes="tensors",
    )
    return Lowering((kernel,))


FAMILY = KernelFamily(
    "few_bits",
    (MATMUL_NBITS.identifier,),
    (
        Variant(
            "panels",
            lower_panels,
            applies_panels,
            {"ROWS": (1, 2, 3, 4, 6), "PER_UNIT": (4, 1, 2, 8)},
            suited,
        ),
        Variant("groups", lower_groups, refuse_groups, {"LANES": (32, 16, 64)}, units=("gpu",)),
        Variant("naive", lower_naive, applies, {"LOCAL": (64, 16)}),
    ),
)
