"""Published times of networks in other engines, to which their mixes and multiples are fitted.

Files like ``cpu_gpu_ncnn.csv``, ``tables_cpu_gpu_npu.csv`` and ``single_processor_sd855.csv``. They
name networks without shapes: rows count whose network is among those that the folder has shapes of,
or whose layers stand in a paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import ceil
from pathlib import Path

from coexec.core.soc import Cluster, Soc
from coexec.core.soc_file import soc_in
from coexec.cost.calibration.framework_names import fuller, layers_of_network, network_of
from coexec.cost.calibration.kernels import read_shapes
from coexec.cost.calibration.left_out import (
    NO_CHIP,
    NO_ELEMENT,
    NO_LAYERS,
    NO_PROCESSOR,
    NO_TIME,
    LeftOut,
    divided,
)
from coexec.cost.calibration.sample import Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.soc.workload import CONV, DENSE, Workload

NCNN, TABLES, MACE = "cpu_gpu_ncnn", "tables_cpu_gpu_npu", "single_processor_sd855"
NCNN_COLUMNS = ("device", "num_threads", "powersave", "gpu_device", "model", "avg_ms")
TABLES_COLUMNS = (
    "soc", "processor", "threads", "precision", "framework", "model", "latency_ms", "note",
)  # fmt: skip
MACE_COLUMNS = ("soc", "model", "method", "latency_ms")
CODL_NETWORKS = {
    "RetinaFace": "RETINAFACE",
    "YOLOv2": "YOLO-V2",
    "VGG-16": "VGG-16",
    "PoseNet": "POSENET",
    "FastStyleTransfer": "FAST_STYLE_TRANSFER",
}
NO_ENGINE = "its engine is not said"
FAST_CORES = 4
"""Threads that tables call "all big cores", and that MACE uses."""
LITTLE_CORES, BIG_CORES = 1, 2
"""Values of ncnn's ``powersave``; 0 is all cores."""


def read_frameworks(folder: Path) -> tuple[list[Sample], list[LeftOut]]:
    """Samples, and rows of networks, chips or element types that nothing is known of.

    Raises:
        UsageError: a file is damaged.
    """
    shapes = read_shapes(folder)
    found: list[Sample | LeftOut] = []
    if (path := folder / f"{NCNN}.csv").exists():
        found += [_ncnn(row, shapes) for row in read_rows(path, NCNN_COLUMNS)]
    if (path := folder / f"{TABLES}.csv").exists():
        found += [_published(row, shapes) for row in read_rows(path, TABLES_COLUMNS)]
    if (path := folder / f"{MACE}.csv").exists():
        codl = _codl_shapes(folder)
        found += [_mace(row, codl) for row in read_rows(path, MACE_COLUMNS)]
    return divided(found)


def _ncnn(row: Row, shapes: Mapping[str, tuple[Workload, ...]]) -> Sample | LeftOut:
    name = row.text("model").lower()
    model = network_of(name, "ncnn")
    calls, soc = layers_of_network(model, shapes), soc_in(row.text("device"))
    time_ms = row.time("avg_ms")
    if not calls:
        return row.left_out(NO_LAYERS, row.text("model"))
    if soc is None:
        return row.left_out(NO_CHIP, row.text("device"))
    if time_ms is None:
        return row.left_out(NO_TIME, row.text("model"))
    gpu = row.number("gpu_device") >= 0
    # Where cores have products in float16, ncnn computes networks of floats in it.
    floats = "float16" if gpu or "float16" in soc.clusters[0].flop_per_cycle else "float32"
    precision = "int8" if name.endswith("_int8") else floats
    threads, powersave = int(row.number("num_threads")), int(row.number("powersave"))
    if threads < 1 and not gpu:
        return row.left_out(NO_PROCESSOR, f"{threads} threads")
    processor = "gpu" if gpu else ncnn_cores(soc, threads, powersave)
    return Sample(NCNN, model, soc, processor, precision, "ncnn", time_ms * 1e3, calls)


def _published(row: Row, shapes: Mapping[str, tuple[Workload, ...]]) -> Sample | LeftOut:
    model = network_of(row.text("model"), row.text("framework"))
    calls, soc = layers_of_network(model, shapes), soc_in(row.text("soc"))
    kind = row.text("processor").partition(" ")[0].lower()
    precision = {"fp32": "float32", "fp16": "float16", "fp16?": "float16", "int8": "int8"}.get(
        row.text("precision")
    )
    time_ms = row.time("latency_ms")
    if not calls:
        return row.left_out(NO_LAYERS, row.text("model"))
    if soc is None:
        return row.left_out(NO_CHIP, row.text("soc"))
    if kind not in {"cpu", "gpu"}:
        return row.left_out(NO_PROCESSOR, row.text("processor"))
    if not row.text("framework"):
        return row.left_out(NO_ENGINE)
    if precision is None:
        return row.left_out(NO_ELEMENT, row.text("precision"))
    if time_ms is None:
        return row.left_out(NO_TIME, row.text("model"))
    if kind == "cpu" and "falls back" in row.text("note"):
        precision = "float32"
    threads = re.match(r"[1-9]\d*", row.text("threads"))
    processor = "gpu" if kind == "gpu" else fastest_cores(soc, int(threads[0]) if threads else 1)
    # The same name as the engine whose kernels are the reference would mix up the two.
    engine = row.text("framework").split()[0].lower().replace("tflite", "tflite-published")
    return Sample(TABLES, model, soc, processor, precision, engine, time_ms * 1e3, calls)


def _mace(row: Row, shapes: Mapping[str, tuple[Workload, ...]]) -> Sample | LeftOut:
    named = layers_of_network(network_of(row.text("model"), "MACE"), {})
    calls = fuller(shapes.get(CODL_NETWORKS.get(row.text("model"), ""), ()), named)
    soc = soc_in(row.text("soc"))
    time_ms = row.time("latency_ms")
    if not calls:
        return row.left_out(NO_LAYERS, row.text("model"))
    if soc is None:
        return row.left_out(NO_CHIP, row.text("soc"))
    if time_ms is None:
        return row.left_out(NO_TIME, row.text("model"))
    gpu = row.text("method").endswith("GPU")
    processor = "gpu" if gpu else fastest_cores(soc, FAST_CORES)
    model = row.text("model")
    return Sample(MACE, model, soc, processor, "float32", "mace", time_ms * 1e3, calls)


def _codl_shapes(folder: Path) -> dict[str, tuple[Workload, ...]]:
    """Convolutions and products of CoDL's networks; its padding is that of equal sizes."""
    found: dict[str, list[Workload]] = {}
    names = {"shapes_conv2d_large_cnn": CONV, "shapes_fully_connected_cnn": DENSE}
    for name, family in names.items():
        path = folder / f"{name}.csv"
        if path.exists():
            for row in read_rows(path, ("CNN", "IH", "IW", "IC", "OC", "KH", "KW")):
                found.setdefault(row.text("CNN"), []).append(_codl_workload(row, family))
    return {model: tuple(calls) for model, calls in found.items()}


def _codl_workload(row: Row, family: str) -> Workload:
    inputs, outputs = row.positive("IC"), row.positive("OC")
    taps, area = row.positive("KH") * row.positive("KW"), row.positive("IH") * row.positive("IW")
    stride = row.positive("SH") if family == CONV else 1.0
    pixels = 1.0
    if family == CONV:
        pixels = ceil(row.positive("IH") / stride) * ceil(row.positive("IW") / row.positive("SW"))
    return Workload(
        family=family,
        flop=2 * taps * inputs * outputs * pixels,
        in_elements=area * inputs,
        out_elements=pixels * outputs,
        weights=taps * inputs * outputs,
        out_pixels=pixels,
        in_channels=inputs if family == CONV else taps * inputs,
        out_channels=outputs,
        kernel=taps**0.5 if family == CONV else 1.0,
        stride=stride,
    )


def fastest_cores(soc: Soc, threads: int) -> str:
    """``cpu:1prime+3big``: so many cores, the fastest first."""
    return _mix(soc.clusters, threads)


def _mix(clusters: Iterable[Cluster], threads: int) -> str:
    parts, left = [], threads
    for cluster in clusters:
        taken = min(left, cluster.cores)
        left -= taken
        if taken:
            parts.append(f"{taken}{cluster.name}")
    return "cpu:" + "+".join(parts)


def ncnn_cores(soc: Soc, threads: int, powersave: int) -> str:
    """The cores that ncnn binds its threads to, or as many as these are worth.

    Its big cores are those whose top clock is above the mean of the lowest and the highest one.
    Of more threads than cores some always wait for a core, and all others at the end of each
    operator for them: n cores are worth n * n / threads.
    """
    tops = [cluster.top_mhz for cluster in soc.clusters]
    middle = (min(tops) + max(tops)) / 2
    fast = [cluster for cluster in soc.clusters if cluster.top_mhz >= middle]
    slow = [cluster for cluster in soc.clusters if cluster.top_mhz < middle]
    allowed = {BIG_CORES: fast, LITTLE_CORES: slow or fast}.get(powersave, soc.clusters)
    cores = sum(cluster.cores for cluster in allowed)
    return _mix(allowed, threads if threads <= cores else max(cores * cores // threads, 1))
