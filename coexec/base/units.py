"""Numbers as people read them."""

from __future__ import annotations

import re


def bytes_text(count: float) -> str:
    """``1536`` -> ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def rate_text(amount: float, nanoseconds: float, unit: str) -> str:
    """``amount`` per time in ``G<unit>/s``; 1 per ns is 1 G per s."""
    return f"{amount / nanoseconds:.1f} G{unit}/s" if nanoseconds > 0 else f"- G{unit}/s"


_UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_bytes(text: str) -> int:
    """``512MiB`` -> 536870912; units B, KiB, MiB, GiB (1024) and KB, MB, GB (1000).

    Raises:
        ValueError: no positive number with one of these units.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", text)
    unit = _UNITS.get(found.group(2).upper()) if found else None
    if found is None or unit is None or int(float(found.group(1)) * unit) < 1:
        raise ValueError(f"{text!r} is no amount of memory: write 512MiB, 1.5GiB or 800MB")
    return int(float(found.group(1)) * unit)
