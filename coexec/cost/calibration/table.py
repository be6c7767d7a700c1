"""Rows of a CSV file of measurements, with errors that name file, line and column."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from coexec.base.errors import UsageError
from coexec.cost.calibration.left_out import LeftOut

NOTHING = frozenset({"", "-", "nan", "na", "n/a", "none", "null"})
"""Marks of a figure that a row does not have, in any case of letters."""


@dataclass(frozen=True)
class Row:
    """One line of a file."""

    path: Path
    line: int
    values: Mapping[str, str]

    def text(self, column: str) -> str:
        return self.values[column].strip()

    def number(self, column: str, default: float | None = None) -> float:
        """A finite number; ``default`` where the row has none.

        Raises:
            UsageError: no number, and no default.
        """
        text = self.text(column)
        if text.lower() in NOTHING and default is not None:
            return default
        try:
            value = float(text)
        except ValueError as error:
            raise self.error(column, "a number is wanted") from error
        if not math.isfinite(value):
            raise self.error(column, "a finite number is wanted")
        return value

    def time(self, column: str) -> float | None:
        """A measured time; None where the row has none: nothing was measured.

        Raises:
            UsageError: no number above 0.
        """
        return None if self.lacks(column) else self.positive(column, what="a time")

    def positive(self, column: str, default: float | None = None, what: str = "a number") -> float:
        """As :meth:`number`, of something that is always there: a size, a time, a power.

        Raises:
            UsageError: no number above 0.
        """
        value = self.number(column, default)
        if value <= 0:
            raise self.error(column, f"{what} above 0 is wanted")
        return value

    def lacks(self, column: str) -> bool:
        """Whether the row has no figure there."""
        return self.text(column).lower() in NOTHING

    def left_out(self, reason: str, name: str = "") -> LeftOut:
        """That nothing is predicted for the row."""
        return LeftOut(self.path.name, self.line, reason, name)

    def error(self, column: str, wanted: str) -> UsageError:
        """That a value is wrong: where it stands, what it is, and what is wanted."""
        where = f"{self.path}, line {self.line}"
        return UsageError(f"{where}: {column} is {self.text(column)!r}; {wanted}")


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    """All rows of a file that has these columns (others are ignored).

    Raises:
        UsageError: unreadable, or a column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
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
