"""Networks on NPUs: files like ``npu_hexagon.csv``, which name networks without shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from coexec.core.soc_file import find_soc, knows_soc
from coexec.cost.calibration.check import Check
from coexec.cost.calibration.kernels import read_shapes
from coexec.cost.calibration.known_networks import layers_of
from coexec.cost.calibration.mobile_networks import MOBILE
from coexec.cost.calibration.sample import PRECISIONS, Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.soc.coefficients import Coefficients
from coexec.cost.soc.workload import Workload

DATASET = "npu_hexagon"
COLUMNS = ("model_id", "component", "precision", "device", "inference_ms", "layers_npu")
SHAPES = {
    "mobilenet_v2": "mobilenetv2_w1",
    "mobilenet_v3_large": "mobilenetv3_large_w1",
    "mobilenet_v3_small": "mobilenetv3_small_w1",
    "squeezenet1_1": "squeezenet_v1_1",
}
"""Networks whose shapes another file of the folder has."""
KNOWN = {
    "resnet18": "ResNet18",
    "resnet50": "ResNet50",
    "resnext50": "ResNeXt50",
    "resnext101": "ResNeXt101",
    "wideresnet50": "WideResNet50",
    "shufflenet_v2": "ShuffleNetV2",
    "googlenet": "GoogLeNet",
    "mnasnet": "MnasNet",
    "efficientnet_b0": "EfficientNetB0",
}
SIDE = 224
Shapes = Mapping[str, tuple[Workload, ...]]


def read_npu(folder: Path) -> tuple[list[Sample], int]:
    """Samples, and how many rows are of networks, chips or element types that are not known.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return [], 0
    shapes = read_shapes(folder)
    rows = list(read_rows(path, COLUMNS))
    samples = [_sample(row, shapes) for row in rows if not _why_not(row, shapes)]
    return samples, len(rows) - len(samples)


def left_out(path: Path, _: Coefficients) -> Iterator[Check]:
    """Which rows have no prediction, by the reason; networks with the number of their rows."""
    shapes = read_shapes(path.parent)
    reasons: dict[str, Counter[str]] = {}
    for row in read_rows(path, COLUMNS):
        why = _why_not(row, shapes)
        if why:
            reasons.setdefault(why, Counter())[row.text("model_id")] += 1
    for why, models in reasons.items():
        names = ", ".join(f"{model} {count}" for model, count in sorted(models.items()))
        what = f"{models.total()} rows of {len(models)} networks"
        yield Check(path.name, what, f"not predicted, {why}: {names}")


def _sample(row: Row, shapes: Shapes) -> Sample:
    soc, model = find_soc(row.text("device")), row.text("model_id")
    precision, measured_us = PRECISIONS[row.text("precision")], row.number("inference_ms") * 1e3
    calls = _calls(model, shapes)
    return Sample(DATASET, model, soc, "npu", precision, "qnn", measured_us, calls)


def _why_not(row: Row, shapes: Shapes) -> str:
    """Why a row cannot be predicted; empty if it can."""
    if not _calls(row.text("model_id"), shapes):
        return "neither the file nor another one has their layers, nor the size of their inputs"
    if not knows_soc(row.text("device")):
        return f"no machine file of {row.text('device')}"
    soc, precision = find_soc(row.text("device")), row.text("precision")
    if soc.npu is None or PRECISIONS.get(precision, "") not in soc.npu.gops:
        return f"the NPU of {soc.name} has no {precision}"
    return ""


def _calls(model: str, shapes: Shapes) -> tuple[Workload, ...]:
    name = KNOWN.get(model, "")
    if name:
        return MOBILE[name]() if name in MOBILE else layers_of(name, SIDE)
    return shapes.get(SHAPES.get(model, ""), ())
