"""Depthwise convolutions of bytes with channels last."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    f32,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.fusion.integer_operators import LANES, layer_of, work
from coexec.processors.opencl.kernels.integer_epilogue import epilogue
from coexec.processors.opencl.kernels.window import Window

MOST_TAPS = 512
"""Products of bytes whose sum is exact in float: 255 * 128 * 512 < 2^24."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why the kernel does not compute a convolution, else ``None``."""
    own = layer_of(call)
    window = Window.of(own.core)
    if not (window.depthwise and window.outer == 1):
        return "channels are summed"
    if own.residual is not None or window.taps > MOST_TAPS:
        return "a tensor to add, or more taps than floats count"
    if not call.output(0).size or call.output(0).shape[-1] % LANES:
        return f"fewer channels than {LANES} are stored"
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Weights as floats once, then lines of vectors of channels."""
    own = layer_of(call)
    w, stored = Window.of(own.core), call.output(0).shape[-1]
    _, values, defines = epilogue(own, inp(4))
    defines |= {
        "KERNEL_HEIGHT": w.kernel[1],
        "KERNEL_WIDTH": w.kernel[2],
        "STRIDE": w.strides[2],
    }
    packing = KernelCall(
        "integer_depthwise",
        "pack_taps",
        (inp(1), scratch(0), i32(w.out_channels), i32(stored)),
        (w.taps * stored,),
        None,
        defines,
        bytes=5 * w.taps * stored,
        layout=True,
        prepares=True,
    )
    numbers = (
        *(*w.in_size[1:], stored, *w.out_size[1:]),
        *(w.strides[1], *w.pads[1:], *w.dilations[1:]),
    )
    zero, own_work = own.steps[0].zero, work(call)
    kernel = KernelCall(
        "integer_depthwise",
        "depthwise",
        (inp(0), scratch(0), inp(2), inp(3), out(0), *values, f32(zero), *map(i32, numbers)),
        (stored // LANES, w.batch * w.out_size[1]),
        (1, 1),
        defines,
        flop=own_work.flop,
        bytes=own_work.bytes,
    )
    return Lowering((packing, kernel), (w.taps * stored * 4,))
