"""Parts of a call's time at the limits of a processor: the columns of an additive model.

The time of a call, and of a network, is a sum of non-negative multiples of these terms. Sums of
calls are sums of terms, so that factors fitted on whole networks hold for single calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coexec.core.soc import Soc
from coexec.cost.soc.limits import Limits
from coexec.cost.soc.workload import (
    CONV,
    DENSE,
    DEPTHWISE,
    ELEMENTWISE,
    GROUPED,
    MOVE,
    POOL,
    REDUCE,
    Workload,
)

POINTWISE, WIDE = "conv-1x1", "conv-kxk"
ARITHMETIC = (POINTWISE, WIDE, GROUPED, "conv-depthwise-3x3", "conv-depthwise-5x5")
"""Kinds of operators whose arithmetic counts."""
DENSE_WEIGHTS = "dense: weights, one core"
"""A product of one row reads a weight for each multiply-add, and one core does that alone."""
STREAMS = (POOL, REDUCE, ELEMENTWISE, MOVE)
"""Kinds that do a few operations on what they load: they are charged by bytes alone."""
TERMS = (
    *(f"{kind}: arithmetic, all cores" for kind in ARITHMETIC),
    *(f"{kind}: arithmetic, one core" for kind in ARITHMETIC),
    *(f"{kind}: traffic" for kind in (*ARITHMETIC, DENSE, *STREAMS)),
    *(f"{kind}: traffic, one core" for kind in STREAMS),
    DENSE_WEIGHTS,
    "weights: traffic",
    "fused operands: traffic",
    "patches of a kxk convolution: traffic",
    "short products",
    "narrow products",
    "groups",
    "calls",
)
PRIOR = np.array(
    [
        float(
            name in {"calls", DENSE_WEIGHTS}
            or name.endswith((": arithmetic, all cores", ": traffic"))
        )
        for name in TERMS
    ]
)
"""What holds for terms that no measurement has: arithmetic and traffic at the limits."""
LEAST = np.array([float(name == "calls") for name in TERMS])
"""No engine runs an operator in less than its processor takes to call one."""
ENDINGS = (": arithmetic, all cores", ": traffic", "calls")
TIED = np.array([[float(n.endswith(e)) for e in ENDINGS] for n in TERMS])
TIED[TERMS.index("weights: traffic")] = 0
_WEIGHTS = np.isin(TERMS, ("weights: traffic", DENSE_WEIGHTS))
TIED = np.hstack([TIED, _WEIGHTS.astype(float)[:, None]])
"""Terms whose factors are one number where few networks were measured, shape (terms, numbers)."""
_PLACE = {name: place for place, name in enumerate(TERMS)}
CALLS = _PLACE["calls"]
SHORT, NARROW = 64, 16
"""A product's inner length and its columns at which a core's blocked loops are half filled."""


def kind_of(work: Workload) -> str:
    """The family, with convolutions told apart by their kernel."""
    if work.family == CONV:
        return POINTWISE if work.kernel <= 1 else WIDE
    if work.family == DEPTHWISE:
        return "conv-depthwise-3x3" if work.kernel <= 3 else "conv-depthwise-5x5"
    return work.family


def terms(work: Workload, limits: Limits, precision: str) -> NDArray[np.float64]:
    """Microseconds of each term of one call, shape (terms,)."""
    row = np.zeros(len(TERMS))
    itemsize = np.dtype(precision).itemsize
    kind = kind_of(work)
    streamed = work.in_elements + work.out_elements
    all_us = work.flop / limits.gflops / 1e3

    def traffic(name: str, elements: float) -> None:
        row[_PLACE[name]] += elements * itemsize / limits.gbps / 1e3

    if kind in STREAMS:
        row[_PLACE[f"{kind}: traffic, one core"]] = streamed * itemsize / limits.core_gbps / 1e3
    elif kind == DENSE:
        row[_PLACE[DENSE_WEIGHTS]] = work.flop / 2 * itemsize / limits.core_gbps / 1e3
    else:
        row[_PLACE[f"{kind}: arithmetic, all cores"]] = all_us
        row[_PLACE[f"{kind}: arithmetic, one core"]] = work.flop / limits.core_gflops / 1e3
    traffic(f"{kind}: traffic", streamed)
    if kind != DENSE:
        traffic("weights: traffic", work.weights)
    traffic("fused operands: traffic", work.others)
    if kind == WIDE:
        patches = work.kernel**2 * work.in_channels * work.out_pixels
        traffic("patches of a kxk convolution: traffic", patches)
    if work.family in {CONV, GROUPED}:
        inner = work.flop / max(2 * work.out_elements, 1)
        row[_PLACE["short products"]] = all_us * SHORT / max(inner, 1)
        row[_PLACE["narrow products"]] = all_us * NARROW * work.groups / work.out_channels
    row[_PLACE["groups"]] = work.groups if work.family == GROUPED else 0
    row[_PLACE["calls"]] = limits.dispatch.median_us
    return row


def run_terms(soc: Soc, processor: str, busy_us: float, calls: int) -> NDArray[np.float64]:
    """Microseconds of a network's run: kernels, dispatch of each call, waiting; shape (3,)."""
    kind = processor.partition(":")[0]
    latency = soc.latency
    per_call = {"cpu": latency.cpu_dispatch, "gpu": latency.gpu_dispatch}
    per_run = {"cpu": latency.cpu_dispatch, "gpu": latency.gpu_sync}
    return np.array(
        [
            busy_us,
            calls * per_call.get(kind, latency.npu_dispatch).median_us,
            per_run.get(kind, latency.npu_switch).median_us,
        ]
    )
