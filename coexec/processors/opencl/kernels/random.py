"""Dropout, random masks and random numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.philox import keep_threshold
from coexec.ops.random import in_training, mask_ratio, ratio_of, seed_of
from coexec.ops.random_numbers import Draw
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
)
from coexec.processors.opencl.kernels import unary

MASK = "coexec::BernoulliMask"
NUMBERS = "coexec::RandomNumbers"


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((call.input(0), *call.outputs), facts)


def key_arguments(seed: int) -> tuple[Scalar, Scalar]:
    """The two words of the key."""
    return Scalar(seed % 2**32, "uint32"), Scalar((seed % 2**64) >> 32, "uint32")


def lower_mask(call: OpCall, params: Mapping[str, int]) -> KernelCall:
    size, local = call.output(0).size, params["LOCAL"]
    threshold = keep_threshold(mask_ratio(call))
    return KernelCall(
        family="random",
        entry="mask",
        args=(
            inp(0),
            out(0),
            i32(size),
            *key_arguments(seed_of(call)),
            Scalar(min(threshold, 2**32 - 1), "uint32"),
            i32(threshold == 2**32),
        ),
        global_size=(ceil_to(-(-size // 64), local),),
        local_size=(local,),
    )


def lower_numbers(call: OpCall, params: Mapping[str, int]) -> KernelCall:
    draw, local = Draw.of(call), params["LOCAL"]
    compute = compute_type(draw.dtype)
    wide = "float64" if draw.dtype == np.float64 else "float32"
    return KernelCall(
        family="random",
        entry="numbers",
        args=(
            inp(0),
            out(0),
            i32(draw.size),
            *key_arguments(draw.seed),
            Scalar(draw.offset, wide),
            Scalar(draw.scale, wide),
        ),
        global_size=(ceil_to(-(-draw.size // 64), local),),
        local_size=(local,),
        defines={"T": c_type(draw.dtype), "C": compute, "NORMAL": int(draw.normal)},
    )


def lower_dropout(call: OpCall, params: Mapping[str, int]) -> KernelCall:
    kind, local = call.output(0), params["LOCAL"]
    ratio = ratio_of(call)
    drops = in_training(call) and ratio > 0
    has_mask = call.has_output(1)
    if not drops and not has_mask:
        return unary.elementwise(call, unary.IDENTITY, {"WIDTH": 1, **params})
    defines: dict[str, str | int | float] = {"T": c_type(kind.dtype), "C": compute_type(kind.dtype)}
    if has_mask:
        defines["MASK"] = 1
    args: list[Argument] = [inp(0), out(0), out(1 if has_mask else 0), i32(kind.size)]
    if drops:
        compute = "float64" if kind.dtype == np.float64 else "float32"
        args += key_arguments(seed_of(call))
        args += [Scalar(keep_threshold(ratio), "uint32"), Scalar(1 / (1 - ratio), compute)]
    items = -(-kind.size // 64) if drops else kind.size
    return KernelCall(
        family="random",
        entry="dropout" if drops else "identity",
        args=tuple(args),
        global_size=(ceil_to(items, local),),
        local_size=(local,),
        defines=defines,
    )


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    if call.output(0).size == 0:
        return Lowering(())
    make = {MASK: lower_mask, NUMBERS: lower_numbers}.get(call.identifier, lower_dropout)
    return Lowering((make(call, params),))


def suited(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """A whole wave on a GPU; fewer items on a CPU, where each writes 64 elements by vectors."""
    return {"LOCAL": 64} if facts.unit_kind == "gpu" else {}


FAMILY = KernelFamily(
    "random",
    ("Dropout", MASK, NUMBERS),
    (Variant("naive", lower, applies, {"LOCAL": (8, 32, 64)}, suited),),
)
