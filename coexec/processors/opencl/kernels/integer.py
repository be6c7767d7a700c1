"""Exact products of 8-bit integers: MatMulInteger, ConvInteger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.kernels.products import BATCH_LEVELS, Level, Product, padded_levels
from coexec.processors.opencl.kernels.window import AXES, Window

WIDTH = 16
"""Columns of a vector (W in integer.cl)."""


@dataclass(frozen=True)
class Problem:
    """Batched products of bytes: ``a`` and ``b`` with their zero points, as operands of the call.

    ``levels`` are those of the batch, with strides of the elements of both operands; ``a_rows``
    are all rows of A. B is ``scratch`` where a convolution's patches have to be made.
    """

    rows: int
    columns: int
    depth: int
    levels: tuple[Level, ...]
    a: int
    b: int
    a_rows: int
    patched: bool = False

    @classmethod
    def of(cls, call: OpCall) -> Problem:
        """The call as products: of a convolution, weights times patches."""
        if call.op_type == "ConvInteger":
            return _convolution(call)
        product = Product.of(call)
        rows, depth = product.rows, product.depth
        size = call.input(0).size // max(depth, 1)
        levels = tuple(padded_levels(product))
        return cls(rows, product.columns, depth, levels, 0, 1, size)


def _convolution(call: OpCall) -> Problem:
    window = Window.of(call)
    depth = window.inner * window.taps
    levels: tuple[Level, ...] = (
        (1, 0, 0),
        (1, 0, 0),
        (window.batch, 0, window.groups * depth * window.pixels),
        (window.groups, window.outer * depth, depth * window.pixels),
    )
    return Problem(
        window.outer,
        window.pixels,
        depth,
        levels,
        1,
        0,
        window.out_channels,
        patched=not window.pointwise,
    )


def _zeros(call: OpCall, operand: int) -> tuple[Operand, int]:
    """Zero points of an operand and how many there are; itself and 1 where there are none."""
    if not call.has_input(2 + operand):
        return inp(operand), 1
    return inp(2 + operand), call.input(2 + operand).size


def _defines(call: OpCall, p: Problem) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {
        "TA": c_type(call.input(p.a).dtype),
        "TB": c_type(call.input(p.b).dtype),
    }
    for operand, name in ((p.a, "ZERO_A"), (p.b, "ZERO_B")):
        if call.has_input(2 + operand):
            found[name] = 1
    return found


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    for index in (2, 3):
        if call.has_input(index) and call.input(index).rank > 1:
            return "zero points of more than one axis"
    if call.op_type == "ConvInteger":
        if call.input(0).rank - 2 > AXES:
            return f"more than {AXES} spatial axes"
    elif len(Product.of(call).batch) > BATCH_LEVELS:
        return f"batch axes broadcast in more than {BATCH_LEVELS} levels"
    return refuse_types((*call.inputs, *call.outputs), facts)


def _levels(p: Problem) -> tuple[int, ...]:
    """Extents of all levels but the outermost, then strides of A and of B."""
    extents = [level[0] for level in p.levels[1:]]
    return (*extents, *(level[1] for level in p.levels), *(level[2] for level in p.levels))


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    y, local, p = call.output(0), params["LOCAL"], Problem.of(call)
    if y.size == 0:
        return Lowering(())
    (za, za_count), (zb, zb_count) = _zeros(call, p.a), _zeros(call, p.b)
    if call.op_type == "ConvInteger":
        entry = "convolve_naive"
        args = (inp(0), inp(1), zb, za, out(0))
        sizes: tuple[int, ...] = (y.size, za_count, *Window.of(call).scalars())
    else:
        entry = "products_naive"
        args = (inp(0), inp(1), za, zb, out(0))
        sizes = (y.size, p.rows, p.columns, p.depth, za_count, zb_count, *_levels(p))
    kernel = KernelCall(
        family="integer",
        entry=entry,
        args=(*args, *map(i32, sizes)),
        global_size=(ceil_to(y.size, local),),
        local_size=(local,),
        defines=_defines(call, p),
    )
    return Lowering((kernel,))


def applies_tiles(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    if refusal:
        return refusal
    p = Problem.of(call)
    return "nothing to sum" if p.depth == 0 else None


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """As many sums as there are registers: 32 of 64 bytes, 16 of less."""
    rows = Problem.of(call).rows
    vectors = 4 if facts.vector_bytes >= 64 else 2 if facts.vector_bytes == 32 else 1
    return {"ROWS": 1 if rows == 1 else 2 if rows < 4 else 4, "VECTORS": vectors}


def lower_tiles(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A centred as floats, patches of a convolution, then tiles of products."""
    y, p = call.output(0), Problem.of(call)
    if y.size == 0:
        return Lowering(())
    defines = _defines(call, p)
    blocks = [p.a_rows * p.depth * 4, p.a_rows * 4]
    calls = [_centre(call, p, defines)]
    source = inp(p.b)
    if p.patched:
        source = scratch(len(blocks))
        blocks.append(call.input(0).shape[0] * _groups(p) * p.depth * p.columns)
        calls.append(_patches(call, p, source, defines))
    zb, zb_count = _zeros(call, p.b)
    batches = y.size // (p.rows * p.columns)
    sizes = (p.rows, p.columns, p.depth, zb_count, *_levels(p))
    width = WIDTH * params["VECTORS"]
    panels = -(-p.columns // width)
    in_panels = facts.prepares and _known_matrix(call, p)
    defines = {**defines, **params, "PANELS": int(in_panels)}
    if in_panels:
        matrix, source = source, scratch(len(blocks))
        blocks.append(panels * width * p.depth)
        calls.append(_pack(p, matrix, source, panels, defines))
    tiles = KernelCall(
        family="integer",
        entry="products",
        args=(scratch(0), scratch(1), source, zb, out(0), *map(i32, sizes)),
        global_size=(panels, -(-p.rows // params["ROWS"]), batches),
        local_size=(1, 1, 1),
        defines=defines,
    )
    return Lowering((*calls, tiles), tuple(blocks))


def _known_matrix(call: OpCall, p: Problem) -> bool:
    """Whether B is one matrix that never changes: panels of it are made once."""
    return call.constant(p.b) is not None and not p.patched and not any(b for _, _, b in p.levels)


def _pack(
    p: Problem,
    matrix: Operand,
    panels: Operand,
    count: int,
    defines: Mapping[str, str | int | float],
) -> KernelCall:
    return KernelCall(
        family="integer",
        entry="pack_panels",
        args=(matrix, panels, i32(p.columns), i32(p.depth)),
        global_size=(count,),
        local_size=(1,),
        defines=defines,
        bytes=2 * p.columns * p.depth,
        layout=True,
        prepares=True,
    )


def _groups(p: Problem) -> int:
    return p.levels[-1][0]


def _centre(call: OpCall, p: Problem, defines: Mapping[str, str | int | float]) -> KernelCall:
    """Once for weights that are constants."""
    za, za_count = _zeros(call, p.a)
    return KernelCall(
        family="integer",
        entry="centre",
        args=(inp(p.a), za, scratch(0), scratch(1), *map(i32, (p.a_rows, p.depth, za_count))),
        global_size=(p.a_rows,),
        local_size=(1,),
        defines=defines,
        bytes=5 * p.a_rows * p.depth,
        prepares=True,
    )


def _patches(
    call: OpCall, p: Problem, target: Operand, defines: Mapping[str, str | int | float]
) -> KernelCall:
    window = Window.of(call)
    zb, _ = _zeros(call, p.b)
    lines = window.out_size[0] * window.out_size[1]
    return KernelCall(
        family="integer",
        entry="patches",
        args=(inp(0), zb, target, *map(i32, window.scalars())),
        global_size=(lines, p.depth, window.batch * window.groups),
        local_size=(1, 1, 1),
        defines=defines,
    )


FAMILY = KernelFamily(
    "integer",
    ("MatMulInteger", "ConvInteger"),
    (
        Variant(
            "tiles",
            lower_tiles,
            applies_tiles,
            space={"ROWS": (4, 1, 2, 6), "VECTORS": (4, 2, 1)},
            suited=suited,
            units=("cpu",),
        ),
        Variant("naive", lower_naive, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
