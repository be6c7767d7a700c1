"""Which CPU this is: its name, and what tells it from others that have the same name."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
from collections.abc import Mapping
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
NAME = "model name"
FIELDS = {"family": "cpu family", "model": "model"}
FLAGS = ("flags", "Features")
"""What instructions it has, on x86 and on ARM."""


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """The CPU's name with its family and model where the system tells them."""
    found = _fields(cpuinfo)
    if NAME not in found:
        return platform.processor() or platform.machine()
    details = [f"{what} {found[key]}" for what, key in FIELDS.items() if key in found]
    return f"{found[NAME]} ({', '.join(details)})" if details else found[NAME]


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Its instruction set extensions as Linux names them; none where it does not tell."""
    found = _fields(cpuinfo)
    return frozenset(flag for key in FLAGS for flag in found.get(key, "").split())


@functools.cache
def cpu_identity() -> str:
    """Equal on CPUs on which the same machine code runs at the same speed, as far as can be told.

    Names alone do not do: hypervisors hide generations behind one name, and instructions.
    """
    flags = " ".join(sorted(cpu_flags()))
    return f"{cpu_name()}, {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def _fields(cpuinfo: Path) -> Mapping[str, str]:
    """What it says of the first logical CPU; nothing where there is no such file."""
    try:
        first = cpuinfo.read_text().partition("\n\n")[0]
    except OSError:
        return {}
    lines = re.findall(r"^(.+?)\s*:(.*)$", first, re.MULTILINE)
    return {key: value.strip() for key, value in lines}
