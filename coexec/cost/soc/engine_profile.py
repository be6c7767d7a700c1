"""What is known of engines beside how fast their kernels are: what an operator takes at least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coexec.core.soc import Latency
from coexec.cost.soc.workload import CONV, DENSE, DEPTHWISE, GROUPED, Workload

COEXEC, STOCK_MNN, TFLITE, QNN = "coexec", "stock-mnn-opencl", "tflite", "qnn"
PRODUCTS = frozenset({CONV, GROUPED, DEPTHWISE, DENSE})
"""Families whose work is divided: on a CPU, threads are woken and waited for."""


@dataclass(frozen=True)
class EngineProfile:
    """``product_us``: what a product takes whatever its size, by kind of processor. ``source``."""

    product_us: Mapping[str, Latency] = field(default_factory=dict)
    source: str = ""


PROFILES: Mapping[str, EngineProfile] = {
    STOCK_MNN: EngineProfile(
        # The median and the ends are those of three phones, not deciles of one.
        product_us={"cpu": Latency(14.8, 8.7, 28.9), "gpu": Latency(14.6, 8.0, 14.8)},
        source="measured: the constant part of the time of square products of 32 to 512 on "
        "Snapdragon 765G, 845 and 865, CPU and naive GPU kernel, arXiv 2202.10100 figure 3 "
        "(time = constant + arithmetic + traffic is 1-4 % off)",
    )
}


def call_us(engine: str, kind: str, work: Workload, fitted_us: float, factor: float) -> float:
    """What an operator takes whatever its size, in microseconds.

    ``fitted_us`` is that of the engine whose kernels were measured, ``factor`` how many times
    longer the kernels of ``engine`` take: it holds for calls too where nothing else is known.
    """
    known = PROFILES[engine].product_us if engine in PROFILES else {}
    if kind not in known:
        return factor * fitted_us
    return known[kind].median_us if work.family in PRODUCTS else fitted_us
