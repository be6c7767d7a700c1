"""Rows of a CSV file of measurements, with errors that name file, line and column."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from coexec.base.errors import UsageError

NOTHING = frozenset({"", "-", "nan"})
"""Marks of a figure that a row does not have."""


@dataclass(frozen=True)
class Row:
    """One line of a file."""

    path: Path
    line: int
    values: Mapping[str, str]

    def text(self, column: str) -> str:
        return self.values[column].strip()

    def number(self, column: str, default: float | None = None) -> float:
        """A number; ``default`` where the row has none.

        Raises:
            UsageError: no number, and no default.
        """
        text = self.text(column)
        if text in NOTHING and default is not None:
            return default
        try:
            return float(text)
        except ValueError as error:
            where = f"{self.path}, line {self.line}"
            raise UsageError(f"{where}: {column} is {text!r}; a number is wanted") from error


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    """All rows of a file that has these columns (others are ignored).

    Raises:
        UsageError: unreadable, or a column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UsageError(f"{path}: column {missing[0]} is missing")
            for line, values in enumerate(reader, start=2):
                if None in values.values():
                    raise UsageError(f"{path}, line {line}: too few columns")
                yield Row(path, line, values)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
