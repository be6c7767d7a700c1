"""Whole networks on cores and GPUs: files like ``e2e_tflite.csv``."""

from __future__ import annotations

import re
from pathlib import Path

from coexec.base.errors import UsageError
from coexec.core.soc import Soc
from coexec.core.soc_file import find_soc
from coexec.cost.calibration.kernels import read_shapes
from coexec.cost.calibration.sample import PRECISIONS, Sample
from coexec.cost.calibration.table import Row, read_rows

DATASET = "e2e_tflite"
COLUMNS = ("model", "soc", "proc", "cores", "precision", "mean_us")
PART = re.compile(r"(\d+)(large|med|small)")


def read_networks(folder: Path) -> tuple[list[Sample], int]:
    """Samples, and how many rows are of networks whose shapes the folder does not have.

    Raises:
        UsageError: the file is damaged, or names an unknown chip, mix of cores or element type.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return [], 0
    shapes = read_shapes(folder)
    rows = list(read_rows(path, COLUMNS))
    known = [row for row in rows if row.text("model") in shapes]
    samples = []
    for row in known:
        soc, precision = find_soc(row.text("soc")), row.text("precision")
        if precision not in PRECISIONS:
            raise _error(row, "precision", f"known: {', '.join(PRECISIONS)}")
        calls = shapes[row.text("model")]
        samples.append(
            Sample(
                DATASET,
                row.text("model"),
                soc,
                _processor(row, soc),
                PRECISIONS[precision],
                "tflite",
                row.number("mean_us"),
                calls,
            )
        )
    return samples, len(rows) - len(known)


def _processor(row: Row, soc: Soc) -> str:
    """``1large2med`` on a chip with prime cores is ``cpu:1prime+2big``."""
    if row.text("proc").lower() == "gpu":
        return "gpu"
    cores = row.text("cores")
    parts = PART.findall(cores)
    if "".join(count + name for count, name in parts) != cores or not parts:
        raise _error(row, "cores", "write a mix as 1large3med")
    names = {each.name for each in soc.clusters}
    large = "prime" if "prime" in names else "big"
    cluster = {"large": large, "med": "big", "small": "little"}
    return "cpu:" + "+".join(f"{count}{cluster[name]}" for count, name in parts)


def _error(row: Row, column: str, wanted: str) -> UsageError:
    return UsageError(f"{row.path}, line {row.line}: {column} is {row.text(column)!r}; {wanted}")
