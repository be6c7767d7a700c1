"""Networks on NPUs: files like ``npu_hexagon.csv``, which name networks without shapes."""

from __future__ import annotations

from pathlib import Path

from coexec.core.soc_file import find_soc, knows_soc
from coexec.cost.calibration.kernels import read_shapes
from coexec.cost.calibration.known_networks import layers_of
from coexec.cost.calibration.sample import PRECISIONS, Sample
from coexec.cost.calibration.table import read_rows
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
}
SIDE = 224


def read_npu(folder: Path) -> tuple[list[Sample], int]:
    """Samples, and how many rows are of networks, chips or element types that are not known.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return [], 0
    shapes = read_shapes(folder)
    samples: list[Sample] = []
    unknown = 0
    for row in read_rows(path, COLUMNS):
        calls = _calls(row.text("model_id"), shapes)
        precision = PRECISIONS.get(row.text("precision"), "")
        soc = find_soc(row.text("device")) if knows_soc(row.text("device")) else None
        if not calls or soc is None or soc.npu is None or precision not in soc.npu.gops:
            unknown += 1
            continue
        measured = row.number("inference_ms") * 1e3
        model = row.text("model_id")
        samples.append(Sample(DATASET, model, soc, "npu", precision, "qnn", measured, calls))
    return samples, unknown


def _calls(model: str, shapes: dict[str, tuple[Workload, ...]]) -> tuple[Workload, ...]:
    if model in KNOWN:
        return layers_of(KNOWN[model], SIDE)
    return shapes.get(SHAPES.get(model, ""), ())
