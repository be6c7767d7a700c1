"""GridSample and its gradients, up to three spatial axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.grid_sample import PADDINGS, Grid
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
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
    refuse_types,
    scratch,
)

AXES = 3


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if len(Grid.of(call).sizes) > AXES:
        return f"more than {AXES} spatial axes"
    if call.input(0).dtype.kind != "f":
        return f"images of {call.input(0).dtype.name}"
    return refuse_types((*call.inputs, *call.outputs), facts)


def _defines(call: OpCall, g: Grid) -> dict[str, str | int | float]:
    images, grid = call.input(0).dtype, call.input(len(call.inputs) - 1).dtype
    return {
        "T": c_type(images),
        "G": c_type(grid),
        "ACC": compute_type(max(images, grid, key=lambda dtype: dtype.itemsize)),
        "AXES": len(g.sizes),
        "TAPS": g.taps,
        "PADDING": PADDINGS.index(g.padding),
        "ALIGN": int(g.align),
    }


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    g, local = Grid.of(call), params["LOCAL"]
    if call.output(0).size == 0:
        return Lowering(())
    defines = _defines(call, g)
    sizes = ((1,) * AXES + g.sizes)[-AXES:]
    if call.op_type == "GridSampleInputGrad":
        planes = g.batch * g.channels
        numbers = map(i32, (planes, g.channels, g.points, *sizes))
        args: tuple[Argument, ...] = (inp(0), inp(1), out(0), scratch(0), *numbers)
        wide = 8 if defines["ACC"] == c_type(np.dtype(np.float64)) else 4
        kernel = KernelCall("grid_sample", "input_grad", args, (planes,), (1,), defines)
        return Lowering((kernel,), (planes * g.pixels * wide,))
    entry = "grid_grad" if call.op_type == "GridSampleGridGrad" else "sample"
    tensors = [inp(index) for index in range(len(call.inputs))]
    args = (*tensors, out(0), *map(i32, (g.channels, g.points, *sizes)))
    grid = (ceil_to(g.points, local), g.batch)
    return Lowering((KernelCall("grid_sample", entry, args, grid, (local, 1), defines),))


FAMILY = KernelFamily(
    "grid_sample",
    ("GridSample", "coexec::GridSampleInputGrad", "coexec::GridSampleGridGrad"),
    (Variant("naive", lower, applies, space={"LOCAL": (16, 4, 64)}),),
)
