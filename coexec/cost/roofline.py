"""The least time that a processor's measured limits allow: an optimistic guess without any run."""

from __future__ import annotations

from coexec.core.machine import Rates
from coexec.core.types import OpCall, compute_dtype
from coexec.ops.table import opdef


def roofline_us(call: OpCall, rates: Rates) -> float:
    """Launch latency and the larger of arithmetic at peak and traffic at full bandwidth.

    A view moves no data and costs nothing. Element types without a measured peak (integers) count
    as float32. A processor's own operator takes what it is ``like``. Source: Williams,
    Waterman, Patterson, "Roofline" (2009), with a latency added.
    """
    call = call.like or call
    op = opdef(call)
    if op.view:
        return 0.0
    work = op.work(call)
    return limit_us(work.flop, work.bytes, compute_dtype(call), rates)


def limit_us(flop: float, nbytes: float, dtype: str, rates: Rates) -> float:
    """The same of so much work in elements of ``dtype``."""
    arithmetic_us = flop / rates.gflops(dtype) / 1e3
    traffic_us = nbytes / rates.bandwidth_gbps / 1e3
    return rates.launch_us + max(arithmetic_us, traffic_us)
