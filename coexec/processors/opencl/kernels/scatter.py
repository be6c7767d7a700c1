"""Placement by index: coexec::GatherGrad, ScatterElements, ScatterND, TensorScatter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from coexec.core.types import OpCall, TensorType
from coexec.ops.index import gather_axis, gather_grad_axis
from coexec.ops.scatter import reduction, tensor_scatter_axis
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lower,
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
from coexec.processors.opencl.kernels.index import axis_pairs
from coexec.processors.opencl.kernels.moves import (
    MAX_RANK,
    WORDS,
    refuse_moves,
    row_major,
    span_of,
)

REDUCTIONS = {
    "none": "(b)",
    "add": "((a) + (b))",
    "mul": "((a) * (b))",
    # A NaN on either side stays.
    "min": "((a) < (b) || (a) != (a) ? (a) : (b))",
    "max": "((a) > (b) || (a) != (a) ? (a) : (b))",
}
"""OpenCL C expression of each reduction in terms of the old value ``a`` and the update ``b``."""


def element_defines(kind: TensorType, how: str) -> dict[str, str | int | float]:
    """Element type and reduction; replacing computes nothing, so that words of the width do."""
    word = WORDS[kind.dtype.itemsize] if how == "none" else c_type(kind.dtype)
    return {"T": word, "APPLY(a, b)": REDUCTIONS[how]}


def segments(n: int, columns: int, facts: DeviceFacts, per_unit: int) -> int:
    """Targets per segment, so that ``per_unit`` work-items per compute unit share the work.

    More segments mean more work-items, and that many more looks at each index.
    """
    wanted = max(1, facts.compute_units * per_unit // max(columns, 1))
    return max(1, -(-n // min(wanted, max(n, 1))))


@dataclass(frozen=True)
class Rows:
    """A scatter of whole rows: ``updates`` (outer, count, inner) into (outer, n, inner)."""

    indices: Operand
    index_type: TensorType
    updates: Operand
    kind: TensorType
    outer: int
    count: int
    n: int
    inner: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    how: str
    data: Operand | None


def gather_grad_rows(call: OpCall) -> Rows:
    indices, result, axis = call.input(0), call.output(0), gather_grad_axis(call)
    shape = result.shape
    return Rows(
        indices=inp(0),
        index_type=indices,
        updates=inp(1),
        kind=result,
        outer=prod(shape[:axis]),
        count=indices.size,
        n=shape[axis],
        inner=prod(shape[axis + 1 :]),
        dims=(shape[axis],),
        strides=(1,),
        how="add",
        data=None,
    )


def scatter_nd_rows(call: OpCall) -> Rows:
    data, indices = call.input(0), call.input(1)
    depth = indices.shape[-1]
    return Rows(
        indices=inp(1),
        index_type=indices,
        updates=inp(2),
        kind=data,
        outer=1,
        count=prod(indices.shape[:-1]),
        n=prod(data.shape[:depth]),
        inner=prod(data.shape[depth:]),
        dims=data.shape[:depth],
        strides=row_major(data.shape[:depth]),
        how=reduction(call),
        data=inp(0),
    )


def _locate(rows: Rows, local: int) -> KernelCall:
    """Indices as target rows, in scratch block 0."""
    return KernelCall(
        "scatter",
        "locate",
        (
            rows.indices if rows.index_type.size else scratch(0),
            scratch(0),
            i32(rows.count),
            *axis_pairs(rows.dims, rows.strides, MAX_RANK),
        ),
        (ceil_to(rows.count, local),),
        (local,),
        {"I": c_type(rows.index_type.dtype), "DEPTH": len(rows.dims)},
    )


def _scatter_rows(rows: Rows, facts: DeviceFacts, params: Mapping[str, int]) -> KernelCall:
    span, width = params["SPAN"], span_of(rows.inner, params["WIDTH"])
    columns = -(-rows.inner // span)
    segment = segments(rows.n, columns * rows.outer, facts, params["PER_UNIT"])
    local = min(params["LOCAL"], 1 << (columns - 1).bit_length())
    return KernelCall(
        "scatter",
        "scatter_rows",
        (
            # What is absent (zeros for data, no index at all) is never read.
            rows.data or out(0),
            scratch(0) if rows.count else out(0),
            rows.updates if rows.count else out(0),
            out(0),
            *map(i32, (rows.inner, rows.count, rows.n, segment, span)),
        ),
        (ceil_to(columns, local), -(-rows.n // segment), rows.outer),
        (local, 1, 1),
        {
            **element_defines(rows.kind, rows.how),
            "FROM_ZERO": int(rows.data is None),
            "WIDTH": width,
        },
    )


def lower_rows(
    rule: Callable[[OpCall], Rows], call: OpCall, facts: DeviceFacts, params: Mapping[str, int]
) -> Lowering:
    rows = rule(call)
    if not rows.kind.size:
        return Lowering(())
    kernel = _scatter_rows(rows, facts, params)
    if not rows.count:
        return Lowering((kernel,))
    return Lowering((_locate(rows, 64), kernel), (4 * rows.count,))


def lane_axes(
    shape: Sequence[int], indices: Sequence[int], axis: int
) -> list[tuple[int, int, int, int]]:
    """Dimensions beside ``axis``, merged where possible, outermost first.

    Each is (size in y, size in the indices, stride in y, stride in the indices).
    """
    result: list[tuple[int, int, int, int]] = []
    strides, steps = row_major(shape), row_major(indices)
    for i, quad in enumerate(zip(shape, indices, strides, steps, strict=True)):
        if i == axis:
            continue
        size, within, stride, step = quad
        last = result[-1] if result else None
        joins = last is not None and last[2:] == (stride * size, step * within) and size == within
        if last is not None and joins:
            result[-1] = (last[0] * size, last[1] * within, stride, step)
        else:
            result.append(quad)
    return result or [(1, 1, 0, 0)]


def lower_scatter_elements(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    data, indices, axis = call.input(0), call.input(1), gather_axis(call)
    if not data.size:
        return Lowering(())
    *outer, last = lane_axes(data.shape, indices.shape, axis)
    n, count = data.shape[axis], indices.shape[axis] if indices.size else 0
    # Lanes that are not neighbours in memory gain nothing from sharing a work-item.
    width = span_of(last[0], params["WIDTH"]) if last[2:] == (1, 1) else 1
    columns, others = -(-last[0] // width), prod(a[0] for a in outer)
    segment = segments(n, columns * others, facts, params["PER_UNIT"])
    local = min(params["LOCAL"], 1 << (columns - 1).bit_length())
    steps = (row_major(data.shape)[axis], row_major(indices.shape)[axis])
    padded = [*outer, *[(1, 1, 0, 0)] * (MAX_RANK - 2 - len(outer))]
    scalars = (n, steps[0], count, steps[1], segment, *last, *(v for quad in padded for v in quad))
    kernel = KernelCall(
        "scatter",
        "scatter_lanes",
        (
            inp(0),
            inp(1) if count else out(0),
            inp(2) if count else out(0),
            out(0),
            *map(i32, scalars),
        ),
        (ceil_to(columns, local), -(-n // segment), others),
        (local, 1, 1),
        {
            **element_defines(data, reduction(call)),
            "I": c_type(indices.dtype),
            "RANK": len(outer),
            "WIDTH": width,
        },
    )
    return Lowering((kernel,))


def lower_tensor_scatter(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    cache, update, axis = call.input(0), call.input(1), tensor_scatter_axis(call)
    starts = call.has_input(2)
    heads, n, count = prod(cache.shape[1:axis]), cache.shape[axis], update.shape[axis]
    inner, lanes, span = prod(cache.shape[axis + 1 :]), prod(cache.shape[:axis]), params["SPAN"]
    columns = -(-inner // span)
    segment = segments(n, columns * lanes, facts, params["PER_UNIT"])
    local = min(params["LOCAL"], 1 << max(columns - 1, 0).bit_length())
    scalars = (inner, heads, n, count, segment, span)
    kernel = KernelCall(
        "scatter",
        "tensor_scatter",
        (inp(0), inp(1), inp(2) if starts else inp(0), out(0), *map(i32, scalars)),
        (ceil_to(columns, local), -(-n // segment), lanes),
        (local, 1, 1),
        {
            "T": WORDS[cache.dtype.itemsize],
            "I": c_type(call.input(2).dtype) if starts else "int",
            "STARTS": int(starts),
            "CIRCULAR": int(call.attribute("mode", "linear") == "circular"),
        },
    )
    return Lowering((kernel,) if cache.size else ())


LOWERINGS: Mapping[str, Lower] = {
    "coexec::GatherGrad": partial(lower_rows, gather_grad_rows),
    "ScatterND": partial(lower_rows, scatter_nd_rows),
    "ScatterElements": lower_scatter_elements,
    "TensorScatter": lower_tensor_scatter,
}


def lower_shared(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Segments and runs of neighbours: enough work-items to fill the device."""
    return LOWERINGS[call.identifier](call, facts, params)


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One element of every target per work-item: no segments, no runs."""
    single = {"SPAN": 1, "WIDTH": 1, "PER_UNIT": 0, "LOCAL": 1}
    return LOWERINGS[call.identifier](call, facts, single)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.output(0).rank > MAX_RANK:
        return f"more than {MAX_RANK} dimensions"
    types = (*call.inputs, *call.outputs)
    if call.domain or reduction(call) != "none":
        return refuse_types(types, facts)
    return refuse_moves(types)


def suited(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """On a GPU neighbouring items have neighbouring columns, and many segments hide the loads."""
    gpu = {"SPAN": 4, "WIDTH": 4, "PER_UNIT": 512, "LOCAL": 64}
    return gpu if facts.unit_kind == "gpu" else {}


FAMILY = KernelFamily(
    "scatter",
    tuple(LOWERINGS),
    (
        Variant(
            "shared",
            lower_shared,
            applies,
            {
                "SPAN": (256, 64, 4, 1),
                "WIDTH": (16, 4, 1),
                "PER_UNIT": (4, 32, 128, 512),
                "LOCAL": (1, 8, 32, 64),
            },
            suited,
        ),
        Variant("naive", lower_naive, applies),
    ),
)
