"""Whole networks on cores and GPUs: files like ``e2e_tflite.csv``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from coexec.base.errors import ProcessorError
from coexec.core.soc import Soc
from coexec.core.soc_file import find_soc, knows_soc
from coexec.cost.calibration.kernels import read_shapes
from coexec.cost.calibration.sample import PRECISIONS, Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.soc.workload import Workload

DATASET = "e2e_tflite"
COLUMNS = ("model", "soc", "proc", "cores", "precision", "mean_us")
PART = re.compile(r"(\d+)(large|med|small)")


def read_networks(folder: Path) -> tuple[list[Sample], int]:
    """Samples, and how many rows are of networks or chips that nothing is known of, or timeless.

    Shapes of networks come from the folder's kernels.

    Raises:
        UsageError: the file is damaged, or names an unknown mix of cores or element type.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return [], 0
    shapes = read_shapes(folder)
    found = [_sample(row, shapes) for row in read_rows(path, COLUMNS)]
    samples = [sample for sample in found if sample is not None]
    return samples, len(found) - len(samples)


def _sample(row: Row, shapes: Mapping[str, tuple[Workload, ...]]) -> Sample | None:
    model, precision, time = row.text("model"), row.text("precision"), row.time("mean_us")
    if precision not in PRECISIONS:
        raise row.error("precision", f"known: {', '.join(PRECISIONS)}")
    if time is None or model not in shapes or not knows_soc(row.text("soc")):
        return None
    soc = find_soc(row.text("soc"))
    processor, element = _processor(row, soc), PRECISIONS[precision]
    return Sample(DATASET, model, soc, processor, element, "tflite", time, shapes[model])


def _processor(row: Row, soc: Soc) -> str:
    """``1large2med`` on a chip with prime cores is ``cpu:1prime+2big``."""
    if row.text("proc").lower() == "gpu":
        return "gpu"
    cores = row.text("cores")
    parts = PART.findall(cores)
    if "".join(count + name for count, name in parts) != cores or not parts:
        raise row.error("cores", "write a mix as 1large3med")
    names = {each.name for each in soc.clusters}
    large = "prime" if "prime" in names else "big"
    cluster = {"large": large, "med": "big", "small": "little"}
    processor = "cpu:" + "+".join(f"{count}{cluster[name]}" for count, name in parts)
    try:
        soc.cores(processor)
    except ProcessorError as error:
        raise row.error("cores", str(error)) from error
    return processor
