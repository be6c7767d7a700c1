"""Numbers as people read them."""

from __future__ import annotations


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
