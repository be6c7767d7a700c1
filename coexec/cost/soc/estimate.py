"""Times of calls and of networks from a chip's figures and fitted coefficients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coexec.base.errors import UsageError
from coexec.core.soc import Soc
from coexec.cost.soc.coefficients import Coefficients, levels
from coexec.cost.soc.engine_mix import Mixable, mix_levels, mix_of, without_groups
from coexec.cost.soc.engine_profile import COEXEC, QNN, STOCK_MNN, TFLITE, call_us
from coexec.cost.soc.features import gpu_roofline_us, shape_features
from coexec.cost.soc.limits import limits_of
from coexec.cost.soc.npu_terms import NPU_CALLS, npu_rows
from coexec.cost.soc.terms import CALLS, run_terms, terms
from coexec.cost.soc.workload import Workload

ENGINES = (COEXEC, STOCK_MNN, TFLITE, QNN)
LIKE = {"cpu": TFLITE, "gpu": TFLITE, "npu": QNN}
"""Whose kernels were measured on each kind of processor; other engines are multiples of them."""
RUN = "run"
"""Stands in the names of groups of factors for what a whole run costs."""


def calls_us(
    coefficients: Coefficients,
    soc: Soc,
    processor: str,
    precision: str,
    engine: str,
    calls: Sequence[Workload],
) -> NDArray[np.float64]:
    """How long the processor is busy with each call, shape (calls,).

    Raises:
        UsageError: nothing was fitted for this kind of processor.
        ProcessorError: this chip has no such processor.
    """
    kind = processor.partition(":")[0]
    mix = mix_of(coefficients.mixes, mix_levels(engine, precision, soc.name, processor))
    if mix is not None:
        return mixable(coefficients, soc, processor, precision, calls).times_us(mix)
    limits = limits_of(soc, processor, precision)
    if kind == "gpu" and soc.gpu is not None:
        times = _gpu_us(coefficients, soc, precision, calls)
        called = np.minimum(times, soc.gpu.kernel_us)
        kernels = times - called
    else:
        group = fitted_group(coefficients, kind, precision)
        fitted = coefficients.factors_for(group, levels(soc, processor, precision))
        if kind == "npu":
            parts = npu_rows(calls, limits, precision) * fitted
        else:
            parts = np.array([terms(call, limits, precision) * fitted for call in calls])
        parts = parts.reshape(len(calls), len(fitted))
        called = parts[:, NPU_CALLS if kind == "npu" else CALLS]
        kernels = parts.sum(axis=1) - called
    # A fit knows nothing of physics: no call is faster than the peak of its processor.
    least = np.array([call.flop / limits.peak_gflops / 1e3 for call in calls])
    factor = engine_factor(coefficients, engine, kind, precision)
    handing = [
        call_us(engine, kind, call, us, factor) for call, us in zip(calls, called, strict=True)
    ]
    found: NDArray[np.float64] = np.maximum(factor * kernels, least) + np.array(handing)
    return found


def mixable(
    coefficients: Coefficients,
    soc: Soc,
    processor: str,
    precision: str,
    calls: Sequence[Workload],
) -> Mixable:
    """What mixes of other engines are multiples of.

    Raises:
        UsageError, ProcessorError: as :func:`calls_us`.
    """
    plain = [without_groups(call) for call in calls]
    kind = processor.partition(":")[0]
    like_us = calls_us(coefficients, soc, processor, precision, LIKE[kind], plain)
    # Kernels of GPUs were measured one by one, with their traffic; of CPUs whole networks were.
    gbps = limits_of(soc, processor, precision).gbps if kind == "cpu" else np.inf
    moved = [call.in_elements + call.out_elements + call.others for call in calls]
    traffic_us = np.array(moved) * np.dtype(precision).itemsize / gbps / 1e3
    return Mixable(kind, calls, like_us, traffic_us)


def network_us(
    coefficients: Coefficients,
    soc: Soc,
    processor: str,
    precision: str,
    engine: str,
    calls: Sequence[Workload],
) -> float:
    """Time of one run of a network: its calls and what handing it over costs.

    Raises:
        UsageError, ProcessorError: as :func:`calls_us`.
    """
    busy = float(calls_us(coefficients, soc, processor, precision, engine, calls).sum())
    kind = processor.partition(":")[0]
    group = f"{LIKE[kind]} {kind} {RUN}"
    # A mix was fitted to whole runs: waiting for one is in it.
    if group not in coefficients.factors or f"{engine} {kind}" in coefficients.mixes:
        return busy
    row = run_terms(soc, processor, busy, len(calls))
    return float(row @ coefficients.factors_for(group, levels(soc, processor, precision)))


def engine_factor(coefficients: Coefficients, engine: str, kind: str, precision: str) -> float:
    """How many times longer this engine's kernels take than those that were measured.

    An engine without measurements of its own here counts as those that were.
    """
    prefix = f"{engine} {kind} "
    found = coefficients.engines.get(prefix + precision)
    if found is not None:
        return found
    others = [value for name, value in coefficients.engines.items() if name.startswith(prefix)]
    return others[0] if others else 1.0


def engines(coefficients: Coefficients) -> tuple[str, ...]:
    """Engines whose costs can be asked for."""
    mixed = (name for name in coefficients.mixes if " " in name)
    fitted = (name.partition(" ")[0] for name in (*coefficients.engines, *mixed))
    return tuple(dict.fromkeys((*ENGINES, *fitted)))


def fitted_group(coefficients: Coefficients, kind: str, precision: str) -> str:
    """The group of factors for an element type: its own, else those of another, at its own rate."""
    wanted = f"{LIKE[kind]} {kind} {precision}"
    if wanted in coefficients.factors:
        return wanted
    prefix = f"{LIKE[kind]} {kind} "
    others = [name for name in coefficients.factors if name.startswith(prefix)]
    others = [name for name in others if not name.endswith(RUN)]
    if not others:
        raise UsageError(f"nothing was fitted for {wanted!r}; run coexec calibrate")
    return min(others)


def _gpu_us(
    coefficients: Coefficients, soc: Soc, precision: str, calls: Sequence[Workload]
) -> NDArray[np.float64]:
    """The longest of a call and of its halves, quarters ... in pixels.

    Trees know steps, not slopes: beyond what was measured a call could take less than its half.
    """
    parts = [list(_halves(call)) for call in calls]
    flat = [part for each in parts for part in each]
    times = _tree_us(coefficients, soc, precision, flat)
    starts = np.cumsum([0, *(len(each) for each in parts)])[:-1]
    longest: NDArray[np.float64] = np.maximum.reduceat(times, starts) if calls else times
    return longest


def _halves(call: Workload) -> Iterator[Workload]:
    """The call, and those of the same kernels for half of its pixels each time."""
    share = 1.0
    while share == 1 or share * call.out_pixels >= 1:
        yield replace(
            call,
            flop=share * call.flop,
            in_elements=share * call.in_elements,
            out_elements=share * call.out_elements,
            others=share * call.others,
            out_pixels=share * call.out_pixels,
        )
        share /= 2


def _tree_us(
    coefficients: Coefficients, soc: Soc, precision: str, calls: Sequence[Workload]
) -> NDArray[np.float64]:
    """Roofline of each call times what the trees say of its shape, on any chip to on this one."""
    limits = limits_of(soc, "gpu", precision)
    roofline = np.array([gpu_roofline_us(call, limits, soc, precision) for call in calls])
    trees = coefficients.trees.get(f"{TFLITE} gpu", {})
    rows = np.array([shape_features(call) for call in calls])
    residual = np.zeros(len(calls))
    for level in levels(soc, "gpu", precision):
        if level in trees and len(calls):
            residual += trees[level].predict(rows)
    return roofline * np.exp(residual)
