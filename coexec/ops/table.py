"""All OpDefs by identifier (``Conv``, ``coexec::ConvWeightGrad``)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from coexec.core.types import OpCall
from coexec.ops import (
    activation,
    arithmetic,
    attention,
    batch_norm,
    batch_norm_joint,
    batch_norm_shares,
    bit_masks,
    cast,
    compressed,
    conv,
    conv_transpose,
    creation,
    einsum,
    global_pool,
    grid_sample,
    group_norm,
    index,
    integer_products,
    layer_norm,
    logic,
    loss,
    matmul,
    movement,
    norm,
    optim,
    optim_8bit,
    pad,
    paging,
    pieces,
    pointwise,
    pool,
    pool_taps,
    quantize,
    random,
    random_numbers,
    recurrent,
    recurrent_gradient,
    reduce,
    resize,
    scan,
    scatter,
    softmax,
    sort,
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
    einsum,
    conv,
    conv_transpose,
    integer_products,
    pool,
    global_pool,
    batch_norm,
    batch_norm_shares,
    batch_norm_joint,
    layer_norm,
    group_norm,
    norm,
    attention,
    recurrent,
    recurrent_gradient,
    resize,
    grid_sample,
    views,
    pieces,
    pad,
    movement,
    index,
    scatter,
    sort,
    scan,
    creation,
    random,
    random_numbers,
    quantize,
    compressed,
    bit_masks,
    pool_taps,
    paging,
    loss,
    optim,
    optim_8bit,
)
"""Modules with an ``OPS`` tuple, in the order of ``docs/operators.md``."""

OPERATORS: Mapping[str, OpDef] = MappingProxyType(
    {op.identifier: op for family in FAMILIES for op in family.OPS}
)


def opdef(call: OpCall) -> OpDef:
    """The declaration of a call's operator (it exists for every node of a loaded model)."""
    return OPERATORS[call.identifier]
