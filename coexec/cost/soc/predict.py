"""The cost of a call on a system on chip that is not here: its figures, and fitted factors.

A roofline (Williams, Waterman, Patterson, 2009) whose rates are those that tuned kernels sustain,
times what was fitted from measurements of an engine's kernels (``coexec calibrate``): on CPUs a
non-negative combination of arithmetic and traffic of each kind of operator, on GPUs boosted trees
over shapes. A chip that nobody measured works from its TOML file alone.
"""

from __future__ import annotations

from functools import lru_cache

from coexec.base.errors import UsageError
from coexec.base.names import known_names
from coexec.core.processor import Support
from coexec.core.soc import Latency, Soc
from coexec.core.types import OpCall
from coexec.cost.distribution import Distribution
from coexec.cost.soc.coefficients import shipped
from coexec.cost.soc.cost import SocCost
from coexec.cost.soc.engine_profile import COEXEC, STOCK_MNN
from coexec.cost.soc.estimate import LIKE, calls_us, engine_factor, engines
from coexec.cost.soc.limits import NOTHING, Limits, limits_of
from coexec.cost.soc.workload import Workload, precision_of, workload
from coexec.ops.table import opdef

REMEMBERED = 65_536
"""Costs kept by (chip, processor, sizes): a training loop asks for the same ones again."""
VIEW = "view: no data moves"
UNKNOWN_ERROR = 0.5
"""Relative error of what was never held against measurements: a guess."""
SPREAD = {"cpu": 1.05, "gpu": 1.08, "npu": 1.05}
"""Last to first decile of repeated runs of one kernel on a cool chip: assumed."""


def supports(soc: Soc, processor: str, call: OpCall, precision: str = "") -> Support:
    """Whether a processor of this chip runs a call in this element type; else why not."""
    if processor.partition(":")[0] != "npu":
        return Support(yes=True)
    if soc.npu is None:
        return Support(yes=False, reason=f"{soc.name} has no NPU")
    wanted = precision or precision_of(call)
    if wanted not in soc.npu.gops:
        known = ", ".join(soc.npu.gops)
        return Support(yes=False, reason=f"{soc.npu.name} computes in {known}, not in {wanted}")
    refusal = soc.npu.operators.refusal(call, wanted)
    return Support(not refusal, f"{soc.npu.name} {refusal}" if refusal else "")


def predict(
    soc: Soc, processor: str, call: OpCall, precision: str = "", engine: str = COEXEC
) -> SocCost:
    """What ``call`` costs there; ``precision`` defaults to the call's own element type.

    Raises:
        UsageError: unknown engine, or one that nothing was fitted for.
        ProcessorError: this chip has no such processor, or it does not have this element type.
    """
    wanted = precision or precision_of(call)
    if opdef(call).view:
        return _cost(soc, processor, wanted, engine, Workload("elementwise", 0, 0, 0), VIEW)
    return predict_workload(soc, processor, workload(call), wanted, engine)


def predict_workload(
    soc: Soc, processor: str, work: Workload, precision: str, engine: str = COEXEC
) -> SocCost:
    """As :func:`predict`, for sizes that come from elsewhere than a call."""
    return _cost(soc, processor, precision, engine, work, "")


def _cost(
    soc: Soc, processor: str, precision: str, engine: str, work: Workload, free: str
) -> SocCost:
    if engine not in engines(shipped()):
        known = known_names(engine, engines(shipped()))
        raise UsageError(f"unknown engine {engine!r}; {known}")
    limits = limits_of(soc, processor, precision)
    busy_us = 0.0 if free else _busy_us(_Held(soc), processor, precision, engine, work)
    # What DRAM cannot have brought in this time came from a cache.
    traffic = min(work.traffic_bytes(precision), busy_us * limits.gbps * 1e3)
    group = f"{LIKE[limits.kind]} {limits.kind} {precision}"
    error = shipped().errors.get(group, UNKNOWN_ERROR)
    return SocCost(
        compute_us=busy_us,
        memory_us=traffic / limits.gbps / 1e3,
        memory_bytes=traffic,
        flop=work.flop,
        dispatch=_distribution(_dispatch(limits, engine)),
        sync=_distribution(limits.sync),
        active_mw=limits.active_mw,
        pj_per_byte=soc.memory.pj_per_byte,
        spread=SPREAD[limits.kind],
        error=error,
        source=free or _source(limits, group, engine),
    )


class _Held:
    """A chip as a key: told apart by all its figures, hashed by its name."""

    def __init__(self, soc: Soc) -> None:
        self.soc = soc

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.soc == other.soc

    def __hash__(self) -> int:
        return hash(self.soc.name)


@lru_cache(REMEMBERED)
def _busy_us(held: _Held, processor: str, precision: str, engine: str, work: Workload) -> float:
    return float(calls_us(shipped(), held.soc, processor, precision, engine, [work])[0])


def _dispatch(limits: Limits, engine: str) -> Latency:
    """A call's cost outside its kernel; on CPUs and NPUs it is part of what was fitted."""
    if limits.kind != "gpu":
        return NOTHING
    return limits.sync if engine == STOCK_MNN else limits.dispatch


def _source(limits: Limits, group: str, engine: str) -> str:
    fitted = shipped()
    known = group in fitted.factors or f"{LIKE[limits.kind]} {limits.kind}" in fitted.trees
    how = f"fitted {group}" if known else f"fitted {LIKE[limits.kind]} at the rate of this type"
    if f"{engine} {limits.kind}" in fitted.mixes:
        return f"{how}, by kind of operator for {engine}"
    factor = engine_factor(fitted, engine, limits.kind, group.rpartition(" ")[2])
    if factor != 1:
        return f"{how} x {factor:.2g} for {engine}"
    return how if engine == LIKE[limits.kind] else f"{how}, taken for {engine}"


def _distribution(latency: Latency) -> Distribution:
    return Distribution(latency.median_us, latency.p10_us, latency.p90_us)
