"""Resize and its gradient: one resampling kernel per resized axis; on CPUs two axes in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod

from coexec.core.types import OpCall
from coexec.ops.resize_geometry import SNAP, SUPPORT, AxisMap, ResizeGeometry
from coexec.processors.opencl.broadcast import power_of_two
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Scalar,
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
from coexec.processors.opencl.kernels import resize_lines
from coexec.processors.opencl.kernels.resize_lines import FRACTION, MODES
from coexec.processors.opencl.kernels.resize_twice import SPACE, lower_twice, refuse_twice

ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    g = ResizeGeometry.of(call)
    if g.mode != "nearest" and call.input(0).dtype.kind != "f":
        return f"{call.op_type}: integers are interpolated by the reference alone"
    if call.op_type == "ResizeGrad" and call.input(0).dtype.kind != "f":
        return f"ResizeGrad: no kernel for {call.input(0).dtype.name}"
    if max((*g.in_shape, *g.out_shape), default=0) >= 1 << (62 - FRACTION):
        return f"{call.op_type}: an axis is longer than 2^{62 - FRACTION}"
    return refuse_types((call.input(0), call.output(0)), facts)


def applies_twice(call: OpCall, facts: DeviceFacts) -> str | None:
    return applies(call, facts) or refuse_twice(call, facts)


def applies_lines(call: OpCall, facts: DeviceFacts) -> str | None:
    return applies(call, facts) or resize_lines.refuse_lines(call, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Axes in order forwards, in reverse backwards; intermediate tensors are scratch."""
    g = ResizeGeometry.of(call)
    backward = call.op_type == "ResizeGrad"
    axes = _ordered(g, backward)
    shape = list(g.out_shape if backward else g.in_shape)
    source: Operand = inp(0)
    calls: list[KernelCall] = []
    blocks: list[int] = []
    item = 8 if call.input(0).dtype.name == "float64" else 4
    if call.input(0).dtype.kind != "f":
        item = call.input(0).dtype.itemsize
    for number, along in enumerate(axes):
        last = number == len(axes) - 1
        target = out(0) if last else scratch(number)
        defines = _defines(call, g, along) | _types(call, number == 0, last)
        outer, inner = prod(shape[: along.axis]), prod(shape[along.axis + 1 :])
        shape[along.axis] = along.in_size if backward else along.out_size
        calls.append(
            _kernel(
                "resample_grad" if backward else "resample",
                (source, target),
                along,
                (outer, shape[along.axis], inner),
                _floats(g, along),
                defines,
                params["LOCAL"],
            )
        )
        if not last:
            blocks.append(prod(shape) * item)
        source = target
    return Lowering(tuple(calls), tuple(blocks))


def _ordered(g: ResizeGeometry, backward: bool) -> Sequence[AxisMap]:
    """The axes to resample; a copy along a trivial axis where there is none."""
    if not g.axes:
        size = prod(g.in_shape)
        return (AxisMap(0, g.in_shape[0] if size else 1, g.in_shape[0], 1.0, 0.0, 1.0, False),)
    return tuple(reversed(g.axes)) if backward else g.axes


def _fixed(value: float) -> Scalar:
    return Scalar(round(value * (1 << FRACTION)), "int64")


def _floats(g: ResizeGeometry, along: AxisMap) -> tuple[Argument, ...]:
    return (f32(along.filter_scale), f32(g.cubic_a), f32(g.extrapolation))


def _types(call: OpCall, first: bool, last: bool) -> dict[str, str | int | float]:
    """Between the axes values stay in the type of arithmetic."""
    dtype = call.input(0).dtype
    middle = compute_type(dtype)
    return {
        "TX": c_type(dtype) if first else middle,
        "TY": c_type(dtype) if last else middle,
        "ACC": middle if dtype.kind == "f" else "float",
    }


def _defines(call: OpCall, g: ResizeGeometry, along: AxisMap) -> dict[str, str | int | float]:
    defines: dict[str, str | int | float] = {
        "MODE": MODES.index(g.mode),
        "CROP": int(along.crop),
        "FRACTION": FRACTION,
    }
    if g.mode == "nearest":
        return defines | {"ROUND": ROUNDINGS.index(g.nearest_mode)}
    wide = along.filter_scale < 1
    return defines | {
        "REACH": ceil(SUPPORT[g.mode] / along.filter_scale),
        "EXCLUDE": int(g.exclude_outside),
        "NORMALISE": int(wide or g.exclude_outside),
    }


def _kernel(
    entry: str,
    tensors: tuple[Argument, ...],
    along: AxisMap,
    result: tuple[int, int, int],
    floats: tuple[Argument, ...],
    defines: Mapping[str, str | int | float],
    local: int,
) -> KernelCall:
    outer, size, inner = result
    width = size * inner
    first = min(local, power_of_two(width))
    second = min(local // first, power_of_two(outer))
    snap = max(round(SNAP * (1 << FRACTION)), along.out_size)
    return KernelCall(
        family="resize",
        entry=entry,
        args=(
            *tensors,
            *map(i32, (along.in_size, along.out_size, inner, outer)),
            _fixed(along.slope),
            _fixed(along.offset),
            Scalar(snap, "int64"),
            *floats,
        ),
        global_size=(ceil_to(width, first), ceil_to(outer, second)),
        local_size=(first, second),
        defines=defines,
    )


FAMILY = KernelFamily(
    "resize",
    ("Resize", "coexec::ResizeGrad"),
    (
        Variant("twice", lower_twice, applies_twice, space=SPACE, units=("cpu",)),
        Variant(
            "lines",
            resize_lines.lower_lines,
            applies_lines,
            space=resize_lines.SPACE,
            units=("cpu",),
        ),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
