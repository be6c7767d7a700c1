"""Products with a matrix that never changes, which stands in panels: ``known.cl``."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    f32,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.products import Product, accumulator, refuse_product
from coexec.processors.opencl.kernels.widen import is_narrow, widen, widened_bytes

LEAST_LANES, MOST_LANES = 4, 16
MOST_ROWS = 128
"""With more rows, copying panels of B in each run costs little beside the product."""
WIDEST = 4
MOST_NARROW_ROWS = 16
"""With more rows, to convert each vector of 16-bit panels takes longer than twice the bytes (of
784 x 500 for 32 rows, 1.5 times)."""
SPACE: Mapping[str, tuple[int, ...]] = {
    "ROWS": (6, 1, 2, 3, 4, 5, 8),
    "WIDE": (4, 1, 2, 3),
    "PER_UNIT": (4, 1, 2, 8),
}
"""Rows and vectors of a tile, tasks for each compute unit at least, where there are so many."""


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why panels of B that are made once do not fit this product, else ``None``."""
    refusal = refuse_product(call, facts)
    if refusal:
        return refusal
    if facts.unit_kind != "cpu" or not facts.prepares or call.constant(1) is None:
        return "B changes, or what is made of it is not kept, or many work-items are wanted"
    p = Product.of(call)
    single = accumulator(call.output(0).dtype) == "float32"
    if p.batch or not single or not call.output(0).size or not p.depth:
        return "several matrices, other sums than float32, or nothing to compute"
    if p.rows > MOST_ROWS:
        return f"more than {MOST_ROWS} rows: panels are copied on the way"
    return None


def lanes_of(facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    return min(max(facts.vector_bytes // 4, LEAST_LANES), MOST_LANES)


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Tiles that registers hold (32 of 64 bytes, else 16) and that take the least time together.

    A tile takes as long as its rows, and as one more for reading the panel.
    """
    p, lanes = Product.of(call), lanes_of(facts)
    large = facts.vector_bytes >= 64
    most = 6 if large else 5
    tiles = range(min(most, p.rows), 0, -1)
    rows = min(tiles, key=lambda tile: -(-p.rows // tile) * (tile + 1))
    wide = min(WIDEST if large or rows < 3 else 2, -(-p.columns // lanes))
    return {"ROWS": rows, "WIDE": wide}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Panels, once; then one kernel over runs of panels and blocks of rows."""
    p, lanes = Product.of(call), lanes_of(facts)
    rows, width = params["ROWS"], params["WIDE"] * lanes
    dtype = call.output(0).dtype
    narrow = is_narrow(dtype)
    stays = narrow and p.rows <= MOST_NARROW_ROWS
    item = dtype.itemsize if stays else 4
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "SAME": int(not narrow),
        "NARROW_PANELS": int(stays),
        "V": lanes,
        "ROWS": rows,
        "WIDE": params["WIDE"],
    }
    panels = -(-p.columns // width)
    wanted = facts.compute_units * params["PER_UNIT"]
    runs = min(panels, wanted)
    tiles = -(-p.rows // rows)
    height = -(-tiles // max(1, min(tiles, wanted // runs))) * rows
    bias = p.c or (0, 0)
    pack = KernelCall(
        family="known",
        entry="pack_known",
        args=(inp(1), scratch(0), *map(i32, (p.columns, p.depth, *p.b))),
        global_size=(panels,),
        local_size=(1,),
        defines=defines,
        bytes=call.input(1).nbytes + panels * width * p.depth * item,
        layout=True,
        prepares=True,
    )
    numbers = (int(p.c is not None), *bias, p.rows, p.columns, p.depth, *p.a, panels, height, runs)
    factors = (f32(p.alpha), f32(p.beta))
    operands = (scratch(1) if narrow else inp(0), scratch(0), inp(0 if p.c is None else 2), out(0))
    product = KernelCall(
        family="known",
        entry="known",
        args=(*operands, *factors, *map(i32, numbers)),
        global_size=(runs * -(-p.rows // height),),
        local_size=(1,),
        defines=defines,
        flop=2 * p.rows * p.columns * p.depth,
        bytes=sum(kind.nbytes for kind in (*call.inputs, *call.outputs) if kind is not None),
        finishes="tensors",
    )
    block = panels * width * p.depth * item
    if not narrow:
        return Lowering((pack, product), (block,))
    size = call.input(0).size
    wide = widen(inp(0), size, dtype, scratch(1))
    return Lowering((pack, wide, product), (block, widened_bytes(size, dtype)))
