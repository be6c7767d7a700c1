"""Geometry of the batch normalisation kernels in ``norm_batch.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.batch_norm import EPSILON, MOMENTUM, is_training
from coexec.processors.opencl.broadcast import power_of_two
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    ceil_to,
    f32,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.norm_planes import NOTHING_MORE, Epilogue

GROUPS_PER_UNIT = 8
"""Work-groups per compute unit that keep a device busy."""

WIDTH, GPU_WIDTH = 16, 4
"""Elements that an item reads at once: on GPUs, neighbours read neighbouring vectors."""

FUSED_BYTES = 1 << 20
"""A channel of this size is still in a cache when it is read again."""

Defines = dict[str, str | int | float]


@dataclass(frozen=True)
class _Batch:
    """A call as (images, channels, inner), with its work-group and the slices of a channel."""

    images: int
    channels: int
    inner: int
    lanes: int
    rows: int
    slices: int
    images_per_slice: int
    width: int

    @classmethod
    def of(cls, call: OpCall, groups: int, local: int, facts: DeviceFacts) -> _Batch:
        width = GPU_WIDTH if facts.unit_kind == "gpu" else WIDTH
        kind = call.input(0)
        images, channels = kind.shape[:2]
        inner = kind.size // max(images * channels, 1)
        wanted = max(1, min(images, -(-groups // max(channels, 1))))
        per_slice = max(-(-images // wanted), 1)
        lanes = min(local, power_of_two(max(inner // width, 1 if inner >= width else inner)))
        rows = min(local // lanes, power_of_two(per_slice))
        slices = -(-images // per_slice)
        return cls(images, channels, inner, lanes, rows, slices, per_slice, width)

    @property
    def sizes(self) -> tuple[Argument, ...]:
        values = (self.images, self.channels, self.inner, self.images_per_slice)
        return tuple(map(i32, values))


def small_slices(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why one work-group should not do a whole channel, else ``None``."""
    statistics = call.op_type == "BatchNormalizationGrad" or is_training(call)
    if not call.op_type.startswith("BatchNormalization") or not statistics:
        return "nothing to fuse: no statistics over a batch"
    kind = call.input(0)
    if kind.shape[1] < 2 * facts.compute_units:
        return "fewer channels than keep the device busy"
    operands = 2 if call.op_type == "BatchNormalizationGrad" else 1
    if operands * kind.nbytes > FUSED_BYTES * kind.shape[1]:
        return "a channel does not stay in the cache"
    return None


def refuse_activated(call: OpCall) -> str | None:
    """Why the kernels cannot apply an activation as well, else ``None``."""
    if not call.op_type.startswith("BatchNormalization"):
        return "statistics are not those of channels"
    return None if call.input(0).size else "no elements"


def lower_batch_activated(
    call: OpCall, facts: DeviceFacts, params: Mapping[str, int], epilogue: Epilogue
) -> Lowering:
    """One work-group for each channel, or slices of them, as for the normalisation alone."""
    if small_slices(call, facts) is None:
        return lower_batch_fused(call, facts, params, epilogue)
    return lower_batch(call, facts, params["LOCAL"], epilogue)


def _defines(call: OpCall, b: _Batch, epilogue: Epilogue) -> Defines:
    x = call.input(0).dtype
    statistics = call.input(3).dtype if call.has_input(3) else call.input(1).dtype
    return {
        "T": c_type(x),
        "TP": c_type(call.input(1).dtype),
        "TS": c_type(statistics),
        "ACC": compute_type(x),
        "LANES": b.lanes,
        "ROWS": b.rows,
        "WIDTH": b.width,
        **epilogue.defines(),
        **_conversions(x, b.width),
        "RUNNING": int(call.has_output(1)) + 2 * int(call.has_output(2))
        if call.op_type == "BatchNormalization"
        else 0,
    }


def _conversions(dtype: np.dtype[Any], width: int) -> Defines:
    """Wide elements to the type of arithmetic and back, where those differ."""
    if c_type(dtype) == compute_type(dtype):
        return {}
    return {
        "WIDEN(v)": f"convert_{compute_type(dtype)}{width}(v)",
        "NARROW(v)": f"convert_{c_type(dtype)}{width}(v)",
    }


def _epsilon(call: OpCall) -> Argument:
    return f32(float(call.attribute("epsilon", EPSILON)))


def _momentum(call: OpCall) -> Argument:
    return f32(float(call.attribute("momentum", MOMENTUM)))


def _running(call: OpCall) -> tuple[Argument, ...]:
    """Old and new running statistics, as far as the new ones are in use."""
    mean = (inp(3), out(1)) if call.has_output(1) else ()
    variance = (inp(4), out(2)) if call.has_output(2) else ()
    return mean + variance


def _grad_targets(call: OpCall, first: int) -> tuple[Argument, ...]:
    """dScale and dB; what nobody uses goes to scratch blocks ``first`` and the one after."""
    return tuple(out(i) if call.has_output(i) else scratch(first + i - 1) for i in (1, 2))


def lower_batch_fused(
    call: OpCall,
    facts: DeviceFacts,
    params: Mapping[str, int],
    epilogue: Epilogue = NOTHING_MORE,
) -> Lowering:
    """One work-group for each channel."""
    b = _Batch.of(call, 1, params["LOCAL"], facts)
    operands = (inp(0), inp(1), inp(2), *epilogue.operands())
    if call.op_type == "BatchNormalization":
        entry = "batch_fused"
        tensors = (*operands, out(0), *_running(call))
        scalars = (*b.sizes, _epsilon(call), _momentum(call))
    else:
        entry = "batch_grad_fused"
        tensors = (*operands, out(0), *_grad_targets(call, 0))
        scalars = (*b.sizes, _epsilon(call))
    kernel = KernelCall(
        family="norm_batch",
        entry=entry,
        args=(*tensors, *scalars),
        global_size=(b.lanes, b.rows, b.channels),
        local_size=(b.lanes, b.rows, 1),
        defines=_defines(call, b, epilogue),
    )
    unused = b.channels * call.input(1).dtype.itemsize
    return Lowering((kernel,), (unused, unused) if entry == "batch_grad_fused" else ())


def lower_batch(
    call: OpCall, facts: DeviceFacts, local: int, epilogue: Epilogue = NOTHING_MORE
) -> Lowering:
    """Statistics of slices, one item per channel that joins them, then all elements."""
    b = _Batch.of(call, GROUPS_PER_UNIT * facts.compute_units, local, facts)
    if call.op_type == "BatchNormalization" and not is_training(call):
        tensors = (*map(inp, range(5)), *epilogue.operands(), out(0))
        kernel = _elementwise(call, b, epilogue, "batch_apply", tensors, local, _epsilon(call))
        return Lowering((kernel,))
    defines = _defines(call, b, epilogue)
    joined = (*b.sizes, i32(b.slices), _epsilon(call))
    if call.op_type == "BatchNormalization":
        names = ("batch_statistics", "batch_join", "batch_apply_table")
        read: tuple[Argument, ...] = (inp(0),)
        fields = 2
        join = (scratch(0), inp(1), scratch(1), *_running(call), *joined, _momentum(call))
    else:
        names = ("batch_grad_statistics", "batch_grad_join", "batch_grad_apply")
        read, fields = (inp(0), inp(2), *epilogue.result()), 4
        join = (scratch(0), inp(1), scratch(1), *_grad_targets(call, 2), *joined)
    apply = (inp(0), inp(2), *epilogue.operands(), scratch(1), out(0))
    first = min(local, power_of_two(b.channels))
    calls = (
        KernelCall(
            "norm_batch",
            names[0],
            (*read, scratch(0), *b.sizes),
            (b.lanes, b.rows * b.slices, b.channels),
            (b.lanes, b.rows, 1),
            defines,
        ),
        KernelCall("norm_batch", names[1], join, (ceil_to(b.channels, first),), (first,), defines),
        _elementwise(call, b, epilogue, names[2], apply, local),
    )
    size = b.channels * (8 if call.input(0).dtype == np.float64 else 4)
    unused = b.channels * call.input(1).dtype.itemsize
    return Lowering(calls, (fields * b.slices * size, fields * size, unused, unused))


def _elementwise(
    call: OpCall,
    b: _Batch,
    epilogue: Epilogue,
    entry: str,
    tensors: tuple[Argument, ...],
    local: int,
    *more: Argument,
) -> KernelCall:
    rows = b.images * b.channels
    items = -(-b.inner // b.width)
    first = min(local, power_of_two(items))
    second = min(local // first, power_of_two(rows))
    return KernelCall(
        family="norm_batch",
        entry=entry,
        args=(*tensors, i32(rows), i32(b.channels), i32(b.inner), *more),
        global_size=(ceil_to(items, first), ceil_to(rows, second)),
        local_size=(first, second),
        defines=_defines(call, b, epilogue),
    )
