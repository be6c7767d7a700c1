"""Operators of a backward pass that read tensors as blocks of codes, and who writes such blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.compressed import compress, decompress, infer_compress
from coexec.ops.opdef import COEXEC, OpDef, Work
from coexec.ops.table import opdef
from coexec.processors.opencl.fusion.activated import ACTIVATED, ACTIVATED_GRAD
from coexec.processors.opencl.fusion.chain import FUSED

KEPT_X, KEPT_RESULT = 0, 1
"""What a normalisation keeps as codes."""


@dataclass(frozen=True)
class Coded:
    """``call`` on whole tensors: a normalisation or its gradient, perhaps with an activation.

    Or a maximum pooling, or the gradient of a convolution's weights.

    ``places``: what a normalisation or a pooling keeps (``KEPT_X``, ``KEPT_RESULT``); of a
    gradient, the operands that it reads as codes. Words of an operand stand in its place, ends
    behind all operands; words and ends of what is kept stand behind all results.
    """

    call: OpCall
    bits: int
    places: tuple[int, ...]


def coded_of(call: OpCall) -> Coded:
    """What a fused call consists of."""
    found = call.attributes["coded"]
    assert isinstance(found, Coded)
    return found


def definition_of(call: OpCall) -> OpDef:
    """The declaration of such a call, fused with an activation or not."""
    fused = {op.identifier: op for op in (ACTIVATED, ACTIVATED_GRAD)}
    return fused.get(call.identifier) or opdef(call)


def compress_call(kind: TensorType, bits: int) -> OpCall:
    """The operator that makes codes of a tensor."""
    call = OpCall("CompressBlocks", (kind,), {"bits": bits}, domain=COEXEC, output_count=2)
    return replace(call, outputs=tuple(infer_compress(call)))


def expand_call(kind: TensorType, bits: int) -> OpCall:
    """The operator that makes a tensor of its codes."""
    attributes = {"bits": bits, "shape": kind.shape, "dtype": kind.dtype.name}
    small = compress_call(kind, bits).outputs
    return OpCall("DecompressBlocks", small, attributes, (kind,), domain=COEXEC)


def infer_keeping(call: OpCall) -> Sequence[TensorType]:
    """The results of the normalisation, then words and ends."""
    own = coded_of(call)
    results = [own.call.output(i) for i in range(len(own.call.outputs))]
    codes = (compress_call(kept_type(own, place), own.bits).outputs for place in own.places)
    return [*results, *(kind for pair in codes for kind in pair if kind is not None)]


def kept_type(own: Coded, place: int) -> TensorType:
    """The tensor that is kept as codes."""
    return own.call.input(0) if place == KEPT_X else own.call.output(0)


def keep(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """One after the other in NumPy."""
    own = coded_of(call)
    results = definition_of(own.call).reference(own.call, operands)
    whole = {KEPT_X: operands[0], KEPT_RESULT: results[0]}
    codes = [
        compress(compress_call(kept_type(own, place), own.bits), [whole[place]])
        for place in own.places
    ]
    return (*results[: len(own.call.outputs)], *(part for pair in codes for part in pair))


def infer_expanding(call: OpCall) -> Sequence[TensorType]:
    """The results of the gradient."""
    return definition_of(coded_of(call).call).infer(coded_of(call).call)


def expand(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """One after the other in NumPy."""
    own = coded_of(call)
    count = len(own.call.inputs)
    whole, ends = list(operands[:count]), operands[count:]
    for place, own_ends in zip(own.places, ends, strict=True):
        large = expand_call(own.call.input(place), own.bits)
        whole[place] = np.asarray(decompress(large, [whole[place], own_ends])[0])
    return definition_of(own.call).reference(own.call, whole)


def work(call: OpCall) -> Work:
    """Arithmetic of all parts; operands are read once, results written once."""
    own = coded_of(call)
    keeping = call.identifier in (KEEPING.identifier, KEEPING_TAPS.identifier)
    parts = [
        compress_call(kept_type(own, place), own.bits)
        if keeping
        else expand_call(own.call.input(place), own.bits)
        for place in own.places
    ]
    kinds = (*call.inputs, *call.outputs)
    moved = sum(kind.nbytes for kind in kinds if kind is not None)
    flop = definition_of(own.call).work(own.call).flop
    return Work(flop + sum(opdef(part).work(part).flop for part in parts), moved)


MADE_LATE = "made after differentiation"

# Kernels make the codes of x before they write a result; elements of codes are of other types.
KEEPING = OpDef(
    "KeepingNormalization",
    infer_keeping,
    keep,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
    in_place=ACTIVATED.in_place,
)
EXPANDING = OpDef(
    "ExpandingNormalizationGrad",
    infer_expanding,
    expand,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
    in_place=ACTIVATED_GRAD.in_place,
)
EXPANDING_WEIGHT = OpDef(
    "ExpandingConvWeightGrad",
    infer_expanding,
    expand,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
)
KEEPING_TAPS = OpDef(
    "KeepingMaxPoolTaps",
    infer_keeping,
    keep,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
)
