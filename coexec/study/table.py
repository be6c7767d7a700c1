"""Results of a study as one table: Parquet where pyarrow is installed, else CSV."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

from coexec.base.disk import write_atomically
from coexec.study.measure import Row

NAME = "results"


def write_table(rows: Sequence[Row], folder: Path) -> Path:
    """Write ``results.parquet`` or ``results.csv``; what a row does not have is empty.

    Raises:
        SaveError: the file cannot be written.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if importlib.util.find_spec("pyarrow") is None:
        path = folder / f"{NAME}.csv"
        write_atomically(path, lambda file: file.write(_csv(rows, columns).encode()))
        return path
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    table = arrow.table({name: [row.get(name) for row in rows] for name in columns})
    path = folder / f"{NAME}.parquet"
    write_atomically(path, lambda file: parquet.write_table(table, file, compression="zstd"))
    return path


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
