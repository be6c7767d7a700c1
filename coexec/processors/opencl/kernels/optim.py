"""Optimizer steps: Momentum, Adam, Adagrad on one tensor each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.opdef import TRAINING
from coexec.ops.optim import Hyper, hyper_of
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
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

OPERANDS: Mapping[str, int] = {"Momentum": 5, "Adam": 6, "Adagrad": 5}
"""Operands of the one-tensor form."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if len(call.inputs) != OPERANDS[call.op_type]:
        return "several tensors in one node: use one node for each"
    return refuse_types((*call.inputs, *call.outputs), facts)


def numbers(op_type: str, h: Hyper) -> tuple[float, ...]:
    """The kernel's scalars, in its order; differences from 1 are taken before rounding."""
    if op_type == "Momentum":
        return (h.alpha, h.beta, h.norm)
    if op_type == "Adagrad":
        return (h.epsilon, h.norm, h.decay)
    first = (h.alpha, 1 - h.alpha, _log(h.alpha))
    second = (h.beta, 1 - h.beta, _log(h.beta))
    return (*first, *second, h.epsilon, h.norm, 1 - h.norm_post)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def results(call: OpCall) -> tuple[list[Operand], tuple[int, ...]]:
    """Where results go: states that nobody reads go to scratch."""
    targets: list[Operand] = []
    blocks: list[int] = []
    for index in range(OPERANDS[call.op_type] - 3):
        if call.has_output(index):
            targets.append(out(index))
        else:
            targets.append(scratch(len(blocks)))
            blocks.append(call.input(2).nbytes)
    return targets, tuple(blocks)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    x = call.input(2)
    if x.size == 0:
        return Lowering(())
    hyper = hyper_of(call)
    width, vectors, local = params.get("WIDTH", 1), params.get("VECTORS", 1), params["LOCAL"]
    compute = "float64" if x.dtype == np.float64 else "float32"
    targets, blocks = results(call)
    scalars: list[Argument] = [Scalar(v, compute) for v in numbers(call.op_type, hyper)]
    defines: dict[str, str | int | float] = {
        "T": c_type(x.dtype),
        "R": c_type(call.input(0).dtype),
        "C": compute_type(x.dtype),
        "W": width,
        "N": vectors,
    }
    if x.dtype == np.float16:
        defines["WIDEN"] = 1
    if hyper.nesterov:
        defines["NESTEROV"] = 1
    kernel = KernelCall(
        family="optim",
        entry=call.op_type.lower(),
        args=(*map(inp, range(len(call.inputs))), *targets, i32(x.size), *scalars),
        global_size=(ceil_to(-(-x.size // (width * vectors)), local),),
        local_size=(local,),
        defines=defines,
    )
    return Lowering((kernel,), blocks)


FAMILY = KernelFamily(
    "optim",
    tuple(f"{TRAINING}::{name}" for name in OPERANDS),
    (
        Variant(
            "wide",
            lower,
            applies,
            space={"WIDTH": (16, 8, 4), "VECTORS": (4, 1, 8), "LOCAL": (8, 16, 64)},
        ),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
