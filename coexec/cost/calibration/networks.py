"""Whole networks on cores and GPUs: files like ``e2e_tflite.csv``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from coexec.base.errors import ProcessorError
from coexec.core.soc import Soc
from coexec.core.soc_file import soc_in
from coexec.cost.calibration.framework_names import layers_of_network
from coexec.cost.calibration.kernels import read_shapes
from coexec.cost.calibration.sample import PRECISIONS, Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.soc.workload import Workload

DATASET = "e2e_tflite"
COLUMNS = ("model", "soc", "proc", "cores", "precision", "mean_us")
KINDS = frozenset({"cpu", "gpu"})
"""Processors that such files measure; rows of others are counted as unknown."""
PART = re.compile(r"(\d+)(large|med|small)")


def read_networks(folder: Path) -> tuple[list[Sample], int]:
    """Samples, and how many rows are of networks or chips that nothing is known of, or timeless.

    Shapes of networks come from the folder's kernels, those of a few known ones from the zoo.

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
    calls, soc = layers_of_network(model, shapes), soc_in(row.text("soc"))
    if time is None or not calls or soc is None or row.text("proc").lower() not in KINDS:
        return None
    processor, element = _processor(row, soc), PRECISIONS[precision]
    return Sample(DATASET, model, soc, processor, element, "tflite", time, calls)


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
