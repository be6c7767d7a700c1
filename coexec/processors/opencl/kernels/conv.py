"""Convolution and its gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
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
from coexec.processors.opencl.kernels import (
    col2im,
    conv_bands,
    conv_direct,
    conv_tiled,
    conv_tiled_weight,
    depthwise,
    depthwise_items,
    dots,
    outer,
    pointwise,
    tiles,
    winograd,
    winograd_items,
    winograd_weight,
)
from coexec.processors.opencl.kernels.conv_products import (
    forward_product,
    input_products,
    phase_count,
)
from coexec.processors.opencl.kernels.packed import (
    MOST_PHASES,
    SPACE,
    SPARES,
    BlockedProduct,
    lower_products,
    suited_tile,
)
from coexec.processors.opencl.kernels.packed import matches as refuse_packing
from coexec.processors.opencl.kernels.phases import lower_transpose
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

PACKED_SPACE: Mapping[str, tuple[int, ...]] = {**SPACE, "INTERLEAVE": (1, 0)}
"""Whether products of single phases of a stride are written apart, and interleaved behind them."""

ENTRIES = {
    "Conv": "conv_naive",
    "ConvTranspose": "conv_input_naive",
    "coexec::ConvInputGrad": "conv_input_naive",
    "coexec::ConvWeightGrad": "conv_weight_naive",
}
"""Kernel of each operator in conv.cl."""


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    y = call.output(0)
    if y.size == 0:
        return Lowering(())
    bias = call.has_input(2)
    local = params["LOCAL"]
    kernel = KernelCall(
        family="conv",
        entry=ENTRIES[call.identifier],
        args=(
            inp(0),
            inp(1),
            *((inp(2),) if bias else ()),
            out(0),
            *(i32(v) for v in (y.size, *Window.of(call).scalars())),
        ),
        global_size=(ceil_to(y.size, local),),
        local_size=(local,),
        defines={
            "T": c_type(y.dtype),
            "ACC": c_type(np.dtype(accumulator(y.dtype))),
            "HAS_BIAS": int(bias),
        },
    )
    return Lowering((kernel,))


def refuse_packed(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why packed tiles do not fit this convolution, else ``None``."""
    refusal = refuse_convolution(call, facts) or refuse_packing(call.output(0).dtype)
    if refusal:
        return refusal
    if call.identifier == "coexec::ConvWeightGrad":
        return "the gradient of the weights has variants of its own"
    window = Window.of(call)
    if call.identifier != "Conv" and phase_count(window) > MOST_PHASES:
        return f"strides {window.strides}: more than {MOST_PHASES} phases"
    return None


def lower_packed(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Blocked products: one for a convolution, one per phase of the stride for its transpose."""
    if call.output(0).size == 0:
        return Lowering(())
    if call.identifier != "Conv":
        return lower_transpose(call, Window.of(call), facts, params)
    return lower_products(blocked_products(call), facts, params)


def blocked_products(call: OpCall) -> list[BlockedProduct]:
    """A convolution or its transpose in the terms of packed.cl."""
    window = Window.of(call)
    forward = call.identifier == "Conv"
    return [forward_product(call, window)] if forward else list(input_products(call, window))


def suited_packing(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The register tile for the device's vectors."""
    return suited_tile(blocked_products(call), facts)


def refuse_dots(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why vectors along output positions do not fit, else ``None``."""
    if call.identifier != "coexec::ConvWeightGrad":
        return "only the gradient of the weights sums over positions"
    return refuse_convolution(call, facts) or refuse_packing(call.output(0).dtype)


def lower_weight(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Sums of products along output positions."""
    result = call.output(0)
    if result.size == 0:
        return Lowering(())
    sizes = (call.input(0).size, call.input(1).size)
    product = dots.Dots(result.dtype, Window.of(call), inp(0), inp(1), out(0), sizes)
    return dots.lower_dots(product, facts, params)


def lower_outer(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Sums of outer products along output positions."""
    if call.output(0).size == 0:
        return Lowering(())
    return outer.lower_outer(weight_product(call, facts), facts, params)


def suited_outer(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The width of tiles that wastes the least, and the length of panels."""
    product = weight_product(call, facts)
    return outer.suited_vectors(product, facts) | outer.suited_length(product, facts)


def weight_product(call: OpCall, facts: DeviceFacts) -> outer.Outer:
    """The gradient of weights in the terms of outer.cl."""
    w = Window.of(call)
    rows = w.inner * w.taps
    strides = (rows, 1, w.outer * rows)
    product = outer.Outer(call.output(0).dtype, w, inp(0), inp(1), out(0), strides)
    return outer.narrower(product, facts)


CPU: tuple[UnitKind, ...] = ("cpu",)
GPU: tuple[UnitKind, ...] = ("gpu",)

FAMILY = KernelFamily(
    "conv",
    tuple(ENTRIES),
    (
        Variant(
            "depthwise_items",
            depthwise_items.lower,
            depthwise_items.refuse,
            depthwise_items.SPACE,
            depthwise_items.suited,
            GPU,
        ),
        Variant(
            "winograd_items",
            winograd_items.lower,
            winograd_items.refuse,
            winograd_items.SPACE,
            winograd_items.suited,
            GPU,
        ),
        Variant("tiled", conv_tiled.lower, conv_tiled.refuse, tiles.SPACE, conv_tiled.suited, GPU),
        Variant(
            "tiled_weight",
            conv_tiled_weight.lower,
            conv_tiled_weight.refuse,
            conv_tiled_weight.SPACE,
            conv_tiled_weight.suited,
            GPU,
        ),
        Variant("depthwise", depthwise.lower, depthwise.refuse, depthwise.SPACE, units=CPU),
        Variant("winograd", winograd.lower, winograd.refuse, winograd.SPACE, winograd.suited, CPU),
        Variant(
            "bands", conv_bands.lower, conv_bands.refuse, conv_bands.SPACE, conv_bands.suited, CPU
        ),
        Variant(
            "direct",
            conv_direct.lower,
            conv_direct.refuse,
            conv_direct.SPACE,
            conv_direct.suited,
            CPU,
        ),
        Variant(
            "pointwise", pointwise.lower, pointwise.refuse, pointwise.SPACE, pointwise.suited, CPU
        ),
        Variant("col2im", col2im.lower, col2im.refuse, col2im.SPACE, col2im.suited, CPU),
        Variant(
            "packed",
            lower_packed,
            refuse_packed,
            PACKED_SPACE,
            suited_packing,
            CPU,
            (SPARES[0], *({**values, "INTERLEAVE": 0} for values in SPARES)),
        ),
        Variant(
            "winograd_weight",
            winograd_weight.lower,
            winograd_weight.refuse,
            winograd_weight.SPACE,
            winograd_weight.suited,
            CPU,
        ),
        Variant("outer", lower_outer, refuse_dots, outer.SPACE, suited_outer, CPU),
        Variant("dots", lower_weight, refuse_dots, dots.SPACE, units=CPU),
        Variant("naive", lower_naive, refuse_convolution, space={"LOCAL": (64, 16)}),
    ),
)
