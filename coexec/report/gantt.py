"""A timeline as text: a row per processor, full where it is busy, and one for what moves."""

from __future__ import annotations

from collections.abc import Sequence

SHADES = " ░▒▓█"


def row(spans: Sequence[tuple[float, float]], total: float, width: int) -> str:
    """``spans`` (start, end; they may overlap) of ``total`` in ``width`` characters.

    A character's shade is the share of its time that is covered, rounded up: what lasts a moment
    stays visible.
    """
    covered = [0.0] * width
    if total <= 0:
        return SHADES[0] * width
    for start, end in _merged(spans):
        first, last = start / total * width, end / total * width
        for column in range(int(first), min(int(last) + 1, width)):
            covered[column] += max(min(last, column + 1) - max(first, column), 0.0)
    steps = len(SHADES) - 1
    return "".join(SHADES[_level(share, steps)] for share in covered)


def _level(share: float, steps: int) -> int:
    if share <= 0:
        return 0
    return min(max(1, round(share * steps)), steps)


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
