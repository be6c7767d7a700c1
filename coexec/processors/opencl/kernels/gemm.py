"""Matrix products: Gemm, MatMul, TransposedMatMul."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    UnitKind,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
)
from coexec.processors.opencl.fusion.biased import BIASED
from coexec.processors.opencl.kernels import dots, few_rows, known, outer, tiled, tiles
from coexec.processors.opencl.kernels.packed import (
    SPACE,
    SPARES,
    BlockedProduct,
    lower_products,
    suited_tile,
)
from coexec.processors.opencl.kernels.packed import matches as refuse_packing
from coexec.processors.opencl.kernels.packed_operands import (
    ONES,
    ZEROS,
    Batch,
    Bias,
    LeftSource,
    Result,
    RightSource,
)
from coexec.processors.opencl.kernels.products import (
    Level,
    Product,
    accumulator,
    coefficient,
    padded_levels,
    refuse_product,
)
from coexec.processors.opencl.kernels.window import Window

MOST_SUM_ROWS = 128
"""Beyond, a panel of B is used often enough to be worth transposing."""
ONCE = {"GROUP": 4, "SLOTS": 2, "APART": 0}
"""Where one task has all columns of a product."""
LEAST_OUTER_ROWS = 9
"""Below, most lanes of vectors along rows of A would stand empty."""
OUTER_LENGTH, DOTS_LENGTH = 512, 4096
"""Steps of the sum at a time, between which the processor's prefetching starts anew."""


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    p, y = Product.of(call), call.output(0)
    if y.size == 0:
        return Lowering(())
    levels = padded_levels(p)
    args: list[Argument] = [inp(0), inp(1)]
    if p.c is not None:
        args += [inp(2), i32(p.c[0]), i32(p.c[1]), coefficient(p.beta, y)]
    args += [out(0), coefficient(p.alpha, y)]
    sizes = (y.size, p.rows, p.columns, p.depth, *p.a, *p.b)
    extents = [level[0] for level in levels[1:]]
    strides = [level[1] for level in levels] + [level[2] for level in levels]
    args += [i32(v) for v in (*sizes, *extents, *strides)]
    local = params["LOCAL"]
    kernel = KernelCall(
        family="gemm",
        entry="gemm_naive",
        args=tuple(args),
        global_size=(ceil_to(y.size, local),),
        local_size=(local,),
        defines={
            "T": c_type(y.dtype),
            "ACC": c_type(np.dtype(accumulator(y.dtype))),
            "HAS_C": int(p.c is not None),
        },
    )
    return Lowering((kernel,))


def refuse_packed(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why packed tiles do not fit this product, else ``None``."""
    refusal = refuse_product(call, facts) or refuse_packing(call.output(0).dtype)
    if refusal:
        return refusal
    if len(Product.of(call).batch) > 2:
        return "batch axes broadcast in more than 2 levels"
    return None


def lower_packed(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Pack A into tiles, then multiply with panels of B."""
    if call.output(0).size == 0:
        return Lowering(())
    return lower_products([blocked_product(call, Product.of(call))], facts, params)


def suited_packing(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The register tile for the device's vectors.

    A transposed A of which a task needs each tile once is packed tile by tile, in its cache.
    """
    p = blocked_product(call, Product.of(call))
    tile = suited_tile([p], facts)
    panels = -(-p.columns // (tile.get("NV", SPACE["NV"][0]) * p.lanes(facts)))
    once = not p.in_place and p.left.row == 1 and panels <= ONCE["GROUP"]
    return {**tile, **ONCE} if once and facts.unit_kind == "cpu" else tile


def refuse_sums(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why kernels that walk along the sum do not fit, else ``None``."""
    refusal = refuse_product(call, facts) or refuse_packing(call.output(0).dtype)
    if refusal:
        return refusal
    p = Product.of(call)
    if p.batch or p.a[1] != 1 or p.b[0] != 1:
        return "operands are not both contiguous along the sum"
    if p.rows > MOST_SUM_ROWS:
        return f"more than {MOST_SUM_ROWS} rows: packing B pays"
    return None


def refuse_outer(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why vectors along the rows of A do not fit, else ``None``."""
    refusal = refuse_sums(call, facts)
    if refusal:
        return refusal
    p = Product.of(call)
    if p.depth == 0:
        return "nothing to sum"
    if p.rows < LEAST_OUTER_ROWS:
        return f"fewer than {LEAST_OUTER_ROWS} rows: vectors would stand empty"
    return None


def sum_window(p: Product) -> Window:
    """Rows of A times rows of the transposed B: a weight gradient of one image and one tap."""
    line = (1, 1, p.depth)
    return Window(1, p.columns, p.rows, 1, line, line, ONES, ONES, ZEROS, ONES)


def outer_product(call: OpCall) -> outer.Outer:
    """A product in the terms of outer.cl: rows of A are lanes."""
    p, y = Product.of(call), call.output(0)
    bias = None if p.c is None else (inp(2), *p.c)
    strides = (p.columns, 1, 0)
    operands = (inp(1), inp(0), out(0))
    return outer.Outer(y.dtype, sum_window(p), *operands, strides, bias, p.alpha, p.beta)


def suited_outer(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The width of tiles that wastes the least, and long runs of B."""
    return outer.suited_vectors(outer_product(call), facts) | {"LENGTH": OUTER_LENGTH}


def lower_outer(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Sums of outer products of columns of A and of the transposed B."""
    if call.output(0).size == 0:
        return Lowering(())
    return outer.lower_outer(outer_product(call), facts, params)


def suited_dots(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Long runs of rows that are read in place."""
    p = Product.of(call)
    lanes = dots.lanes_of(np.dtype(accumulator(call.output(0).dtype)), facts)
    return {"LENGTH": DOTS_LENGTH} if p.depth % lanes == 0 else {}


def lower_dots(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Vectors along the sum."""
    y = call.output(0)
    if y.size == 0:
        return Lowering(())
    p = Product.of(call)
    product = dots.Dots(
        y.dtype,
        sum_window(p),
        inp(1),
        inp(0),
        out(0),
        (call.input(1).size, call.input(0).size),
        None if p.c is None else Bias(inp(2), *p.c),
        p.alpha,
        p.beta,
    )
    return dots.lower_dots(product, facts, params)


def blocked_product(call: OpCall, p: Product) -> BlockedProduct:
    """A product in the terms of packed.cl: B is one image whose channels are its rows."""
    outer, inner = ((1, 0, 0),) * (2 - len(p.batch)) + p.batch
    count, a_batch, a_steps = left_batches(outer, inner)
    # B stored by columns: every column is an image of one element per channel.
    by_columns = p.b[1] != 1
    line = ONES if by_columns else (1, 1, p.columns)
    return BlockedProduct(
        dtype=call.output(0).dtype,
        rows=p.rows,
        channels=p.depth,
        taps=ONES,
        columns=p.columns,
        left=LeftSource(inp(0), 0, a_batch, *p.a, count=count),
        right=RightSource(
            inp(1), call.input(1).size, p.b[1] if by_columns else 0, p.b[0], extents=line
        ),
        result=Result(out(0), p.columns, int(by_columns), line, (1, line[2])),
        bias=None if p.c is None else Bias(inp(2), *p.c),
        alpha=p.alpha,
        beta=p.beta,
        batch=Batch(outer[0], inner[0], a_steps, (outer[2], inner[2]), p.rows * p.columns),
    )


def left_batches(outer: Level, inner: Level) -> tuple[int, int, tuple[int, int]]:
    """Distinct matrices of A, the elements between them, and steps per batch level in matrices."""
    inner_count = inner[0] if inner[1] else 1
    outer_count = outer[0] if outer[1] else 1
    steps = (inner_count if outer[1] else 0, 1 if inner[1] else 0)
    return inner_count * outer_count, inner[1] or outer[1], steps


CPU: tuple[UnitKind, ...] = ("cpu",)
GPU: tuple[UnitKind, ...] = ("gpu",)
VARIANTS = (
    Variant("known", known.lower, known.refuse, known.SPACE, known.suited, CPU),
    Variant("outer", lower_outer, refuse_outer, outer.SPACE, suited_outer, CPU),
    Variant("dots", lower_dots, refuse_sums, dots.SPACE, suited_dots, CPU),
    Variant("few_rows", few_rows.lower, few_rows.refuse, few_rows.SPACE, units=CPU),
    Variant("packed", lower_packed, refuse_packed, SPACE, suited_packing, CPU, SPARES),
    Variant("group_dots", tiled.lower_dots, tiled.refuse_dots, tiled.DOTS_SPACE, units=GPU),
    Variant("tiled", tiled.lower, tiled.refuse, tiles.SPACE, tiled.suited, GPU),
    Variant("naive", lower_naive, refuse_product, space={"LOCAL": (64, 16)}),
)

FAMILY = KernelFamily("gemm", ("Gemm", "MatMul", "coexec::TransposedMatMul"), VARIANTS)
BIASED_FAMILY = KernelFamily("gemm", (BIASED.identifier,), VARIANTS)
"""Of the operator that the compiler of regions makes."""
