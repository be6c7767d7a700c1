"""Gradients of convolutions' weights that read blocks of codes, which their kernels expand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.fusion.coded import EXPANDING_WEIGHT, coded_of, expand_call
from coexec.processors.opencl.kernels import compress, conv, depthwise, outer, winograd_weight

LowerCodes = Callable[[OpCall, DeviceFacts, Mapping[str, int], int], Lowering]
Refuse = Callable[[OpCall, DeviceFacts], str | None]


def refuse_outer(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why sums of outer products cannot read codes, else ``None``."""
    refusal = conv.refuse_dots(call, facts)
    if refusal:
        return refusal
    params = {name: values[0] for name, values in outer.SPACE.items()}
    suited = suited_outer(call, facts)
    return outer.refuse_codes(conv.weight_product(call, facts), facts, {**params, **suited})


def suited_outer(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The width of tiles that wastes the least; panels are short: windows are to stay in cache."""
    return outer.suited_vectors(conv.weight_product(call, facts), facts)


def lower_outer(call: OpCall, facts: DeviceFacts, params: Mapping[str, int], bits: int) -> Lowering:
    """Sums of outer products."""
    return outer.lower_outer(conv.weight_product(call, facts), facts, params, (bits, inp(2)))


REFUSALS: tuple[Refuse, ...] = (
    depthwise.refuse_codes,
    winograd_weight.refuse_codes,
    refuse_outer,
)


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why no kernel reads the first operand as codes, else ``None``."""
    if facts.unit_kind != "cpu":
        return "tiles of work-groups read whole tensors"
    reasons = [refusal(call, facts) for refusal in REFUSALS]
    return None if None in reasons else reasons[-1]


def _variant(
    name: str,
    lower: LowerCodes,
    refusal: Refuse,
    space: Mapping[str, tuple[int, ...]],
    suited: Callable[[OpCall, DeviceFacts], Mapping[str, int]],
) -> Variant:
    """A way to compute the gradient from the whole operand, with codes instead."""
    return Variant(
        name,
        lambda c, facts, params: lower(coded_of(c).call, facts, params, coded_of(c).bits),
        lambda c, facts: refusal(coded_of(c).call, facts),
        space,
        lambda c, facts: suited(coded_of(c).call, facts),
    )


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Expand all of the operand into scratch, then the naive gradient."""
    own = coded_of(call)
    kind = own.call.input(0)
    expansion = compress.lower(expand_call(kind, own.bits), facts, params)
    gradient = conv.lower_naive(own.call, facts, params)
    codes: dict[Argument, Argument] = {inp(1): inp(2), out(0): scratch(0)}
    calls = (
        *(_read_from(kernel, codes) for kernel in expansion.calls),
        *(_read_from(kernel, {inp(0): scratch(0)}) for kernel in gradient.calls),
    )
    return Lowering(calls, (kind.nbytes,))


def _read_from(kernel: KernelCall, places: Mapping[Argument, Argument]) -> KernelCall:
    """A kernel with other operands."""
    return replace(kernel, args=tuple(places.get(arg, arg) for arg in kernel.args))


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    own = coded_of(call)
    return compress.applies(expand_call(own.call.input(0), own.bits), facts)


def _nothing(_call: OpCall, _facts: DeviceFacts) -> Mapping[str, int]:
    return {}


PANELS = {**outer.SPACE, "LENGTH": outer.SPACE["LENGTH"][:1]}
TILES = {**winograd_weight.SPACE, "CHANNELS": winograd_weight.SPACE["CHANNELS"][:1]}
"""Channels are expanded as many at a time as :func:`winograd_weight.refuse_codes` says."""

FAMILY = KernelFamily(
    "conv_coded",
    (EXPANDING_WEIGHT.identifier,),
    (
        _variant(
            "depthwise",
            depthwise.lower_codes,
            depthwise.refuse_codes,
            depthwise.SPACE,
            _nothing,
        ),
        _variant(
            "winograd_weight",
            winograd_weight.lower_codes,
            winograd_weight.refuse_codes,
            TILES,
            winograd_weight.suited,
        ),
        _variant("outer", lower_outer, refuse_outer, PANELS, suited_outer),
        Variant("naive", lower_naive, applies, {"LOCAL": (64, 16)}),
    ),
)
