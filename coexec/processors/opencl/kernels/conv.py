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
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
)
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

ENTRIES = {
    "Conv": "conv_naive",
    "ConvTranspose": "conv_input_naive",
    "coexec::ConvInputGrad": "conv_input_naive",
    "coexec::ConvWeightGrad": "conv_weight_naive",
}


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


FAMILY = KernelFamily(
    "conv",
    tuple(ENTRIES),
    (Variant("naive", lower_naive, refuse_convolution, space={"LOCAL": (64, 16)}),),
)
