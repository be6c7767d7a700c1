"""Normalisation kernels: over rows (layer, RMS, group, instance), over channels (batch), LRN."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.group_norm import group_count
from coexec.ops.layer_norm import inner_affine, rows_and_length
from coexec.ops.norm import lrn_reach, lrn_scalars
from coexec.processors.opencl.broadcast import power_of_two
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
    f32,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.kernels.norm_batch import (
    lower_batch,
    lower_batch_fused,
    refuse_activated,
    small_slices,
)
from coexec.processors.opencl.kernels.norm_groups import lower_groups, refuse_groups
from coexec.processors.opencl.kernels.norm_lrn import lower_lrn, refuse_lrn
from coexec.processors.opencl.kernels.norm_planes import lower_planes, refuse_planes
from coexec.processors.opencl.kernels.norm_rows import lower_rows, refuse_rows

LAYERS = ("LayerNormalization", "RMSNormalization")
LAYER_GRADS = ("LayerNormalizationGrad", "RMSNormalizationGrad")
GROUPS = ("GroupNormalization", "InstanceNormalization")
LRN_POWERS = {0.75: {"POWER(base, beta)": "(1 / (sqrt(base) * sqrt(sqrt(base))))"}}
"""Definitions for exponents (0.75 is the usual one) without pow(), which is slow on drivers
that do not vectorise it."""
SLICE_ROWS = 64
"""Rows that one work-item sums for the gradient of a layer's scale; more become slices."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    kinds = [kind for kind in (*call.inputs, *call.outputs) if kind is not None]
    if kinds[0].dtype.kind != "f":
        return f"{call.op_type}: no kernel for {kinds[0].dtype.name}"
    if call.op_type in LAYERS and not all(
        inner_affine(call, i) for i in range(1, len(call.inputs)) if call.has_input(i)
    ):
        return f"{call.op_type}: scale or bias is not of the shape of the normalised axes"
    if not call.has_output(0):
        return f"{call.op_type}: its first output is not in use"
    return refuse_types(kinds, facts)


def applies_fused(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    return refusal or small_slices(call, facts)


def applies_planes(call: OpCall, facts: DeviceFacts) -> str | None:
    return applies(call, facts) or refuse_planes(call, facts)


def applies_activated(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why a normalisation, or its gradient, is not fused with an activation, else ``None``."""
    if facts.unit_kind == "cpu":
        return applies_planes(call, facts)
    return applies(call, facts) or refuse_activated(call)


def applies_groups(call: OpCall, facts: DeviceFacts) -> str | None:
    return applies(call, facts) or refuse_groups(call, facts)


def applies_rows(call: OpCall, facts: DeviceFacts) -> str | None:
    return applies(call, facts) or refuse_rows(call, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    local = params["LOCAL"]
    if call.op_type.startswith("BatchNormalization"):
        return lower_batch(call, facts, local)
    if call.op_type == "LRN":
        return _lrn(call, local)
    return _rows(call, local)


def _lrn(call: OpCall, local: int) -> Lowering:
    kind = call.input(0)
    rows, channels = kind.shape[0] * kind.shape[1], kind.shape[1]
    inner = kind.size // max(rows, 1)
    alpha, beta, bias = lrn_scalars(call)
    before, after = lrn_reach(call)
    ratio = alpha / int(call.attributes["size"])
    first = min(local, power_of_two(inner))
    second = min(local // first, power_of_two(rows))
    scalars = (i32(rows), i32(channels), i32(inner), i32(before), i32(after))
    kernel = KernelCall(
        family="norm",
        entry="lrn",
        args=(inp(0), out(0), *scalars, f32(ratio), f32(beta), f32(bias)),
        global_size=(ceil_to(inner, first), ceil_to(rows, second)),
        local_size=(first, second),
        defines=_types(call) | LRN_POWERS.get(beta, {}),
    )
    return Lowering((kernel,))


def _types(call: OpCall) -> dict[str, str | int | float]:
    x = call.input(0).dtype
    parameter = call.input(1).dtype if call.has_input(1) else x
    return {"T": c_type(x), "TP": c_type(parameter), "ACC": compute_type(x)}


def _row_sizes(call: OpCall) -> tuple[int, int, int, int]:
    """(rows, groups, segments, inner): see ``norm.cl``."""
    kind = call.input(0)
    if call.op_type in (*LAYERS, *LAYER_GRADS):
        rows, length = rows_and_length(call)
        return rows, 1, 1, length
    groups = group_count(call)
    channels = kind.shape[1]
    inner = kind.size // max(kind.shape[0] * channels, 1)
    return kind.shape[0] * groups, groups, channels // groups, inner


def _rows(call: OpCall, local: int) -> Lowering:
    rows, groups, segments, inner = _row_sizes(call)
    lanes = min(local, power_of_two(max(inner // 8, 1)))
    per_group = min(local // lanes, power_of_two(rows))
    gradient = call.op_type.endswith("Grad")
    defines = _types(call) | {
        "LANES": lanes,
        "ROWS": per_group,
        "CENTRE": int(not call.op_type.startswith("RMS")),
        "BY_SEGMENT": int("Group" in call.op_type or "Instance" in call.op_type),
    }
    sizes = (i32(rows), i32(groups), i32(segments), i32(inner))
    scalars = (*sizes, f32(float(call.attribute("epsilon", 1e-5))))
    geometry = (lanes, ceil_to(rows, per_group))
    if not gradient:
        args, more = _forward_operands(call)
        kernel = KernelCall(
            "norm", "row_norm", (*args, *scalars), geometry, (lanes, per_group), defines | more
        )
        return Lowering((kernel,))
    args = (inp(0), inp(1), inp(2), out(0), scratch(0))
    main = KernelCall(
        "norm", "row_norm_grad", (*args, *scalars), geometry, (lanes, per_group), defines
    )
    sums = _group_sums if call.op_type == "GroupNormalizationGrad" else _layer_sums
    return sums(call, main, defines, local)


def _forward_operands(call: OpCall) -> tuple[tuple[Argument, ...], dict[str, str | int | float]]:
    """Tensor arguments of ``row_norm`` and the defines that they imply."""
    bias, mean, inverse = call.has_input(2), call.has_output(1), call.has_output(2)
    args: list[Argument] = [inp(0), inp(1)]
    args += [inp(2)] * bias + [out(0)] + [out(1)] * mean + [out(2)] * inverse
    more: dict[str, str | int | float] = {
        "BIAS": int(bias),
        "STORE_MEAN": int(mean),
        "STORE_INVERSE": int(inverse),
    }
    if mean or inverse:
        more["TS"] = c_type(call.output(1 if mean else 2).dtype)
    return tuple(args), more


def _statistics_bytes(call: OpCall, rows: int) -> int:
    return 2 * rows * np.dtype(_accumulator(call)).itemsize


def _accumulator(call: OpCall) -> str:
    return "float64" if call.input(0).dtype == np.float64 else "float32"


def _layer_sums(
    call: OpCall, main: KernelCall, defines: Mapping[str, str | int | float], local: int
) -> Lowering:
    """Sums over rows in slices, then over slices, for those of dScale and dB that are in use."""
    rows, length = rows_and_length(call)
    slices = -(-rows // SLICE_ROWS)
    first = min(local, power_of_two(length))
    parts = KernelCall(
        "norm",
        "layer_sums",
        (
            inp(0),
            inp(2),
            scratch(0),
            scratch(1),
            Scalar(rows),
            Scalar(SLICE_ROWS),
            Scalar(length),
        ),
        (ceil_to(length, first), slices),
        (first, 1),
        defines,
    )
    joins = tuple(
        KernelCall(
            "norm",
            "join_slices",
            (scratch(1), out(i), i32((i - 1) * slices), i32(slices), i32(length)),
            (ceil_to(length, first),),
            (first,),
            defines,
        )
        for i in (1, 2)
        if call.has_output(i)
    )
    sums_bytes = 2 * slices * length * np.dtype(_accumulator(call)).itemsize
    scratch_bytes = (_statistics_bytes(call, rows), sums_bytes)
    return Lowering((main, parts, *joins), scratch_bytes)


def _group_sums(
    call: OpCall, main: KernelCall, defines: Mapping[str, str | int | float], local: int
) -> Lowering:
    """Sums over images for the scale and bias of each channel."""
    kind = call.input(0)
    images, channels = kind.shape[:2]
    groups = group_count(call)
    inner = kind.size // max(images * channels, 1)
    lanes = min(local, power_of_two(inner))
    per_group = min(local // lanes, power_of_two(images))
    # An output that nobody uses still needs a place to be written to.
    extra = channels * np.dtype(call.input(1).dtype).itemsize
    targets = [out(i) if call.has_output(i) else scratch(i) for i in (1, 2)]
    sums = KernelCall(
        "norm",
        "group_sums",
        (inp(0), inp(2), scratch(0), *targets, i32(images), i32(channels), i32(inner), i32(groups)),
        (lanes, per_group, channels),
        (lanes, per_group, 1),
        {**defines, "LANES": lanes, "ROWS": per_group},
    )
    return Lowering((main, sums), (_statistics_bytes(call, images * groups), extra, extra))


_SPACE = {"LOCAL": (64, 16, 256)}

FAMILY = KernelFamily(
    "norm",
    (
        *LAYERS,
        *(f"coexec::{name}" for name in LAYER_GRADS),
        *GROUPS,
        "coexec::GroupNormalizationGrad",
        "BatchNormalization",
        "coexec::BatchNormalizationGrad",
        "LRN",
    ),
    (
        Variant(
            "planes", lower_planes, applies_planes, space={"ITEMS": (8, 4, 32)}, units=("cpu",)
        ),
        Variant("rows", lower_rows, applies_rows, space={"ITEMS": (4, 2, 16)}, units=("cpu",)),
        Variant(
            "groups", lower_groups, applies_groups, space={"ITEMS": (4, 2, 16)}, units=("cpu",)
        ),
        Variant("lrn", lower_lrn, refuse_lrn, space={"ITEMS": (8, 4, 32)}, units=("cpu",)),
        Variant("fused", lower_batch_fused, applies_fused, space=_SPACE),
        # On GPUs a line of neighbours for each row is right: what the naive kernels are, too.
        Variant("lines", lower, applies, {"LOCAL": (64, 128, 256)}, units=("gpu",)),
        Variant("naive", lower, applies, space=_SPACE),
    ),
)
