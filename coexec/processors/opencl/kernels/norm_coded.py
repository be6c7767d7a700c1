"""Batch normalisation that keeps blocks of codes, and its gradient that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from coexec.core.types import OpCall
from coexec.processors.opencl.family import DeviceFacts, KernelFamily, Lowering, Variant, inp, out
from coexec.processors.opencl.fusion.activated import activated_of
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.coded import (
    EXPANDING,
    KEEPING,
    KEPT_RESULT,
    KEPT_X,
    coded_of,
)
from coexec.processors.opencl.kernels import norm, norm_activated
from coexec.processors.opencl.kernels.norm_planes import (
    NOTHING_MORE,
    Codes,
    lower_planes,
    refuse_codes,
)


def normalisation_of(call: OpCall) -> OpCall:
    """The normalisation, or its gradient, in a call that may be fused with an activation."""
    return activated_of(call).call if call.domain == FUSED else call


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why a normalisation, or its gradient, cannot work on codes, else ``None``."""
    own = normalisation_of(call)
    return norm.applies_planes(own, facts) or refuse_codes(own, facts)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse(coded_of(call).call, facts)


def codes_of(call: OpCall) -> Codes:
    """Where words and ends are."""
    own = coded_of(call)
    if call.identifier == KEEPING.identifier:
        first = len(own.call.outputs)
        kept = {p: (out(first + 2 * i), out(first + 2 * i + 1)) for i, p in enumerate(own.places)}
        results = (kept.get(KEPT_X, ()), kept.get(KEPT_RESULT, ()))
        return Codes(own.bits, kept_x=results[0], kept_result=results[1])
    first = len(own.call.inputs)
    ends = {place: inp(first + i) for i, place in enumerate(own.places)}
    return Codes(own.bits, x_ends=ends.get(0), result_ends=ends.get(3))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    own = coded_of(call).call
    fused = own.domain == FUSED
    epilogue = norm_activated.epilogue_of(own) if fused else NOTHING_MORE
    return lower_planes(
        normalisation_of(own), facts, params, replace(epilogue, codes=codes_of(call))
    )


# There is no other way to compute these: their oracle are the nodes that were fused.
FAMILY = KernelFamily(
    "norm_coded",
    (KEEPING.identifier, EXPANDING.identifier),
    (
        Variant("planes", lower, applies, space={"ITEMS": (8, 4, 32)}),
        Variant("naive", lower, applies, space={"ITEMS": (1,)}),
    ),
)
