"""Normalisation of rows by lone work-items: ``norm_rows.cl`` (a variant of ``norm``)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.layer_norm import EPSILON, rows_and_length
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    f32,
    i32,
    inp,
    out,
    scratch,
)

FORWARD = ("LayerNormalization", "RMSNormalization")
BACKWARD = ("LayerNormalizationGrad", "RMSNormalizationGrad")
LEAST_LANES = 4

Defines = dict[str, str | int | float]


def refuse_rows(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why rows are no good vectors here, else ``None``."""
    if call.op_type not in (*FORWARD, *BACKWARD):
        return "statistics are not those of rows"
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    rows, length = rows_and_length(call)
    if rows == 0 or length < LEAST_LANES:
        return f"no rows of {LEAST_LANES} elements and more"
    return None


def lower_rows(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Even shares of the rows; for the gradient, then the sums of what flows to scale and bias."""
    rows, length = rows_and_length(call)
    per_item = -(-rows // (facts.compute_units * params["ITEMS"]))
    items = -(-rows // per_item)
    sizes = tuple(map(i32, (rows, length, per_item)))
    defines = _defines(call, facts, length)
    epsilon = f32(float(call.attribute("epsilon", EPSILON)))
    if call.op_type in FORWARD:
        operands = (*_forward_operands(call), *sizes, epsilon)
        return Lowering((_kernel("rows_norm", operands, items, defines),))
    args: tuple[Argument, ...] = (inp(0), inp(1), inp(2), out(0), scratch(0), *sizes, epsilon)
    main = _kernel("rows_grad", args, items, defines)
    wanted = sum(i for i in (1, 2) if _wants(call, i))
    if wanted == 0:
        return Lowering((main,), (_sums_bytes(call, items, length),))
    targets = (out(i if _wants(call, i) else 3 - i) for i in (1, 2))
    joined: tuple[Argument, ...] = (scratch(0), *targets, *map(i32, (wanted, items, length)))
    columns = -(-length // int(defines["V"]))
    join = _kernel("join_rows", joined, columns, defines)
    return Lowering((main, join), (_sums_bytes(call, items, length),))


def _wants(call: OpCall, index: int) -> bool:
    return index < len(call.outputs) and call.has_output(index)


def _forward_operands(call: OpCall) -> tuple[Argument, ...]:
    """Operands of ``rows_norm``; those that are not there are another's and never touched."""
    biased = call.has_input(2)
    stores = sum(i for i in (1, 2) if _wants(call, i))
    statistics = (out(i if _wants(call, i) else 0) for i in (1, 2))
    bias = inp(2 if biased else 1)
    return (inp(0), inp(1), bias, out(0), *statistics, i32(stores), i32(int(biased)))


def _accumulator_bytes(call: OpCall) -> int:
    return 8 if call.input(0).dtype == np.float64 else 4


def _sums_bytes(call: OpCall, items: int, length: int) -> int:
    return 2 * items * length * _accumulator_bytes(call)


def _defines(call: OpCall, facts: DeviceFacts, length: int) -> Defines:
    x, parameter = call.input(0).dtype, call.input(1).dtype
    stored = next((call.output(i).dtype for i in (1, 2) if _wants(call, i)), parameter)
    register = facts.vector_bytes // _accumulator_bytes(call)
    lanes = max(min(register, 16, 1 << (length.bit_length() - 1)), LEAST_LANES)
    return {
        "T": c_type(x),
        "ACC": compute_type(x),
        "SAME": int(c_type(x) == compute_type(x)),
        "TP": c_type(parameter),
        "SAME_PARAMETERS": int(c_type(parameter) == compute_type(x)),
        "TS": c_type(stored),
        "V": lanes,
        "CENTRE": int(call.op_type.startswith("Layer")),
        "GRADIENT": int(call.op_type in BACKWARD),
    }


def _kernel(entry: str, args: tuple[Argument, ...], items: int, defines: Defines) -> KernelCall:
    return KernelCall("norm_rows", entry, args, (items,), (1,), defines)
