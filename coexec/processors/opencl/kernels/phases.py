"""A convolution's transpose with a stride: phases apart, then interleaved (phases.cl)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    c_type,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.conv_products import input_products, stride_phases
from coexec.processors.opencl.kernels.packed import BlockedProduct, lower_products
from coexec.processors.opencl.kernels.packed_operands import ONES
from coexec.processors.opencl.kernels.window import Window

SPAN = 32
"""Lines that one work-item interleaves."""


def lower_transpose(
    call: OpCall, w: Window, facts: DeviceFacts, params: Mapping[str, int]
) -> Lowering:
    """X as one product per phase of the stride.

    Where every other element of a line belongs to another phase, products write each phase apart,
    in whole vectors, and a kernel interleaves them; or each writes its elements where they belong.
    """
    products = list(input_products(call, w))
    if w.strides[2] != 2 or w.in_size[2] == 1 or not params["INTERLEAVE"]:
        return lower_products(products, facts, params)
    reached = [p for p in phases_apart(products, w, scratch(2)) if p.depth]
    apart = lower_products(reached, facts, params) if reached else Lowering(())
    panels, packed, *_ = (*apart.scratch, 0, 0)
    calls = (*apart.calls, interleave_call(call, w, scratch(2)))
    return Lowering(calls, (panels, packed, call.output(0).nbytes))


def phases_apart(
    products: list[BlockedProduct], w: Window, phases: Operand
) -> Iterator[BlockedProduct]:
    """The products with results one after another in each plane of ``phases``."""
    begin = 0
    for p in products:
        plane, phase = p.result.sizes[1:], (0, 0, begin)
        result = replace(p.result, operand=phases, plane=plane, steps=ONES, phase=phase)
        begin += prod(p.result.sizes)
        yield replace(p, result=result)


def interleave_call(call: OpCall, w: Window, phases: Operand) -> KernelCall:
    """The kernel that writes X from its phases."""
    x = call.output(0)
    bias = call.has_input(2)
    axes = zip(w.in_size, w.kernel, w.strides, w.pads, w.dilations, strict=True)
    reached = (reached_phases(*numbers) if w.outer else 0 for numbers in axes)
    numbers = (int(bias), w.in_channels, *w.in_size, *w.strides[:2], *reached)
    lines = w.in_size[0] * w.in_size[1]
    return KernelCall(
        family="phases",
        entry="interleave",
        args=(phases, inp(2) if bias else phases, out(0), *map(i32, numbers)),
        global_size=(-(-lines // SPAN), w.batch * w.in_channels),
        local_size=(1, 1),
        defines={"T": c_type(x.dtype), "ACC": c_type(x.dtype), "V": 4, "SPAN": SPAN},
        bytes=2 * x.nbytes,
    )


def reached_phases(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Bit ``p`` is set where some tap reaches phase ``p`` of an axis."""
    phases = stride_phases(size, kernel, stride, pad, dilation)
    return sum(1 << p for p, phase in enumerate(phases) if phase.taps)
