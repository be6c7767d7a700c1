"""RoiAlign and its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.roi_align import GRAD, Regions
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Scalar,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)

BLOCK = 8


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    kind = call.input(0).dtype
    if kind.kind != "f" or call.input(1).dtype != kind:
        return f"images of {kind.name} with regions of {call.input(1).dtype.name}"
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    r, kind, local = Regions.of(call), call.input(0).dtype, params["LOCAL"]
    if call.output(0).size == 0:
        return Lowering(())
    wide = "float64" if kind == np.float64 else "float32"
    defines: dict[str, str | int | float] = {
        "T": c_type(kind),
        "ACC": compute_type(kind),
        "BLOCK": BLOCK,
        "LARGEST": int(r.mode == "max"),
    }
    _, channels, *sizes = r.images
    numbers: tuple[Argument, ...] = (
        *map(i32, (channels, *sizes, *r.out, r.grid)),
        Scalar(r.scale, wide),
        Scalar(r.shift, wide),
    )
    if call.op_type == GRAD:
        planes = r.images[0] * channels
        images = inp(3) if r.mode == "max" else inp(0)  # the mean does not look at them
        tensors: tuple[Argument, ...] = (inp(0), inp(1), inp(2), images, out(0), scratch(0))
        args = (*tensors, i32(planes), i32(r.count), *numbers)
        kernel = KernelCall("roi_align", "grad", args, (planes,), (1,), defines)
        return Lowering((kernel,), (planes * prod(sizes) * np.dtype(wide).itemsize,))
    cells = ceil_to(r.out[0] * r.out[1], local)
    grid = (cells, -(-channels // BLOCK), r.count)
    args = (inp(0), inp(1), inp(2), out(0), *numbers)
    return Lowering((KernelCall("roi_align", "align", args, grid, (local, 1, 1), defines),))


FAMILY = KernelFamily(
    "roi_align",
    ("RoiAlign", f"coexec::{GRAD}"),
    (Variant("naive", lower, applies, space={"LOCAL": (8, 4, 16)}),),
)
