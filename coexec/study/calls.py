"""How long a study took: what each call simulated, a line each beside the results."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from coexec.base.disk import write_atomically

FILE = "calls.jsonl"


@dataclass(frozen=True)
class Call:
    """``cells`` that were simulated in ``seconds`` by so many ``workers`` (processes).

    ``processor_seconds`` is what the processes computed here: it does not depend on what else ran.
    ``scheduler`` is the address of workers behind one (their number is not known: 0).
    """

    cells: int
    seconds: float
    processor_seconds: float
    workers: int
    scheduler: str = ""


def processor_seconds() -> float:
    """What this process and those that it began and that have ended computed so far."""
    ended = os.times()  # counts in ticks of 10 ms, which a small call of this process is within
    return time.process_time() + ended.children_user + ended.children_system


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
