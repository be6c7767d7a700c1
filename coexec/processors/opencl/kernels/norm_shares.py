"""Batch normalisation of shares of a batch: ``norm_shares.cl``; statistics: ``norm_planes.cl``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.ops.batch_norm import EPSILON, MOMENTUM
from coexec.ops.batch_norm_shares import (
    FLOW_FIRST,
    JOIN_FIRST,
    count_of,
    counts_of,
    shares_of,
    statistics_type,
)
from coexec.processors.opencl.broadcast import power_of_two
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
    f32,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.kernels.norm_planes import (
    LEAST_LANES,
    NOTHING_MORE,
    Epilogue,
    Walk,
    lanes_of,
)

STATISTICS, JOIN = "coexec::BatchStatistics", "coexec::JoinStatistics"
SUMS, FLOW = "coexec::BatchNormalizationSums", "coexec::BatchNormalizationFlow"
MOST_SHARES = 8
"""Shares of which a kernel takes an argument or two each."""

LANES = 64
"""Work-items of a group for a channel, as far as it has elements."""

Defines = dict[str, str | int | float]


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    kinds = [kind for kind in (*call.inputs, *call.outputs) if kind is not None]
    if any(kind.dtype.kind != "f" for kind in kinds):
        return f"{call.op_type}: no kernel for {kinds[0].dtype.name}"
    if call.identifier in (JOIN, FLOW) and shares_of(call) > MOST_SHARES:
        return f"{call.op_type}: more than {MOST_SHARES} shares"
    if not all(call.has_output(i) for i in range(1 if call.identifier == FLOW else 2)):
        return f"{call.op_type}: a result is not in use"
    first = {JOIN: JOIN_FIRST, FLOW: 3}.get(call.identifier)
    if first is not None and len({kind.dtype for kind in call.inputs[first:] if kind}) > 1:
        return f"{call.op_type}: statistics of several types"
    return refuse_types(kinds, facts)


def applies_planes(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.identifier == JOIN:
        return "nothing to walk: one value per channel"
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    kind = call.input(0)
    if kind.size < max(LEAST_LANES * kind.shape[0] * kind.shape[1], 1):
        return f"planes of less than {LEAST_LANES} elements"
    return applies(call, facts)


def _planes(kind: TensorType) -> tuple[int, int, int]:
    images, channels = kind.shape[:2]
    return images, channels, kind.size // max(images * channels, 1)


def _defines(call: OpCall, step: int) -> Defines:
    x = call.input(0).dtype
    parameter = call.input(1).dtype if call.identifier == FLOW else x
    vectors = {FLOW: 3, SUMS: 1}.get(call.identifier)
    found: Defines = {
        "STEP": step,
        "T": c_type(x),
        "ACC": compute_type(x),
        "TP": c_type(parameter),
        "TM": c_type(statistics_type(x) if vectors is None else call.input(vectors).dtype),
        "TS": c_type(statistics_type(x)),
    }
    if call.identifier == FLOW:
        found["EACH_SHARE(F)"] = _each_share(call)
    return found


def _each_share(call: OpCall) -> str:
    return " ".join(f"F({share})" for share in range(shares_of(call)))


def _lanes(call: OpCall, lanes: int) -> Defines:
    x = call.input(0).dtype
    return {"V": lanes, "SAME": int(c_type(x) == compute_type(x))}


def _lower_statistics(call: OpCall, lanes: int, items: int) -> Lowering:
    walk = Walk.of(call, lanes)
    per_item = -(-walk.channels // items)
    more: Defines = {"FORM": 3, "GRADIENT": 0, "TS": c_type(call.output(0).dtype)}
    base = {k: v for k, v in _defines(call, 0).items() if k in ("T", "ACC")}
    kernel = KernelCall(
        "norm_planes",
        "batch_statistics",
        (inp(0), out(0), out(1), *walk.sizes, i32(per_item)),
        (-(-walk.channels // per_item),),
        (1,),
        {**base, **_lanes(call, lanes), **more},
    )
    return Lowering((kernel,))


def _flow_operands(call: OpCall) -> tuple[Argument, ...]:
    shares = (inp(i) for i in range(FLOW_FIRST, FLOW_FIRST + 2 * shares_of(call)))
    targets = (out(i) if call.has_output(i) else scratch(i - 1) for i in (1, 2))
    sizes = map(i32, (*_planes(call.input(0)), count_of(call)))
    epsilon = f32(float(call.attribute("epsilon", EPSILON)))
    return (*(inp(i) for i in range(FLOW_FIRST)), *shares, out(0), *targets, *sizes, epsilon)


def _flow_scratch(call: OpCall) -> tuple[int, int]:
    """Places for dScale and dB, should nobody use them."""
    return call.input(1).nbytes, call.input(1).nbytes


def lower_planes(
    call: OpCall,
    facts: DeviceFacts,
    params: Mapping[str, int],
    epilogue: Epilogue = NOTHING_MORE,
) -> Lowering:
    """Channels or planes, each a lone work-item's."""
    lanes = lanes_of(call, facts)
    items = facts.compute_units * params["ITEMS"]
    if call.identifier == STATISTICS:
        return _lower_statistics(call, lanes, items)
    images, channels, inner = _planes(call.input(0))
    step = 1 if call.identifier == SUMS else 2
    rows = channels if call.identifier == SUMS else images * channels
    per_item = -(-rows // items)
    if call.identifier == SUMS:
        tensors = (inp(0), inp(1), inp(2), *epilogue.operands(), out(0), out(1))
        arguments: tuple[Argument, ...] = (*tensors, *map(i32, (images, channels, inner)))
    else:
        arguments = _flow_operands(call)
    kernel = KernelCall(
        "norm_shares",
        "batch_share_sums" if step == 1 else "batch_share_flow",
        (*arguments, i32(per_item)),
        (-(-rows // per_item),),
        (1,),
        {**_defines(call, step), **_lanes(call, lanes), **epilogue.defines()},
    )
    return Lowering((kernel,), _flow_scratch(call) if step == 2 else ())


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A work-group for each channel, or an item for each element of a result."""
    if call.identifier == JOIN:
        return _lower_join(call, params["LOCAL"])
    images, channels, inner = _planes(call.input(0))
    local = min(params["LOCAL"], power_of_two(max(images * inner, 1)))
    step = {STATISTICS: 3, SUMS: 4, FLOW: 5}[call.identifier]
    defines = {**_defines(call, step), "LANES": local}
    sizes = tuple(map(i32, (images, channels, inner)))
    if call.identifier == FLOW:
        where = (ceil_to(max(call.input(0).size, 1), local),)
        kernel = KernelCall(
            "norm_shares", "batch_share_flow_naive", _flow_operands(call), where, (local,), defines
        )
        return Lowering((kernel,), _flow_scratch(call))
    reads = 1 if call.identifier == STATISTICS else 3
    entry = "batch_statistics_naive" if reads == 1 else "batch_share_sums_naive"
    operands = tuple(inp(i) for i in range(reads))
    arguments: tuple[Argument, ...] = (*operands, out(0), out(1), *sizes)
    where = (channels * local,)
    return Lowering((KernelCall("norm_shares", entry, arguments, where, (local,), defines),))


def _lower_join(call: OpCall, local: int) -> Lowering:
    channels, counts = call.output(0).size, counts_of(call)
    running = len(call.outputs) > JOIN_FIRST
    old = (inp(0), inp(1), out(2), out(3)) if running else ()
    shares: list[Argument] = []
    for share, count in enumerate(counts):
        first = JOIN_FIRST + 2 * share
        shares += [inp(first), inp(first + 1), f32(count / sum(counts))]
    statistics = call.input(JOIN_FIRST).dtype
    defines: Defines = {
        "STEP": 0,
        "TM": c_type(statistics),
        "TA": "double" if statistics == np.float64 else "float",
        "RUNNING": int(running),
        "EACH_SHARE(F)": _each_share(call),
    }
    if running:
        defines |= {"TS": c_type(call.input(0).dtype), "TV": c_type(call.input(1).dtype)}
    momentum = f32(float(call.attribute("momentum", MOMENTUM)))
    local = min(local, power_of_two(max(channels, 1)))
    kernel = KernelCall(
        "norm_shares",
        "join_statistics",
        (*old, *shares, out(0), out(1), i32(channels), momentum),
        (ceil_to(max(channels, 1), local),),
        (local,),
        defines,
    )
    return Lowering((kernel,))


FAMILY = KernelFamily(
    "norm_shares",
    (STATISTICS, JOIN, SUMS, FLOW),
    (
        Variant(
            "planes", lower_planes, applies_planes, space={"ITEMS": (8, 4, 32)}, units=("cpu",)
        ),
        Variant("naive", lower, applies, space={"LOCAL": (LANES, 16, 256)}),
    ),
)
