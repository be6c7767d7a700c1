"""Products of few rows with a matrix whose rows are contiguous (few_rows.cl)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Scalar,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.packed import matches as refuse_packing
from coexec.processors.opencl.kernels.products import Product, accumulator, refuse_product

MOST_ROWS = 16
"""Beyond, a panel of B is used often enough to be worth copying."""
HIGH = 2
"""Rows of A that share what is read of B."""
LEAST_LANES, MOST_LANES = 4, 16
SPACE: Mapping[str, tuple[int, ...]] = {"WIDTH": (1024, 512, 256, 2048)}
"""Columns of a task at most, where that leaves a task for each compute unit."""


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why streams of B do not fit this product, else ``None``."""
    refusal = refuse_product(call, facts) or refuse_packing(call.output(0).dtype)
    if refusal:
        return refusal
    p = Product.of(call)
    if p.batch or p.b[1] != 1:
        return "B is not one matrix with contiguous rows"
    if p.rows > MOST_ROWS:
        return f"more than {MOST_ROWS} rows: copying B pays"
    if p.columns < lanes_of(call, facts):
        return "a row of B is shorter than a vector"
    return None


def lanes_of(call: OpCall, facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    elements = facts.vector_bytes // np.dtype(accumulator(call.output(0).dtype)).itemsize
    return min(max(elements, LEAST_LANES), MOST_LANES)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel over runs of columns."""
    p, y = Product.of(call), call.output(0)
    if y.size == 0:
        return Lowering(())
    sums, lanes = np.dtype(accumulator(y.dtype)), lanes_of(call, facts)
    high = min(HIGH, p.rows)
    share = ceil_to(-(-p.columns // facts.compute_units), lanes)
    width = max(lanes, min(ceil_to(params["WIDTH"], lanes), share))
    tasks = max(1, p.columns // width)
    slot = ceil_to(p.rows, high) * 2 * width
    bias = p.c or (0, 0)
    numbers = (int(p.c is not None), *bias, p.rows, p.columns, p.depth, *p.a, p.b[0], width, slot)
    operands = (inp(0), inp(1), inp(1 if p.c is None else 2), out(0), scratch(0))
    factors = (Scalar(p.alpha, sums.name), Scalar(p.beta, sums.name))
    kernel = KernelCall(
        family="few_rows",
        entry="few_rows",
        args=(*operands, *factors, *map(i32, numbers)),
        global_size=(tasks,),
        local_size=(1,),
        defines={
            "T": c_type(y.dtype),
            "ACC": c_type(sums),
            "V": lanes,
            "SAME": int(y.dtype == sums),
            "HIGH": high,
        },
        finishes="tensors",
    )
    return Lowering((kernel,), (tasks * slot * sums.itemsize,))
