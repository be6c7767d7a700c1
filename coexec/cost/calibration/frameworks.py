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
from coexec.core.soc_file import find_soc, knows_soc
from coexec.cost.calibration.kernels import read_shapes
from coexec.cost.calibration.known_networks import layers_of
from coexec.cost.calibration.mobile_networks import MOBILE
from coexec.cost.calibration.sample import Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.soc.workload import CONV, DENSE, Workload

NCNN, TABLES, MACE = "cpu_gpu_ncnn", "tables_cpu_gpu_npu", "single_processor_sd855"
NCNN_COLUMNS = ("device", "num_threads", "powersave", "gpu_device", "model", "avg_ms")
TABLES_COLUMNS = (
    "soc", "processor", "threads", "precision", "framework", "model", "latency_ms", "note",
)  # fmt: skip
MACE_COLUMNS = ("soc", "model", "method", "latency_ms")
NETWORKS = {
    "mobilenet": "mobilenet_w1",
    "mobilenetv1": "mobilenet_w1",
    "mobilenetv1_1.0_224": "mobilenet_w1",
    "mobilenet_v2": "mobilenetv2_w1",
    "mobilenetv2": "mobilenetv2_w1",
    "mobilenet_v3": "mobilenetv3_large_w1",
    "mobilenetv3_large_x1_0": "mobilenetv3_large_w1",
    "mobilenetv3_small_x1_0": "mobilenetv3_small_w1",
    "mobilenetv3-large": "mobilenetv3_large_w1",
    "mobilenetv3-small": "mobilenetv3_small_w1",
    "mobilenetv3-large 1.0": "mobilenetv3_large_w1",
    "mobilenetv3-small 1.0": "mobilenetv3_small_w1",
    "mobilenetv3-large 0.75": "mobilenetv3_large_w3d4",
    "mobilenetv3-small 0.75": "mobilenetv3_small_w3d4",
    "squeezenet": "squeezenet_v1_1",
    "squeezenetv1.0": "squeezenet_v1_0",
    "squeezenet1.1": "squeezenet_v1_1",
    "resnet18": "resnet18",
    "regnety_400m": "regnety004",
}
# TNN v0.3's "SqueezeNet1.0" takes as long as its 1.1, which has 2.4 times less arithmetic, on two
# CPUs and two GPUs: one of both is mislabelled. It counts as unknown.
TFLITE_NETWORKS = {**NETWORKS, "squeezenet": "squeezenet_v1_0"}
"""TFLite's hosted SqueezeNet is the first version, ncnn's benchmark has 1.1."""
PAPER_NETWORKS = {
    "alexnet": "AlexNet",
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "resnet50v1": "ResNet50",
    "googlenet": "GoogLeNet",
    "shufflenet_v2": "ShuffleNetV2",
    "shufflenetv2": "ShuffleNetV2",
    "mnasnet": "MnasNet",
    "efficientnet_b0": "EfficientNetB0",
}
PAPER_SIDE = 224
CODL_NETWORKS = {
    "RetinaFace": "RETINAFACE",
    "YOLOv2": "YOLO-V2",
    "VGG-16": "VGG-16",
    "PoseNet": "POSENET",
    "FastStyleTransfer": "FAST_STYLE_TRANSFER",
}
FAST_CORES = 4
"""Threads that tables call "all big cores", and that MACE uses."""
LITTLE_CORES, BIG_CORES = 1, 2
"""Values of ncnn's ``powersave``; 0 is all cores."""


def read_frameworks(folder: Path) -> tuple[list[Sample], int]:
    """Samples, and how many rows are of networks, chips or element types that nothing is known of.

    Raises:
        UsageError: a file is damaged.
    """
    shapes = dict(read_shapes(folder))
    shapes |= {name: _paper_layers(name) for name in PAPER_NETWORKS.values()}
    found: list[Sample | None] = []
    if (path := folder / f"{NCNN}.csv").exists():
        found += [_ncnn(row, shapes) for row in read_rows(path, NCNN_COLUMNS)]
    if (path := folder / f"{TABLES}.csv").exists():
        found += [_published(row, shapes) for row in read_rows(path, TABLES_COLUMNS)]
    if (path := folder / f"{MACE}.csv").exists():
        codl = _codl_shapes(folder)
        found += [_mace(row, codl) for row in read_rows(path, MACE_COLUMNS)]
    samples = [sample for sample in found if sample is not None]
    return samples, len(found) - len(samples)


def _ncnn(row: Row, shapes: Mapping[str, tuple[Workload, ...]]) -> Sample | None:
    name = row.text("model").lower()
    model = _network(name.removesuffix("_int8"), NETWORKS)
    soc = _named_chip(row.text("device"))
    time_ms = row.time("avg_ms")
    if model not in shapes or soc is None or time_ms is None:
        return None
    gpu = row.number("gpu_device") >= 0
    # Where cores have products in float16, ncnn computes networks of floats in it.
    floats = "float16" if gpu or "float16" in soc.clusters[0].flop_per_cycle else "float32"
    precision = "int8" if name.endswith("_int8") else floats
    threads, powersave = int(row.number("num_threads")), int(row.number("powersave"))
    processor = "gpu" if gpu else ncnn_cores(soc, threads, powersave)
    return Sample(NCNN, model, soc, processor, precision, "ncnn", time_ms * 1e3, shapes[model])


def _published(row: Row, shapes: Mapping[str, tuple[Workload, ...]]) -> Sample | None:
    networks = TFLITE_NETWORKS if row.text("framework").startswith("TFLite") else NETWORKS
    model = _network(row.text("model").lower(), networks)
    soc = _chip(row.text("soc").partition(" ")[0])
    kind = row.text("processor").partition(" ")[0].lower()
    precision = {"fp32": "float32", "fp16": "float16", "fp16?": "float16", "int8": "int8"}.get(
        row.text("precision")
    )
    time_ms = row.time("latency_ms")
    if model not in shapes or soc is None or precision is None or time_ms is None:
        return None
    if kind not in {"cpu", "gpu"}:
        return None
    if kind == "cpu" and "falls back" in row.text("note"):
        precision = "float32"
    threads = re.match(r"\d+", row.text("threads"))
    processor = "gpu" if kind == "gpu" else fastest_cores(soc, int(threads[0]) if threads else 1)
    # The same name as the engine whose kernels are the reference would mix up the two.
    engine = row.text("framework").split()[0].lower().replace("tflite", "tflite-published")
    return Sample(TABLES, model, soc, processor, precision, engine, time_ms * 1e3, shapes[model])


def _mace(row: Row, shapes: Mapping[str, tuple[Workload, ...]]) -> Sample | None:
    calls = shapes.get(CODL_NETWORKS.get(row.text("model"), ""))
    soc = _chip(row.text("soc"))
    time_ms = row.time("latency_ms")
    if calls is None or soc is None or time_ms is None:
        return None
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
    inputs, outputs = row.number("IC"), row.number("OC")
    taps, area = row.number("KH") * row.number("KW"), row.number("IH") * row.number("IW")
    stride = row.number("SH") if family == CONV else 1.0
    pixels = 1.0
    if family == CONV:
        pixels = ceil(row.number("IH") / stride) * ceil(row.number("IW") / row.number("SW"))
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


def _paper_layers(network: str) -> tuple[Workload, ...]:
    return MOBILE[network]() if network in MOBILE else layers_of(network, PAPER_SIDE)


def _network(name: str, networks: Mapping[str, str]) -> str:
    """The name that its shapes go by; empty if they are unknown."""
    return networks.get(name) or PAPER_NETWORKS.get(name, "")


def _named_chip(device: str) -> Soc | None:
    """``... Snapdragon 855+ (Kryo ...)`` is snapdragon-855-plus."""
    match = re.search(r"Snapdragon (\d+G?\+?)", device)
    return _chip("Snapdragon" + match[1]) if match else None


def _chip(alias: str) -> Soc | None:
    return find_soc(alias) if knows_soc(alias) else None
