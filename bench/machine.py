"""What the figures were measured on."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any


def cpu_name() -> str:
    """The CPU's name with its family and model where the system tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", text, re.MULTILINE))
    if "model name" not in found:
        return platform.processor() or platform.machine()
    details = [f"{what} {found[key]}" for what, key in FIELDS.items() if key in found]
    return f"{found['model name'].strip()} ({', '.join(details)})"


FIELDS = {"family": "cpu family", "model": "model"}


def machine_record(threads: int) -> dict[str, Any]:
    """CPU, threads, system; contenders and limits are added by those who know them."""
    return {
        "cpu": cpu_name(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "contenders": {},
        "limits": {},
    }
