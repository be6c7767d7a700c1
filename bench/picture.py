"""The geometric means of a record as an SVG picture: one bar for each of ours and each suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log2
from typing import Any

Record = Mapping[str, Any]

LEFT, RIGHT, ROW, TOP = 250, 70, 24, 46
"""Pixels: names on the left, figures on the right, height of a bar's row, heading."""
WIDTH = 760
LOWEST, HIGHEST = -2.0, 2.0
"""The axis, in powers of two: from four times as fast as the best peer to four times as slow."""
TICKS = {-2: "1/4", -1: "1/2", 0: "equal", 1: "2", 2: "4"}
FASTER, SLOWER = "#2b7a4b", "#b5542c"
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    ' font-family="sans-serif" font-size="13" role="img">'
)
HEADING = (
    '<text x="12" y="18" fill="#222222" font-weight="bold">'
    "Our time over the best peer's: bar geometric mean, line worst case</text>"
)
TICK = '<text x="{x:.0f}" y="{y}" fill="#555555" font-size="11" text-anchor="middle">{text}</text>'
NAME = '<text x="12" y="{y:.0f}" fill="#222222">{text}</text>'
FIGURE = '<text x="{x}" y="{y:.0f}" fill="#222222" text-anchor="end">{value:.2f}</text>'
BAR = '<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def bars(record: Record) -> list[tuple[str, float, float]]:
    """(name, geometric mean, worst ratio) of each of ours over all cases of each suite."""
    return [
        (f"{suite}, {entry['peer']}", entry["geomean"], entry["worst"])
        for suite, found in record["suites"].items()
        for entry in found["summary"]
        if not entry["group"]
    ]


def position(value: float) -> float:
    """Pixels from the left for a ratio; what lies beyond the axis stands at its end."""
    share = (min(max(log2(value), LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def picture(record: Record) -> str:
    """The SVG document."""
    rows = bars(record)
    height = TOP + ROW * len(rows) + 14
    parts = [
        SVG.format(width=WIDTH, height=height),
        "<title>Our time over the best peer's</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        HEADING,
        *_axis(height),
    ]
    for i, row in enumerate(rows):
        parts += _bar(row, TOP + ROW * i)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axis(height: int) -> Sequence[str]:
    lines = []
    for power, text in TICKS.items():
        x = position(2.0**power)
        colour = "#222222" if power == 0 else "#cccccc"
        lines += [
            f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{TOP - 6}" y2="{height - 8}" stroke="{colour}"/>',
            TICK.format(x=x, y=TOP - 10, text=text),
        ]
    return lines


def _bar(row: tuple[str, float, float], top: int) -> Sequence[str]:
    name, mean, worst = row
    middle, end, far = position(1.0), position(mean), position(worst)
    colour = FASTER if mean <= 1 else SLOWER
    y = top + ROW / 2
    width, left = abs(end - middle), min(middle, end)
    return [
        NAME.format(y=y + 4, text=escape(name)),
        BAR.format(x=left, y=top + 4, width=width, height=ROW - 8, colour=colour),
        f'<line x1="{end:.1f}" x2="{far:.1f}" y1="{y:.0f}" y2="{y:.0f}" stroke="#888888"/>',
        FIGURE.format(x=WIDTH - 12, y=y + 4, value=mean),
    ]
