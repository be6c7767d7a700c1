"""Bytes with channels last: conversions from and to floats, sums, joins and pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from coexec.core.types import OpCall
from coexec.ops.pool_geometry import PoolGeometry
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Scalar,
    Variant,
    ceil_to,
    f32,
    i32,
    inp,
    out,
    refuse_types,
)
from coexec.processors.opencl.fusion.integer_operators import (
    ADD,
    CONCAT,
    DEQUANTISE,
    LANES,
    MAX_POOL,
    MEAN,
    QUANTISE,
    WORD,
    Steps,
    layer_of,
)

MOST_POSITIONS = 2**31 // 256
"""Bytes whose sum has 32 bits."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    core = layer_of(call).core
    if call.identifier == MEAN.identifier and prod(core.input(0).shape[2:]) > MOST_POSITIONS:
        return f"more than {MOST_POSITIONS} positions"
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    if not call.output(0).size:
        return Lowering(())
    return Lowering(_LOWER[call.identifier](call, params["LOCAL"]))


def _change(before: Steps, after: Steps) -> tuple[Scalar, ...]:
    """Zero point and factor that lead from steps to others, and the zero point of those."""
    return f32(before.zero), f32(before.scale / after.scale), f32(after.zero)


def _width(call: OpCall) -> int:
    """Bytes of a vector: all that channels are stored in are whole ones."""
    return LANES if call.output(0).shape[-1] % LANES == 0 else WORD


def _kernel(
    call: OpCall,
    entry: str,
    args: tuple[Argument, ...],
    items: int,
    local: int,
    **defines: int,
) -> KernelCall:
    own = layer_of(call)
    return KernelCall(
        "channels_last",
        entry,
        args,
        (ceil_to(items, local),),
        (local,),
        {"W": _width(call), "LOW": own.low, "HIGH": own.high, **defines},
    )


def _conversion(
    shape: tuple[int, ...], stored: int, steps: Steps
) -> tuple[int, tuple[Argument, ...]]:
    """Work-items and arguments of a conversion of (N, C, ...)."""
    positions = prod(shape[2:])
    size = shape[0] * positions
    numbers = map(i32, (size, positions, shape[1], stored))
    return size, (inp(0), out(0), *numbers, f32(steps.scale), f32(steps.zero))


def _quantise(call: OpCall, local: int) -> tuple[KernelCall, ...]:
    shape, stored = call.input(0).shape, call.output(0).shape[-1]
    size, args = _conversion(shape, stored, layer_of(call).result)
    return (_kernel(call, "quantise_last", args, size, local, W=1),)


def applies_words(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why floats are not quantised in vectors of positions, else ``None``."""
    if call.identifier != QUANTISE.identifier:
        return "nothing to quantise"
    if prod(call.input(0).shape[2:]) < LANES:
        return f"fewer than {LANES} positions"
    return applies(call, facts)


def lower_words(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Vectors of positions, four channels a word."""
    shape, stored, steps = call.input(0).shape, call.output(0).shape[-1], layer_of(call).result
    positions, width = prod(shape[2:]), params["WIDTH"]
    numbers = (*map(i32, (positions, shape[1], stored // WORD)), f32(steps.scale), f32(steps.zero))
    kernel = KernelCall(
        "channels_last",
        "quantise_words",
        (inp(0), out(0), *numbers),
        (-(-positions // width), shape[0]),
        (1, 1),
        {"W": width},
    )
    return Lowering((kernel,))


def _dequantise(call: OpCall, local: int) -> tuple[KernelCall, ...]:
    shape, stored = call.output(0).shape, call.input(0).shape[-1]
    size, args = _conversion(shape, stored, layer_of(call).steps[0])
    return (_kernel(call, "dequantise_last", args, size, local, W=1),)


def _add(call: OpCall, local: int) -> tuple[KernelCall, ...]:
    own, size = layer_of(call), call.output(0).size
    first, second = (_change(steps, own.result) for steps in own.steps)
    args: tuple[Argument, ...] = (inp(0), inp(1), out(0), i32(size), *first[:2], *second)
    return (_kernel(call, "add", args, size // _width(call), local),)


def _join(call: OpCall, local: int) -> tuple[KernelCall, ...]:
    """A kernel for each operand."""
    own, calls, first = layer_of(call), [], 0
    y_stored = call.output(0).shape[-1]
    size = call.output(0).size // y_stored
    for index, steps in enumerate(own.steps):
        channels, x_stored = own.core.input(index).shape[1], call.input(index).shape[-1]
        numbers = map(i32, (size, channels, x_stored, y_stored, first))
        args: tuple[Argument, ...] = (inp(index), out(0), *numbers, *_change(steps, own.result))
        width = LANES if channels >= LANES else 1
        calls.append(_kernel(call, "join", args, size, local, W=width))
        first += channels
    return tuple(calls)


def _max_pool(call: OpCall, local: int) -> tuple[KernelCall, ...]:
    own, stored = layer_of(call), call.output(0).shape[-1]
    g = PoolGeometry.of(own.core)
    size = call.output(0).size // stored
    numbers = (
        *(size, stored, *g.in_size, *g.out_size),
        *(*g.strides, *g.pads_begin, *g.dilations),
    )
    args: tuple[Argument, ...] = (
        inp(0),
        out(0),
        *map(i32, numbers),
        *_change(own.steps[0], own.result),
    )
    height, width = g.kernel
    windows = {"KERNEL_HEIGHT": height, "KERNEL_WIDTH": width}
    return (_kernel(call, "max_pool", args, size, local, **windows),)


def _mean(call: OpCall, local: int) -> tuple[KernelCall, ...]:
    own, (batch, _, _, stored) = layer_of(call), call.output(0).shape
    positions = prod(own.core.input(0).shape[2:])
    numbers = map(i32, (positions, stored))
    kernel = KernelCall(
        "channels_last",
        "mean",
        (inp(0), out(0), *numbers, *_change(own.steps[0], own.result)),
        (stored // _width(call), batch),
        (1, 1),
        {"W": _width(call), "LOW": own.low, "HIGH": own.high},
    )
    return (kernel,)


_LOWER: Mapping[str, Callable[[OpCall, int], tuple[KernelCall, ...]]] = {
    QUANTISE.identifier: _quantise,
    DEQUANTISE.identifier: _dequantise,
    ADD.identifier: _add,
    CONCAT.identifier: _join,
    MAX_POOL.identifier: _max_pool,
    MEAN.identifier: _mean,
}

FAMILY = KernelFamily(
    "channels_last",
    tuple(_LOWER),
    (
        Variant("words", lower_words, applies_words, space={"WIDTH": (16, 8)}),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16)}),
    ),
)
"""Simple kernels: they move bytes."""
