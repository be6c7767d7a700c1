"""Maximum pooling that keeps blocks of codes of its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelFamily,
    Lowering,
    Variant,
    inp,
    out,
)
from coexec.processors.opencl.fusion.coded import KEEPING_TAPS, coded_of, compress_call
from coexec.processors.opencl.kernels import compress, pool_taps


def applies_pairs(call: OpCall, facts: DeviceFacts) -> str | None:
    return pool_taps.refuse_codes(coded_of(call).call, facts)


def lower_pairs(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    own = coded_of(call)
    return pool_taps.lower_codes(own.call, facts, params, own.bits)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return pool_taps.applies(coded_of(call).call, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """The naive pooling, then the naive compression of its result."""
    own = coded_of(call)
    small = compress.lower(compress_call(own.call.output(0), own.bits), facts, params)
    places: dict[Argument, Argument] = {inp(0): out(0), out(0): out(2), out(1): out(3)}
    behind = (
        replace(kernel, args=tuple(places.get(arg, arg) for arg in kernel.args))
        for kernel in small.calls
    )
    return Lowering((*pool_taps.lower(own.call, facts, params).calls, *behind))


FAMILY = KernelFamily(
    "pool_coded",
    (KEEPING_TAPS.identifier,),
    (
        Variant("pairs", lower_pairs, applies_pairs, space={"SHARES": (8, 4, 16)}),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
