"""Results of a study on disk: parts that are only ever added, each written whole or not at all.

A run that is killed loses the cells under way; all others are found again by their identifiers,
which stand for all that a result depends on. Where a definition or a figure has changed, the cells
that it concerns have other identifiers and are simulated again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from coexec.base.disk import write_atomically
from coexec.base.errors import DataError
from coexec.core.soc_file import FOLDER as MACHINES
from coexec.core.soc_file import soc_names
from coexec.cost.soc.coefficients import SHIPPED
from coexec.study.definition import Definition
from coexec.study.measure import FAILED, Row

PARTS = "parts"


def basis() -> str:
    """The figures that all results depend on: coexec's version, fitted costs, phones."""
    digest = hashlib.sha256(version("coexec").encode())
    phones = (MACHINES / f"{name}.toml" for name in soc_names())
    for file in (SHIPPED, *phones):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def identifiers(definition: Definition, figures: str) -> list[str]:
    """Of each cell, in their order; ``figures`` are the :func:`basis`."""
    found = []
    for cell in definition.cells:
        text = json.dumps([figures, definition.meaning(cell)], sort_keys=True, default=dict)
        found.append(hashlib.sha256(text.encode()).hexdigest()[:20])
    return found


def write_part(folder: Path, rows: Sequence[Row]) -> None:
    """Add rows.

    Raises:
        SaveError: the file cannot be written; no part is damaged.
    """
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    name = hashlib.sha256(text.encode()).hexdigest()[:20]
    write_atomically(folder / PARTS / f"{name}.jsonl", lambda file: file.write(text.encode()))


def read_parts(folder: Path) -> Mapping[str, Row]:
    """All rows so far by identifier; cells that failed are as if they had not been tried.

    Raises:
        DataError: a part is damaged; the message names it.
    """
    rows: dict[str, Row] = {}
    for path in sorted((folder / PARTS).glob("*.jsonl")):
        try:
            part = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            rows |= {row["id"]: row for row in part if row["outcome"] != FAILED}
        except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is damaged ({error}): delete it and run again") from error
    return rows
