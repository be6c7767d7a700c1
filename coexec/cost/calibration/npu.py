"""Networks on NPUs: files like ``npu_hexagon.csv``, which name networks without shapes."""

from __future__ import annotations

from pathlib import Path

from coexec.core.soc_file import soc_in
from coexec.cost.calibration.left_out import NO_CHIP, NO_LAYERS, NO_TIME, LeftOut, divided
from coexec.cost.calibration.npu_names import network_named
from coexec.cost.calibration.sample import PRECISIONS, Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.calibration.zoo_networks import zoo_layers

DATASET = "npu_hexagon"
COLUMNS = ("model_id", "component", "precision", "device", "inference_ms", "layers_npu")
NO_LAYER_RAN = "no layer ran on the NPU"
NO_RATE = "the NPU does not compute in this element type"


def read_npu(folder: Path) -> tuple[list[Sample], list[LeftOut]]:
    """Samples, and rows of networks, chips or element types that are not known.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return [], []
    return divided(_sample(row) for row in read_rows(path, COLUMNS))


def _sample(row: Row) -> Sample | LeftOut:
    network = network_named(row.text("model_id"), row.text("component"))
    soc = soc_in(row.text("device"))
    precision, time_ms = PRECISIONS.get(row.text("precision").lower()), row.time("inference_ms")
    if network is None:
        return row.left_out(NO_LAYERS, row.text("model_id"))
    if soc is None:
        return row.left_out(NO_CHIP, row.text("device"))
    if time_ms is None:
        return row.left_out(NO_TIME, row.text("model_id"))
    if row.number("layers_npu", 1.0) == 0:
        return row.left_out(NO_LAYER_RAN, row.text("model_id"))
    if soc.npu is None or precision is None or precision not in soc.npu.gops:
        return row.left_out(NO_RATE, f"{row.text('precision')} of {soc.name}")
    # Networks of one name have the same layers at any size: they are held out together.
    return Sample(
        DATASET, network[0], soc, "npu", precision, "qnn", time_ms * 1e3, zoo_layers(*network)
    )
