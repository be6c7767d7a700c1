"""A device of the simulation from the figures of a system on chip."""

from __future__ import annotations

import numpy as np

from coexec.core.soc import Cluster, Soc
from coexec.simulation.device import Device, HeatSink, Unit

CPU = "cpu"


def device_of(soc: Soc) -> Device:
    """The phone as numbers; its DRAM's energy is in ``joule_per_byte``."""
    idle = {block_of(each): each.idle_mw / 1e3 for each in soc.clusters}
    full = {block_of(each): each.cores * each.core_mw[-1] / 1e3 for each in soc.clusters}
    if soc.gpu is not None:
        idle["gpu"], full["gpu"] = soc.gpu.idle_mw / 1e3, soc.gpu.step_mw[-1] / 1e3
    if soc.npu is not None:
        idle["npu"], full["npu"] = soc.npu.idle_mw / 1e3, soc.npu.step_mw[-1] / 1e3
    thermal = soc.thermal
    return Device(
        name=soc.name,
        shared_gbps=soc.memory.shared_gbps,
        peak_gbps=soc.memory.peak_gbps,
        joule_per_byte=soc.memory.pj_per_byte * 1e-12,
        base_w=thermal.base_mw / 1e3,
        battery_wh=thermal.battery_wh,
        usable_bytes=soc.memory.usable_bytes,
        heat=HeatSink(
            thermal.kelvin_per_watt,
            thermal.joule_per_kelvin,
            thermal.ambient_celsius,
            thermal.throttle_celsius,
        ),
        idle_w=idle,
        full_w=full,
    )


def unit_of(soc: Soc, processor: str) -> Unit:
    """The unit behind ``cpu``, a mix like ``cpu:4big``, ``gpu`` or ``npu``.

    Cores of several clusters form one unit with the steps of the cluster that computes most: the
    others are taken to stand at the same share of their top frequency.

    Raises:
        ProcessorError: this chip has no such processor.
    """
    silicon = processor.partition(":")[0]
    if silicon == CPU:
        return _cpu(soc, processor)
    part = soc.npu if silicon == "npu" else soc.gpu
    assert part is not None
    top = part.mhz[-1]
    speeds = tuple(mhz / top for mhz in part.mhz)
    return Unit(processor, frozenset({silicon}), speeds, tuple(mw / 1e3 for mw in part.step_mw))


def _cpu(soc: Soc, processor: str) -> Unit:
    parts = soc.cores(processor)
    leader = max(parts, key=lambda part: part[1] * part[0].gflops("float32"))[0]
    speeds = tuple(mhz / leader.top_mhz for mhz in leader.mhz)
    watts = np.zeros(len(speeds))
    for cluster, count in parts:
        own = [mhz / cluster.top_mhz for mhz in cluster.mhz]
        watts += count * np.interp(speeds, own, cluster.core_mw) / 1e3
    blocks = frozenset(block_of(cluster) for cluster, _ in parts)
    return Unit(processor, blocks, speeds, tuple(map(float, watts)))


def block_of(cluster: Cluster) -> str:
    """The silicon of a cluster of cores."""
    return f"{CPU}.{cluster.name}"
