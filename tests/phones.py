"""Folders of measurements in the format of the published ones, from a law that is known."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coexec.core.soc import Soc
from coexec.core.soc_file import find_soc
from coexec.cost.calibration.kernels import COLUMNS as KERNEL_COLUMNS
from coexec.cost.calibration.networks import COLUMNS as NETWORK_COLUMNS

CHIPS = ("snapdragon-855", "snapdragon-710")
MODELS = 10
LAYERS = 12
SLOWER = {"CONV_2D": 1.6, "DEPTHWISE_CONV_2D": 2.5}
"""How much longer than its roofline a kernel takes, whatever the chip."""
CPU_ARITHMETIC, CPU_TRAFFIC = 1.3, 2.0

Layer = Mapping[str, float | str]


def write_folder(folder: Path, chips: Sequence[str] = CHIPS) -> Path:
    """``gpu_ops_tflite.csv`` and ``e2e_tflite.csv`` of made-up networks on some chips."""
    folder.mkdir(exist_ok=True)
    networks = {f"net{number}": list(_layers(number)) for number in range(MODELS)}
    kernels = [
        _kernel_row(model, place, layer, find_soc(chip))
        for model, layers in networks.items()
        for chip in chips
        for place, layer in enumerate(layers)
    ]
    write_csv(folder / "gpu_ops_tflite.csv", KERNEL_COLUMNS, kernels)
    wholes = [
        row
        for model, layers in networks.items()
        for chip in chips
        for row in _network_rows(model, layers, find_soc(chip))
    ]
    write_csv(folder / "e2e_tflite.csv", NETWORK_COLUMNS, wholes)
    return folder


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _layers(number: int) -> Iterator[Layer]:
    """Pointwise and depthwise convolutions of several sizes, others in every network."""
    side, channels = 56.0, 16.0 + 8 * number
    for place in range(LAYERS):
        depthwise = place % 3 == 2
        taps = 9 if depthwise else channels
        yield {
            "operation": "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
            "in_hw": side,
            "in_c": channels,
            "out_hw": side,
            "out_c": 1 if depthwise else channels,
            "kernel": 3 if depthwise else 1,
            "stride": 1,
            "group": 1,
            "flops": 2 * taps * channels * side**2,
        }
        if place % 4 == 3:
            side, channels = side / 2, channels * 2


def _traffic_elements(layer: Layer) -> float:
    channels, side = float(layer["in_c"]), float(layer["in_hw"])
    weights = 9 * channels if layer["kernel"] == 3 else channels**2
    return 2 * channels * side**2 + weights


def _gpu_us(layer: Layer, soc: Soc) -> float:
    assert soc.gpu is not None
    arithmetic = float(layer["flops"]) / (soc.gpu.gflops["float16"] * soc.gpu.sustained_share)
    traffic = 2 * _traffic_elements(layer) / soc.memory.gpu_gbps
    roofline = soc.gpu.kernel_us + (arithmetic + traffic) / 1e3
    return roofline * SLOWER[str(layer["operation"])]


def _kernel_row(model: str, place: int, layer: Layer, soc: Soc) -> dict[str, object]:
    return {
        **layer,
        "model": model,
        "op_row": place,
        "soc": soc.name,
        "gpu_kernel": f"kernel_{place}",
        "latency_us": _gpu_us(layer, soc),
    }


def _network_rows(model: str, layers: Sequence[Layer], soc: Soc) -> Iterator[dict[str, object]]:
    common = {"model": model, "soc": soc.name}
    gpu = sum(_gpu_us(layer, soc) for layer in layers) + soc.latency.gpu_sync.median_us
    yield {**common, "proc": "GPU", "cores": "gpu", "precision": "fp16", "mean_us": gpu}
    clusters = {each.name: each for each in soc.clusters}
    names = {"1large": "prime" if "prime" in clusters else "big", "1small": "little"}
    for cores, name in names.items():
        cluster = clusters[name]
        for precision, dtype, size in (("fp32", "float32", 4), ("int8", "int8", 1)):
            gbps = min(cluster.gbps, soc.memory.cpu_gbps)
            time = sum(
                CPU_ARITHMETIC * float(layer["flops"]) / cluster.sustained_gflops(dtype)
                + CPU_TRAFFIC * size * _traffic_elements(layer) / gbps
                for layer in layers
            )
            yield {
                **common,
                "proc": "CPU",
                "cores": cores,
                "precision": precision,
                "mean_us": time / 1e3,
            }
