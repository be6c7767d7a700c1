"""The limits of one processor of a system on chip for one element type, from its figures alone."""

from __future__ import annotations

from dataclasses import dataclass

from coexec.base.errors import ProcessorError
from coexec.core.soc import Latency, Soc

NOTHING = Latency(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Limits:
    """Rates, and what a launch and a wait cost.

    ``peak_gflops`` is the nominal peak, ``gflops`` what tuned kernels sustain of it,
    ``core_gflops`` and ``core_gbps`` what its fastest core does (a single thread), ``units`` how
    many work-items keep a GPU busy, ``tcm_bytes`` what an NPU has of memory beside its units.
    """

    kind: str
    peak_gflops: float
    gflops: float
    core_gflops: float
    gbps: float
    core_gbps: float
    units: float
    dispatch: Latency
    sync: Latency
    active_mw: float
    tcm_bytes: float = 0.0


def limits_of(soc: Soc, processor: str, precision: str) -> Limits:
    """Limits of ``cpu``, a mix like ``cpu:1prime+3big``, ``gpu`` or ``npu``.

    An element type without a rate of its own computes as float32 (the NPU refuses it, see
    :func:`coexec.cost.soc.predict.supports`).

    Raises:
        ProcessorError: this chip has no such processor.
    """
    if processor.partition(":")[0] == "cpu":
        return _cpu(soc, processor, precision)
    if processor == "gpu":
        return _gpu(soc, precision)
    if processor == "npu" and soc.npu is not None:
        return _npu(soc, precision)
    raise ProcessorError(f"{soc.name} has no {processor!r}; it has {', '.join(soc.processors)}")


def _cpu(soc: Soc, processor: str, precision: str) -> Limits:
    parts = soc.cores(processor)
    bandwidth = sum(count * each.gbps for each, count in parts)
    return Limits(
        kind="cpu",
        peak_gflops=sum(count * each.gflops(precision) for each, count in parts),
        gflops=sum(count * each.sustained_gflops(precision) for each, count in parts),
        core_gflops=max(each.sustained_gflops(precision) for each, _ in parts),
        gbps=min(bandwidth, soc.memory.cpu_gbps),
        core_gbps=min(max(each.gbps for each, _ in parts), soc.memory.cpu_gbps),
        units=sum(count for _, count in parts),
        dispatch=soc.latency.cpu_dispatch,
        sync=NOTHING,
        active_mw=sum(count * each.core_mw[-1] for each, count in parts),
    )


def _gpu(soc: Soc, precision: str) -> Limits:
    gpu = soc.gpu
    if gpu is None:
        raise ProcessorError(f"{soc.name} has no 'gpu'; it has {', '.join(soc.processors)}")
    peak = gpu.gflops.get(precision, gpu.gflops["float32"])
    rate = peak * gpu.sustained_share
    return Limits(
        kind="gpu",
        peak_gflops=peak,
        gflops=rate,
        core_gflops=rate / gpu.compute_units,
        gbps=soc.memory.gpu_gbps,
        core_gbps=soc.memory.gpu_gbps,
        units=gpu.compute_units * gpu.wave * gpu.waves_per_unit,
        dispatch=soc.latency.gpu_dispatch,
        sync=soc.latency.gpu_sync,
        active_mw=gpu.step_mw[-1],
    )


def _npu(soc: Soc, precision: str) -> Limits:
    npu = soc.npu
    if npu is None or precision not in npu.gops:
        known = ", ".join(npu.gops) if npu else "nothing"
        raise ProcessorError(f"the NPU of {soc.name} computes in {known}, not in {precision}")
    return Limits(
        kind="npu",
        peak_gflops=npu.gops[precision],
        gflops=npu.gops[precision],
        core_gflops=npu.gops[precision],
        gbps=soc.memory.npu_gbps,
        core_gbps=soc.memory.npu_gbps,
        units=1,
        dispatch=soc.latency.npu_dispatch,
        sync=soc.latency.npu_switch,
        active_mw=npu.step_mw[-1],
        tcm_bytes=npu.tcm_kib * 1024,
    )
