"""Networks on NPUs: files like ``npu_hexagon.csv``, which name networks without shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from coexec.core.soc_file import soc_in
from coexec.cost.calibration.check import Check
from coexec.cost.calibration.npu_names import ENDINGS, PARTS, WHOLE
from coexec.cost.calibration.sample import PRECISIONS, Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.calibration.zoo_networks import Options, zoo_layers
from coexec.cost.soc.coefficients import Coefficients

DATASET = "npu_hexagon"
COLUMNS = ("model_id", "component", "precision", "device", "inference_ms", "layers_npu")


def read_npu(folder: Path) -> tuple[list[Sample], int]:
    """Samples, and how many rows are of networks, chips or element types that are not known.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return [], 0
    rows = list(read_rows(path, COLUMNS))
    samples = [_sample(row) for row in rows if not _why_not(row)]
    return samples, len(rows) - len(samples)


def left_out(path: Path, _: Coefficients) -> Iterator[Check]:
    """Which rows have no prediction, by the reason; networks with the number of their rows."""
    reasons: dict[str, Counter[str]] = {}
    for row in read_rows(path, COLUMNS):
        why = _why_not(row)
        if why:
            reasons.setdefault(why, Counter())[row.text("model_id")] += 1
    for why, models in reasons.items():
        names = ", ".join(f"{model} {count}" for model, count in sorted(models.items()))
        what = f"{models.total()} rows of {len(models)} networks"
        yield Check(path.name, what, f"not predicted, {why}: {names}")


def _sample(row: Row) -> Sample:
    soc, precision = soc_in(row.text("device")), PRECISIONS[row.text("precision").lower()]
    network = _network(row)
    assert network is not None
    assert soc is not None
    measured_us = row.number("inference_ms") * 1e3
    # Networks of one name have the same layers at any size: they are held out together.
    return Sample(
        DATASET, network[0], soc, "npu", precision, "qnn", measured_us, zoo_layers(*network)
    )


def _why_not(row: Row) -> str:
    """Why a row cannot be predicted; empty if it can."""
    if _network(row) is None:
        return "the zoo does not have their layers"
    soc, precision = soc_in(row.text("device")), row.text("precision").lower()
    if soc is None:
        return f"no machine file of {row.text('device')}"
    if row.time("inference_ms") is None:
        return "no time"
    if row.number("layers_npu", 1.0) == 0:
        return "no layer ran on the NPU"
    if soc.npu is None or PRECISIONS.get(precision, "") not in soc.npu.gops:
        return f"the NPU of {soc.name} has no {precision}"
    return ""


def _network(row: Row) -> tuple[str, Options] | None:
    """The network of the zoo and its options; ``None`` if the row's is not there."""
    model = ENDINGS.sub("", row.text("model_id").lower().replace("-", "_"))
    return PARTS.get((model, row.text("component"))) or WHOLE.get(model)
