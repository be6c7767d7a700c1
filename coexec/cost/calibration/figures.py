"""Figures of machine files against measurements of single costs: copies, waits, power, layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from coexec.core.soc import Cluster, Soc
from coexec.core.soc_file import find_soc, soc_in
from coexec.cost.calibration.check import Check, checked, left_out_checks
from coexec.cost.calibration.frameworks import FAST_CORES, fastest_cores
from coexec.cost.calibration.left_out import NO_CHIP, NO_LAYERS, NO_PROCESSOR, LeftOut
from coexec.cost.calibration.single_layers import convolution
from coexec.cost.calibration.table import read_rows
from coexec.cost.soc.coefficients import Coefficients
from coexec.cost.soc.estimate import calls_us
from coexec.cost.soc.limits import limits_of
from coexec.cost.soc.workload import Workload

CODL_CHIP = "snapdragon-855"
"""Of the files that have it in their names alone."""
CODL_ENGINE = "mace"
"""CoDL is built on it."""
FLOAT = 4
"""Bytes of an element."""
FOUR_FASTEST = "cpu:1prime+3big"
CONVOLUTION = re.compile(r"x(\d+)x(\d+)->")
"""Side of the image and channels of ``conv3x3 64x64x32->64``."""
Pairs = list[tuple[float, float]]


def transfer(path: Path, _: Coefficients) -> Iterator[Check]:
    """Maps, and conversions between buffers and images, by size."""
    latency = find_soc(CODL_CHIP).latency
    found: dict[str, Pairs] = {}
    for row in read_rows(path, ("step", "data_size", "latency_ms")):
        nbytes = row.number("data_size") * FLOAT
        mapped = row.text("step") == "mapping"
        fixed = latency.map.median_us if mapped else 0.0
        each = latency.map_us_per_byte if mapped else latency.layout_us_per_byte
        pair = row.positive("latency_ms") * 1e3, fixed + nbytes * each
        found.setdefault(row.text("step"), []).append(pair)
    for step, pairs in found.items():
        yield checked(path.name, step, "a line over bytes", pairs)


def presync(path: Path, _: Coefficients) -> Iterator[Check]:
    """What the host waits for, as a distribution: its deciles, not its rows, can be predicted."""
    rows = read_rows(path, ("data_size", "presync_ms"))
    times = np.array([row.positive("presync_ms") * 1e3 for row in rows])
    if not len(times):
        yield Check(path.name, "wait for the GPU", "no such rows")
        return
    sync = find_soc(CODL_CHIP).latency.gpu_sync
    known = {"10": sync.p10_us, "50": sync.median_us, "90": sync.p90_us}
    pairs = [(float(np.percentile(times, int(q))), us) for q, us in known.items()]
    note = f"first decile, median and last decile of {len(times):,} rows"
    yield checked(path.name, "wait for the GPU", note, pairs)


def breakdown(path: Path, fitted: Coefficients) -> Iterator[Check]:
    """Parts of one split operator, and one operator on each processor alone."""
    soc = find_soc(CODL_CHIP)
    latency = soc.latency
    half_in, half_out = (112 * 112 * channels * FLOAT / 2 for channels in (32, 64))
    whole = convolution(1, 52, 256, 128, 1)
    predicted = {
        "data_transform_in": half_in * latency.layout_us_per_byte,
        "mapping": latency.map.median_us + half_out * latency.map_us_per_byte,
        "pre_sync": latency.gpu_sync.median_us,
        "post_sync": latency.gpu_start.median_us,
        "unmapping": latency.unmap.median_us,
        "data_transform_out": half_out * latency.layout_us_per_byte,
        "CPU only compute": _us(fitted, soc, FOUR_FASTEST, whole),
        "GPU only compute": _us(fitted, soc, "gpu", whole),
    }
    skipped = []
    for row in read_rows(path, ("component", "time_us")):
        name = row.text("component")
        if name in predicted:
            pair = row.positive("time_us"), predicted[name]
            yield checked(path.name, name, "one operator, one run", [pair])
        else:
            skipped.append(name)
    yield Check(
        path.name,
        ", ".join(skipped),
        "not compared: which processor has which half is not said, nor what each waits for",
    )


def layout(path: Path, fitted: Coefficients) -> Iterator[Check]:
    """Convolutions of the GPU on images and on buffers."""
    found: dict[str, Pairs] = {}
    unknown: list[LeftOut] = []
    for row in read_rows(path, ("soc", "item", "method", "latency_ms")):
        soc, item = soc_in(row.text("soc")), CONVOLUTION.search(row.text("item"))
        if soc is None or item is None:
            what = ("soc", NO_CHIP) if soc is None else ("item", NO_LAYERS)
            unknown.append(row.left_out(what[1], row.text(what[0])))
            continue
        side, channels = map(int, item.groups())
        gpu, on_buffers = soc.gpu, "buffer" in row.text("method")
        slower = gpu.buffer_slowdown if gpu is not None and on_buffers else 1.0
        us = slower * _us(fitted, soc, "gpu", convolution(1, side, channels, 64, 3))
        pair = row.positive("latency_ms") * 1e3, us
        found.setdefault(row.text("method"), []).append(pair)
    for method, pairs in found.items():
        yield checked(path.name, method, f"as {CODL_ENGINE}'s kernels", pairs)
    yield from left_out_checks(unknown)


def power(path: Path, _: Coefficients) -> Iterator[Check]:
    """Power of the whole phone while a network runs on one processor."""
    found: dict[str, Pairs] = {}
    unknown: list[LeftOut] = []
    for row in read_rows(path, ("soc", "method", "avg_power_W")):
        soc = soc_in(row.text("soc"))
        kind = row.text("method").rpartition("-")[2].lower()
        if soc is None or kind not in {"cpu", "gpu"}:
            what = ("soc", NO_CHIP) if soc is None else ("method", NO_PROCESSOR)
            unknown.append(row.left_out(what[1], row.text(what[0])))
            continue
        processor = fastest_cores(soc, FAST_CORES) if kind == "cpu" else kind
        limits = limits_of(soc, processor, "float32")
        # Memory is as busy as the processor's bandwidth allows at most: half of it is assumed.
        dram = soc.memory.pj_per_byte * limits.gbps / 2
        watts = (limits.active_mw + soc.thermal.base_mw + dram) / 1e3
        found.setdefault(kind, []).append((row.positive("avg_power_W"), watts))
    for kind, pairs in found.items():
        yield checked(path.name, kind, "cores at their top, base, DRAM at half its rate", pairs)
    yield from left_out_checks(unknown)


def frequencies(path: Path, _: Coefficients) -> Iterator[Check]:
    """Power of one core at each step: figures that were taken from here."""
    found: dict[str, Pairs] = {}
    unknown: list[LeftOut] = []
    for row in read_rows(path, ("soc", "CPU", "Frequency (kHz)", "Power (mW)")):
        soc, core = soc_in(row.text("soc")), int(row.number("CPU"))
        cluster = None if soc is None else _cluster_of(soc, core)
        if soc is None or cluster is None:
            what = NO_CHIP if soc is None else "the chip has no such core"
            unknown.append(row.left_out(what, row.text("soc")))
            continue
        mhz = row.number("Frequency (kHz)") / 1e3
        pair = row.positive("Power (mW)"), float(np.interp(mhz, cluster.mhz, cluster.core_mw))
        found.setdefault(row.text("soc"), []).append(pair)
    for name, pairs in found.items():
        yield checked(path.name, name, "stands in its machine file", pairs)
    yield from left_out_checks(unknown)


def _cluster_of(soc: Soc, core: int) -> Cluster | None:
    """The cluster of a core by its number in Linux, which counts from the little ones on."""
    for cluster in reversed(soc.clusters):
        if 0 <= core < cluster.cores:
            return cluster
        core -= cluster.cores
    return None


def _us(fitted: Coefficients, soc: Soc, processor: str, work: Workload) -> float:
    return float(calls_us(fitted, soc, processor, "float32", CODL_ENGINE, [work])[0])


Reader = Callable[[Path, Coefficients], Iterator[Check]]
READERS: Mapping[str, Reader] = {
    "transfer_sd855.csv": transfer,
    "presync_sd855.csv": presync,
    "breakdown_sd855.csv": breakdown,
    "layout_sd855.csv": layout,
    "power_sd855.csv": power,
    "cpu_power_freqbench.csv": frequencies,
}
