"""Pooling with small windows that are known when compiling: ``pool_fixed.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from coexec.core.types import OpCall
from coexec.ops.pool_geometry import PoolGeometry
from coexec.processors.opencl.broadcast import power_of_two
from coexec.processors.opencl.cnumbers import compute_type, lowest_literal
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)

MOST_TAPS = 25
"""Largest window that is unrolled."""

OPERATORS = ("MaxPool", "MaxPoolGrad", "AveragePool", "AveragePoolGrad")
AXES = "DHW"


def geometry(call: OpCall) -> PoolGeometry:
    """Windows of a call; some gradients name the shape of X in an attribute."""
    shape = call.attribute("input_shape")
    return PoolGeometry.of(call, tuple(shape) if shape else None)


def tensors_of(call: OpCall) -> tuple[Argument, ...]:
    """What a kernel reads and writes: only the gradient of maxima reads X beside that of Y."""
    if call.op_type == "MaxPoolGrad":
        return (inp(0), inp(1), out(0))
    return (inp(0), out(0))


def small_window(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why the window is not unrolled, else ``None``."""
    if call.op_type not in OPERATORS:
        return f"{call.op_type}: no kernel with a fixed window"
    if call.has_output(1):
        return "indices are wanted"
    if geometry(call).taps > MOST_TAPS:
        return f"more than {MOST_TAPS} taps"
    return None


def small_window_of_floats(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why vectors along rows do not fit, whatever the window's steps, else ``None``."""
    if facts.unit_kind != "cpu":
        return "vectors along rows are for CPUs"
    refusal = small_window(call, facts)
    if refusal is None and call.input(0).dtype.kind != "f":
        return f"{call.input(0).dtype.name}: rows hold floats"
    return refusal


def lower_fixed(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    g = geometry(call)
    local = params["LOCAL"]
    tensors: tuple[Argument, ...] = (inp(0), out(0))
    if call.op_type == "MaxPool":
        return Lowering((_kernel(call, g, "max_pool", tensors, g.out_shape, local),))
    if call.op_type == "AveragePool":
        return Lowering((_kernel(call, g, "average_pool", tensors, g.out_shape, local),))
    if call.op_type == "AveragePoolGrad":
        return Lowering((_kernel(call, g, "average_pool_grad", tensors, g.in_shape, local),))
    if _tiled(g):
        tiles = tuple(-(-n // k) for n, k in zip(g.in_size, g.kernel, strict=True))
        shape = (g.batch, g.channels, *tiles)
        tensors = (inp(0), inp(1), out(0))
        return Lowering((_kernel(call, g, "max_pool_grad_tiled", tensors, shape, local),))
    find = _kernel(call, g, "max_pool_taps", (inp(0), scratch(0)), g.out_shape, local)
    tensors = (scratch(0), inp(1), out(0))
    spread = _kernel(call, g, "max_pool_spread", tensors, g.in_shape, local)
    return Lowering((find, spread), (prod(g.out_shape),))


def _three(values: tuple[int, ...], trivial: int) -> tuple[int, ...]:
    """One value per axis D, H, W; missing axes stand in front."""
    return (trivial,) * (len(AXES) - len(values)) + values


def _tiled(g: PoolGeometry) -> bool:
    """Whether windows neither overlap nor leave gaps nor reach outside of the input."""
    return g.strides == g.kernel and max(g.dilations) == 1 and not _padded(g)


def _padded(g: PoolGeometry) -> bool:
    """Whether some tap falls outside of the input."""
    last = (
        (o - 1) * s + (k - 1) * d - p
        for o, s, k, d, p in zip(
            g.out_size, g.strides, g.kernel, g.dilations, g.pads_begin, strict=True
        )
    )
    return any(g.pads_begin) or any(end >= n for end, n in zip(last, g.in_size, strict=True))


def _kernel(
    call: OpCall,
    g: PoolGeometry,
    entry: str,
    tensors: tuple[Argument, ...],
    shape: tuple[int, ...],
    local: int,
) -> KernelCall:
    dtype = call.input(0).dtype
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "ACC": compute_type(dtype),
        "LOWEST": lowest_literal(dtype),
        "PADDED": int(_padded(g)),
        "INCLUDE_PAD": int(call.attribute("count_include_pad", 0)),
    }
    fields = {"KERNEL": g.kernel, "STRIDE": g.strides, "DILATION": g.dilations}
    for name, values in fields.items():
        defines |= {f"{name}_{a}": v for a, v in zip(AXES, _three(values, 1), strict=True)}
    defines |= {f"PAD_{a}": v for a, v in zip(AXES, _three(g.pads_begin, 0), strict=True)}
    width, rows = shape[-1], prod(shape[:-1])
    first = min(local, power_of_two(width))
    second = min(local // first, power_of_two(rows))
    sizes = (*_three(g.in_size, 1), *_three(g.out_size, 1), *_three(g.pads_end, 0))
    return KernelCall(
        family="pool_fixed",
        entry=entry,
        args=(*tensors, i32(rows), *map(i32, sizes)),
        global_size=(ceil_to(width, first), ceil_to(rows, second)),
        local_size=(first, second),
        defines=defines,
    )
