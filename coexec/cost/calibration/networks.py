"""Whole networks on cores and GPUs: files like ``e2e_tflite.csv``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from coexec.base.errors import ProcessorError
from coexec.core.soc import Soc
from coexec.core.soc_file import soc_in
from coexec.cost.calibration.collection import collection_operators
from coexec.cost.calibration.framework_names import layers_of_network
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
from coexec.cost.calibration.sample import PRECISIONS, Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.soc.engine_profile import TFLITE
from coexec.cost.soc.workload import Workload

DATASET = "e2e_tflite"
COLUMNS = ("model", "soc", "proc", "cores", "precision", "mean_us")
KINDS = frozenset({"cpu", "gpu"})
"""Processors that such files measure; rows of others are left out."""
PART = re.compile(r"(\d+)(large|med|small|prime|big|little)")
FLOP, LEAST = "flops", 0.9
"""The column, if there is one, with a network's arithmetic; the part of it that layers must have.
The rest is that of operators that are not listed."""
FRAMEWORK, NO_FRAMEWORK = "framework", "such files are predicted in TensorFlow Lite alone"
"""A column that need not be there."""
NO_MIX = "no such mix of cores is predicted"


def read_networks(folder: Path) -> tuple[list[Sample], list[LeftOut]]:
    """Samples, and rows that name something that nothing is known of, or without a time.

    Shapes of networks come from the folder's kernels, of others from what their names say.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return [], []
    shapes = read_shapes(folder)
    return divided(_sample(row, shapes) for row in read_rows(path, COLUMNS))


def _sample(row: Row, shapes: Mapping[str, tuple[Workload, ...]]) -> Sample | LeftOut:
    model, time = row.text("model"), row.time("mean_us")
    calls, soc = layers_of_network(model, shapes), soc_in(row.text("soc"))
    if row.text("proc").lower() == "cpu":
        # Kernels of GPUs do what CPUs do in operators of their own.
        calls = collection_operators(model) or calls
    element = PRECISIONS.get(row.text("precision").lower())
    if not calls or _lacks_layers(row, calls):
        return row.left_out(NO_LAYERS, model)
    if soc is None:
        return row.left_out(NO_CHIP, row.text("soc"))
    if not row.values.get(FRAMEWORK, TFLITE).strip().lower().startswith(TFLITE):
        return row.left_out(NO_FRAMEWORK, row.text(FRAMEWORK))
    if row.text("proc").lower() not in KINDS:
        return row.left_out(NO_PROCESSOR, row.text("proc"))
    if element is None:
        return row.left_out(NO_ELEMENT, row.text("precision"))
    processor = _processor(row, soc)
    if processor is None:
        return row.left_out(NO_MIX, f"{row.text('cores')} of {soc.name}")
    if time is None:
        return row.left_out(NO_TIME, model)
    return Sample(DATASET, model, soc, processor, element, TFLITE, time, calls)


def _lacks_layers(row: Row, calls: tuple[Workload, ...]) -> bool:
    """Whether the file says that the network has more arithmetic; it need not say."""
    flop = row.number(FLOP, 0.0) if FLOP in row.values else 0.0
    return sum(call.flop for call in calls) < LEAST * flop


def _processor(row: Row, soc: Soc) -> str | None:
    """``1large2med`` on a chip with prime cores is ``cpu:1prime+2big``; None for no such mix."""
    if row.text("proc").lower() == "gpu":
        return "gpu"
    cores = row.text("cores").lower()
    parts = PART.findall(cores)
    if "".join(count + name for count, name in parts) != cores or not parts:
        return None
    names = {each.name for each in soc.clusters}
    large = "prime" if "prime" in names else "big"
    cluster = {"large": large, "med": "big", "small": "little"}
    processor = "cpu:" + "+".join(f"{count}{cluster.get(name, name)}" for count, name in parts)
    try:
        soc.cores(processor)
    except ProcessorError:
        return None
    return processor
