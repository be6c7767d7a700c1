"""Amounts of memory as users give them, and how much this machine has available."""

from __future__ import annotations

from pathlib import Path

from coexec.base.errors import UsageError
from coexec.base.units import parse_bytes

AUTO = "auto"
MEMINFO = Path("/proc/meminfo")
AUTO_SHARE = 0.75
"""Of the memory that the machine has available, a training takes so much by itself."""


def budget_bytes(memory: str | int) -> int:
    """A budget in bytes: a number, ``512MiB``, or ``auto`` (a share of what is available).

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(memory, int):
        if memory < 1:
            raise UsageError(f"a memory budget must be positive, not {memory} bytes")
        return memory
    if memory == AUTO:
        return int(available_bytes() * AUTO_SHARE)
    try:
        return parse_bytes(memory)
    except ValueError as error:
        raise UsageError(f"--memory: {error}, or {AUTO}") from error


def available_bytes(file: Path = MEMINFO) -> int:
    """Memory that programs can still have on this machine, as Linux tells it.

    Raises:
        UsageError: the system does not tell.
    """
    try:
        lines = file.read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, LookupError, ValueError) as error:
        raise UsageError(
            "this system does not tell how much memory is available: give --memory an amount"
        ) from error
