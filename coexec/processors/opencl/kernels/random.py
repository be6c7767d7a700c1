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
LANES, FEW_LANES = 16, 4
"""Blocks of the generator of a work-item, and where neighbours share a group of elements."""
GROUP = 64
"""Elements of 16 blocks."""

Defines = dict[str, str | int | float]


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((call.input(0), *call.outputs), facts)


def key_arguments(seed: int) -> tuple[Scalar, Scalar]:
    """The two words of the key."""
    return Scalar(seed % 2**32, "uint32"), Scalar((seed % 2**64) >> 32, "uint32")


def _grid(size: int, lanes: int, local: int) -> tuple[tuple[int], tuple[int]]:
    """Global and local size for so many elements."""
    return (ceil_to(-(-size // GROUP) * (LANES // lanes), local),), (local,)


def lower_mask(call: OpCall, lanes: int, local: int) -> KernelCall:
    size = call.output(0).size
    global_size, local_size = _grid(size, lanes, local)
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
        global_size=global_size,
        local_size=local_size,
        defines={"LANES": lanes},
    )


def lower_numbers(call: OpCall, lanes: int, local: int) -> KernelCall:
    draw = Draw.of(call)
    global_size, local_size = _grid(draw.size, lanes, local)
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
        global_size=global_size,
        local_size=local_size,
        defines={
            "T": c_type(draw.dtype),
            "C": compute,
            "NORMAL": int(draw.normal),
            "LANES": lanes,
        },
    )


def lower_dropout(call: OpCall, lanes: int, local: int) -> KernelCall:
    kind = call.output(0)
    ratio = ratio_of(call)
    drops = in_training(call) and ratio > 0
    has_mask = call.has_output(1)
    if not drops and not has_mask:
        return unary.elementwise(call, unary.IDENTITY, {"WIDTH": 1, "LOCAL": local})
    defines: Defines = {"T": c_type(kind.dtype), "C": compute_type(kind.dtype), "LANES": lanes}
    if has_mask:
        defines["MASK"] = 1
    args: list[Argument] = [inp(0), out(0), out(1 if has_mask else 0), i32(kind.size)]
    if drops:
        compute = "float64" if kind.dtype == np.float64 else "float32"
        args += key_arguments(seed_of(call))
        args += [Scalar(keep_threshold(ratio), "uint32"), Scalar(1 / (1 - ratio), compute)]
    global_size, local_size = (ceil_to(kind.size, local),), (local,)
    if drops:
        global_size, local_size = _grid(kind.size, lanes, local)
    return KernelCall(
        family="random",
        entry="dropout" if drops else "identity",
        args=tuple(args),
        global_size=global_size,
        local_size=local_size,
        defines=defines,
    )


def _lower(call: OpCall, lanes: int, local: int) -> Lowering:
    if call.output(0).size == 0:
        return Lowering(())
    make = {MASK: lower_mask, NUMBERS: lower_numbers}.get(call.identifier, lower_dropout)
    return Lowering((make(call, lanes, local),))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A group of elements for each item, by vectors."""
    return _lower(call, LANES, params["LOCAL"])


def lower_shared(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Four neighbours share a group of elements: a whole wave writes side by side."""
    return _lower(call, FEW_LANES, params["LOCAL"])


FAMILY = KernelFamily(
    "random",
    ("Dropout", MASK, NUMBERS),
    (
        Variant("shared", lower_shared, applies, {"LOCAL": (64, 128, 256)}, units=("gpu",)),
        Variant("naive", lower, applies, {"LOCAL": (8, 32, 64)}),
    ),
)
