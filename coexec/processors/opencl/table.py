"""All kernel families by operator."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from coexec.processors.opencl.family import KernelFamily
from coexec.processors.opencl.kernels import (
    binary,
    cast,
    chain,
    conv,
    creation,
    gemm,
    index,
    loss,
    movement,
    norm,
    norm_activated,
    optim,
    pad,
    pool,
    quantize,
    random,
    reduce,
    resize,
    scan,
    scatter,
    select,
    softmax,
    sort,
    unary,
)

FAMILIES: tuple[KernelFamily, ...] = (
    unary.FAMILY,
    binary.FAMILY,
    select.FAMILY,
    cast.FAMILY,
    reduce.FAMILY,
    softmax.FAMILY,
    gemm.FAMILY,
    conv.FAMILY,
    pool.FAMILY,
    norm.FAMILY,
    resize.FAMILY,
    movement.FAMILY,
    pad.FAMILY,
    index.FAMILY,
    scatter.FAMILY,
    sort.FAMILY,
    scan.FAMILY,
    creation.FAMILY,
    random.FAMILY,
    quantize.FAMILY,
    loss.FAMILY,
    optim.FAMILY,
)

INTERNAL: tuple[KernelFamily, ...] = (chain.FAMILY, norm_activated.FAMILY, gemm.BIASED_FAMILY)
"""Families of operators that only the compiler of regions makes."""

KERNELS: Mapping[str, KernelFamily] = MappingProxyType(
    {operator: family for family in (*FAMILIES, *INTERNAL) for operator in family.operators}
)
