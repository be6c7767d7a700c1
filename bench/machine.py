"""What the figures were measured on."""

from __future__ import annotations

import platform
from typing import Any

from coexec.base.cpu import cpu_name


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
