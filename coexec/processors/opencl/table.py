"""All kernel families by operator."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from coexec.processors.opencl.family import KernelFamily
from coexec.processors.opencl.kernels import (
    attention,
    binary,
    bit_masks,
    cast,
    casts,
    chain,
    compress,
    conv,
    conv_coded,
    creation,
    few_bits,
    gemm,
    grid_sample,
    index,
    integer,
    loss,
    magnitude,
    movement,
    norm,
    norm_activated,
    norm_coded,
    norm_joint,
    norm_shares,
    optim,
    optim_8bit,
    pad,
    pool,
    pool_coded,
    pool_taps,
    quantize,
    random,
    recurrent,
    reduce,
    resize,
    roi_align,
    scan,
    scatter,
    select,
    softmax,
    sort,
    unary,
    unfold,
)

FAMILIES: tuple[KernelFamily, ...] = (
    unary.FAMILY,
    binary.FAMILY,
    select.FAMILY,
    cast.FAMILY,
    reduce.FAMILY,
    softmax.FAMILY,
    attention.FAMILY,
    gemm.FAMILY,
    few_bits.FAMILY,
    conv.FAMILY,
    integer.FAMILY,
    pool.FAMILY,
    norm.FAMILY,
    norm_shares.FAMILY,
    norm_joint.FAMILY,
    resize.FAMILY,
    grid_sample.FAMILY,
    roi_align.FAMILY,
    unfold.FAMILY,
    movement.FAMILY,
    pad.FAMILY,
    index.FAMILY,
    scatter.FAMILY,
    sort.FAMILY,
    scan.FAMILY,
    recurrent.FAMILY,
    creation.FAMILY,
    random.FAMILY,
    quantize.FAMILY,
    compress.FAMILY,
    bit_masks.FAMILY,
    pool_taps.FAMILY,
    loss.FAMILY,
    magnitude.FAMILY,
    optim.FAMILY,
    optim_8bit.FAMILY,
)

INTERNAL: tuple[KernelFamily, ...] = (
    chain.FAMILY,
    norm_activated.FAMILY,
    norm_coded.FAMILY,
    conv_coded.FAMILY,
    pool_coded.FAMILY,
    gemm.BIASED_FAMILY,
    optim.UNSCALED_FAMILY,
    casts.FAMILY,
)
"""Families of operators that only the compiler of regions makes."""

KERNELS: Mapping[str, KernelFamily] = MappingProxyType(
    {operator: family for family in (*FAMILIES, *INTERNAL) for operator in family.operators}
)
