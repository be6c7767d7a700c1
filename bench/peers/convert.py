"""Converters of ONNX files that libraries bring as programs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def convert(program: str, arguments: Sequence[str], folder: Path, result: str) -> Path:
    """Run a program of this environment in a folder; returns the file that it made there.

    Raises:
        RuntimeError: it made none; the message is its last line.
    """
    command = [str(Path(sys.executable).parent / program), *arguments]
    done = subprocess.run(  # noqa: S603 - the command is ours
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    made = folder / result
    if done.returncode or not made.exists():
        lines = done.stdout.strip().splitlines() or ["it says nothing"]
        raise RuntimeError(f"{program} failed, status {done.returncode}: {lines[-1]}")
    return made
