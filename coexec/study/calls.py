"""How long a study took: what each call simulated, a line each beside the results."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from coexec.base.disk import write_atomically

FILE = "calls.jsonl"


@dataclass(frozen=True)
class Call:
    """``cells`` that were simulated in ``seconds`` by so many ``workers`` (processes).

    ``scheduler`` is the address of those behind one, of which the number is not known (0).
    """

    cells: int
    seconds: float
    workers: int
    scheduler: str = ""


def add_call(folder: Path, call: Call) -> None:
    """Write down a call, unless it simulated nothing.

    Raises:
        SaveError: the file cannot be written.
    """
    if not call.cells:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    before = path.read_bytes() if path.exists() else b""
    line = json.dumps(asdict(call)).encode() + b"\n"
    write_atomically(path, lambda file: file.write(before + line))
