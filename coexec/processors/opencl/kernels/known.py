"""Products with a matrix that never changes, which stands in panels: ``known.cl``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    f32,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.products import Product, refuse_product

LEAST_LANES, MOST_LANES = 4, 16
MOST_ROWS = 128
"""With more rows, copying panels of B in each run costs little beside the product."""
WIDEST = 4
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
    if p.batch or call.output(0).dtype != np.float32 or not call.output(0).size or not p.depth:
        return "several matrices, other numbers than float32, or nothing to compute"
    if p.rows > MOST_ROWS:
        return f"more than {MOST_ROWS} rows: panels are copied on the way"
    return None


def lanes_of(facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    return min(max(facts.vector_bytes // 4, LEAST_LANES), MOST_LANES)


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Tiles that registers hold (32 of 64 bytes, else 16) and that waste the fewest rows."""
    p, lanes = Product.of(call), lanes_of(facts)
    large = facts.vector_bytes >= 64
    most = 6 if large else 5
    rows = min(range(min(most, p.rows), 0, -1), key=lambda tile: -(-p.rows // tile) * tile)
    wide = min(WIDEST if large or rows < 3 else 2, -(-p.columns // lanes))
    return {"ROWS": rows, "WIDE": wide}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Panels, once; then one kernel over runs of panels and blocks of rows."""
    p, lanes = Product.of(call), lanes_of(facts)
    rows, width = params["ROWS"], params["WIDE"] * lanes
    defines = {"V": lanes, "ROWS": rows, "WIDE": params["WIDE"]}
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
        bytes=2 * call.input(1).nbytes,
        layout=True,
        prepares=True,
    )
    numbers = (int(p.c is not None), *bias, p.rows, p.columns, p.depth, *p.a, panels, height, runs)
    factors = (f32(p.alpha), f32(p.beta))
    operands = (inp(0), scratch(0), inp(0 if p.c is None else 2), out(0))
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
    return Lowering((pack, product), (panels * width * p.depth * 4,))
