"""The suites by name, in the order in which they run: where time is up, the largest is cut."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bench.case import Suite
from bench.suites import (
    coexec,
    conv,
    gemm,
    infer,
    launch,
    memory,
    planning,
    profiling,
    recurrent,
    train,
)

SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        module.SUITE.name: module.SUITE
        for module in (
            *(gemm, memory, launch, profiling, train),
            *(infer, conv, recurrent, coexec, planning),
        )
    }
)
