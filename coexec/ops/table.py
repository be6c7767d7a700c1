"""All OpDefs by identifier (``Conv``, ``coexec::ConvWeightGrad``)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from coexec.core.types import OpCall
from coexec.ops import (
    activation,
    arithmetic,
    attention,
    cast,
    conv,
    conv_transpose,
    creation,
    index,
    logic,
    loss,
    matmul,
    movement,
    norm,
    optim,
    pointwise,
    pool,
    quantize,
    random,
    reduce,
    resize,
    softmax,
    views,
)
from coexec.ops.opdef import OpDef

FAMILIES = (
    activation,
    pointwise,
    arithmetic,
    logic,
    cast,
    reduce,
    softmax,
    matmul,
    conv,
    conv_transpose,
    pool,
    norm,
    attention,
    resize,
    views,
    movement,
    index,
    creation,
    random,
    quantize,
    loss,
    optim,
)
"""Modules with an ``OPS`` tuple, in the order of ``docs/operators.md``."""

OPERATORS: Mapping[str, OpDef] = MappingProxyType(
    {op.identifier: op for family in FAMILIES for op in family.OPS}
)


def opdef(call: OpCall) -> OpDef:
    """The declaration of a call's operator (it exists for every node of a loaded model)."""
    return OPERATORS[call.identifier]
