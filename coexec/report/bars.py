"""Bars of text: a picture for the terminal."""

from __future__ import annotations

EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int) -> str:
    """``share`` (0 to 1) of ``width`` characters, to an eighth of one; padded to ``width``."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    text = EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")
    return text.ljust(width)
