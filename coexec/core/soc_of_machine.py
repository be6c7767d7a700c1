"""A measured machine in place of a phone: what ``coexec devices --measure`` wrote, as a chip.

Peaks, bandwidths and latencies are those measured. What cannot be measured from inside (power,
heat, cache, how much of a peak whole networks reach) is assumed as of a desk PC, and so marked in
:attr:`coexec.core.soc.Soc.sources`. The CPU is the fastest processor of that kind in the file, the
GPU too; a PC without a GPU has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from coexec.base.errors import UsageError
from coexec.core.machine import Machine, Rates, Silicon
from coexec.core.machine_file import read_machine
from coexec.core.soc import (
    Cluster,
    Gpu,
    Latencies,
    Latency,
    Memory,
    Soc,
    Thermal,
)
from coexec.core.soc_source import ASSUMED, MEASURED, Source

MHZ = 3000.0
"""Of all clocks, at one step: only their ratio to themselves matters, rates are measured."""
CORE_MW, GPU_MW, BASE_MW, IDLE_MW = 10_000.0, 75_000.0, 20_000.0, 500.0
SUSTAINED = 0.7
"""Of the peak of multiply-adds, that the best network reaches on a core; phones have 0.5 to 0.8."""
GPU_SUSTAINED = 0.4
STREAMING_CORES = 2
"""So many cores are taken to fill the memory's bandwidth."""
RAM_GIB, SYSTEM_GIB = 16.0, 1.0
"""Where no processor says how much it has, and what the system takes."""
L2_KIB, GPU_CACHE_KIB = 1024.0, 4096.0
GPU_KERNEL_US, FLAG_US = 4.0, 2.0
WAVE, WAVES_PER_UNIT, MAX_GROUP = 32, 8.0, 1024
THERMAL = Thermal(
    kelvin_per_watt=0.3,
    joule_per_kelvin=300.0,
    ambient_celsius=25.0,
    throttle_celsius=95.0,
    battery_wh=0.0,
    base_mw=BASE_MW,
)
PJ_PER_BYTE = 60.0
STORAGE_MBPS = 1000.0
SPREAD = (0.75, 1.35)
"""First and last decile of a latency over its median, as in the files of phones."""
NO_TIME = Latency(0.0, 0.0, 0.0)


def read_desk(path: Path) -> Soc:
    """The chip that stands for a machine file.

    Raises:
        UsageError: the file is damaged, or says of no processor that it is a CPU; the key is named.
    """
    return soc_of_machine(read_machine(path), path)


def soc_of_machine(machine: Machine, path: Path) -> Soc:
    """See :func:`read_desk`; ``path`` stands in errors."""
    for name, rates in machine.processors.items():
        if rates.silicon is None:
            raise UsageError(
                f"{path}: processors.{name}.silicon is missing: without it nobody knows whether "
                "this is a CPU or a GPU; measure again with coexec devices --measure --save FILE"
            )
    cpu, gpu = _fastest(machine, "cpu"), _fastest(machine, "gpu")
    if cpu is None:
        raise UsageError(f"{path}: processors has none whose silicon.kind is 'cpu'")
    named = f"measured on {machine.name}, {machine.date}"
    return Soc(
        name=re.sub(r"[^a-z0-9]+", "-", machine.name.lower()).strip("-") or "desk",
        title=f"{machine.name} (measured)",
        vendor="",
        year=int(machine.date[:4]) if machine.date[:4].isdecimal() else 0,
        clusters=(_cluster(cpu),),
        gpu=None if gpu is None else _gpu(gpu, machine),
        npu=None,
        memory=_memory(cpu, gpu),
        latency=_latencies(cpu, gpu),
        thermal=THERMAL,
        sources=dict(_sources(named, gpu is not None)),
    )


def _fastest(machine: Machine, kind: str) -> Rates | None:
    mine = [rates for rates in machine.processors.values() if _silicon(rates).kind == kind]
    return max(mine, key=lambda rates: rates.peak_gflops["float32"], default=None)


def _silicon(rates: Rates) -> Silicon:
    assert rates.silicon is not None
    return rates.silicon


def _cluster(cpu: Rates) -> Cluster:
    cores = max(_silicon(cpu).compute_units, 1)
    return Cluster(
        name="big",
        core="core",
        cores=cores,
        mhz=(MHZ,),
        core_mw=(CORE_MW,),
        idle_mw=IDLE_MW,
        flop_per_cycle={name: rate / cores / MHZ * 1e3 for name, rate in cpu.peak_gflops.items()},
        sustained_share={"float32": SUSTAINED},
        gbps=cpu.bandwidth_gbps / min(cores, STREAMING_CORES),
        l2_kib=L2_KIB,
    )


def _gpu(gpu: Rates, machine: Machine) -> Gpu:
    name = next(name for name, rates in machine.processors.items() if rates is gpu)
    return Gpu(
        name=name,
        family="desk",
        mhz=(MHZ,),
        step_mw=(GPU_MW,),
        idle_mw=IDLE_MW,
        gflops=gpu.peak_gflops,
        compute_units=max(_silicon(gpu).compute_units, 1),
        wave=WAVE,
        waves_per_unit=WAVES_PER_UNIT,
        max_group=MAX_GROUP,
        cache_kib=GPU_CACHE_KIB,
        buffer_slowdown=1.0,
        sustained_share=GPU_SUSTAINED,
        kernel_us=GPU_KERNEL_US,
    )


def _memory(cpu: Rates, gpu: Rates | None) -> Memory:
    """A GPU with memory of its own does not share the CPU's bandwidth."""
    ram_gib = _silicon(cpu).memory_bytes / 2**30 or RAM_GIB
    own = gpu.bandwidth_gbps if gpu is not None else 0.0
    apart = gpu is not None and not _silicon(gpu).unified_memory
    most = cpu.bandwidth_gbps + own if apart else max(cpu.bandwidth_gbps, own)
    return Memory(
        ram_gib=ram_gib,
        system_gib=min(SYSTEM_GIB, ram_gib / 2),
        peak_gbps=most,
        cpu_gbps=cpu.bandwidth_gbps,
        gpu_gbps=own or most,
        npu_gbps=most,
        shared_gbps=most,
        system_cache_kib=0.0,
        pj_per_byte=PJ_PER_BYTE,
        storage_read_mbps=STORAGE_MBPS,
        storage_write_mbps=STORAGE_MBPS,
    )


def _latencies(cpu: Rates, gpu: Rates | None) -> Latencies:
    linked = gpu if gpu is not None else cpu
    links = [linked.links[name] for name in ("write", "read") if name in linked.links]
    per_byte = max((1e-3 / link.gbps for link in links), default=1e-3 / cpu.bandwidth_gbps)
    mapped = max((link.latency_us for link in links), default=0.0)
    return Latencies(
        cpu_dispatch=_latency(cpu.launch_us),
        gpu_dispatch=_latency(linked.launch_us),
        gpu_sync=_latency(max(linked.sync_us - linked.launch_us, 0.0)),
        gpu_flag=_latency(FLAG_US),
        gpu_start=_latency(linked.launch_us),
        map=_latency(mapped),
        unmap=NO_TIME,
        npu_switch=NO_TIME,
        npu_dispatch=NO_TIME,
        map_us_per_byte=per_byte,
        layout_us_per_byte=2e-3 / linked.bandwidth_gbps,
    )


def _latency(median_us: float) -> Latency:
    low, high = SPREAD
    return Latency(median_us, low * median_us, high * median_us)


def _sources(named: str, with_gpu: bool) -> Iterator[tuple[str, Source]]:
    """Which figures were measured, by their paths; all others are assumed."""
    measured = {
        "cpu.big": ("cores", "flop_per_cycle"),
        "memory": ("ram_gib", "peak_gbps", "cpu_gbps", "shared_gbps"),
        "latency": ("cpu_dispatch", "gpu_dispatch", "gpu_sync", "gpu_start", "map"),
    }
    kinds: dict[str, Any] = {
        "cpu.big": Cluster,
        "memory": Memory,
        "latency": Latencies,
        "thermal": Thermal,
    }
    if with_gpu:
        kinds["gpu"] = Gpu
        measured["gpu"] = ("name", "gflops", "compute_units")
    for part, kind in kinds.items():
        for figure in (each.name for each in fields(kind)):
            known = figure in measured.get(part, ())
            text = named if known else "as of a desk PC"
            yield f"{part}.{figure}", Source(MEASURED if known else ASSUMED, text)
