"""How good predictions of phones are, as one HTML page: scatter plots and a table, no script.

The plots are inline SVG on logarithmic axes; a band marks 20 % around equality.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from coexec.base.disk import write_atomically

TEMPLATES = files("coexec.report") / "templates"
SIDE, MARGIN = 400, 46
"""Pixels of a plot and of the room for its axes."""
POINTS = 1500
"""At most so many points are drawn; more would make the page heavy and tell nothing else."""
BAND = 0.2
KINDS = ("cpu", "gpu", "npu")
DARK = ':root[data-theme="dark"] {'
LONG = 24
"""Letters from which on a cell may have several lines."""


def write_validation_page(record: Mapping[str, Any], path: Path) -> None:
    """Write a record of ``coexec validate`` as a page.

    ``record`` has ``data``, ``verdict``, ``scores`` (dataset, split, group, rows, mape, within_10,
    within_20, bias, baseline_mape, tau), ``chips`` (the same with a chip as group), ``plots``
    (title, points: measured and predicted microseconds, kind, label), ``ratios`` and ``checks``
    (file, what, note, rows; mape, bias, within_10 and within_20 where there are rows).

    Raises:
        SaveError: the file cannot be written.
    """
    page = Template((TEMPLATES / "validation.html").read_text(encoding="utf-8")).substitute(
        heading=html.escape(f"Predictions against {record['data']}"),
        verdict=html.escape(str(record["verdict"])),
        style=_style(),
        content="".join(_sections(record)),
        footer=html.escape(
            f"Coefficients of {record['fitted']}. MAPE: mean absolute relative error; baseline: "
            "a + b · FLOP / peak, fitted on the same rows; tau: Kendall's, of processors by time."
        ),
    )
    write_atomically(path, lambda file: file.write(page.encode()))


def _style() -> str:
    """That of all pages; without a script to switch, dark colours go by what the reader prefers."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    start = style.index(DARK) + len(DARK)
    colours = style[start : style.index("}", start)]
    return f"{style}@media (prefers-color-scheme: dark) {{ :root {{{colours}}} }}\n"


def _sections(record: Mapping[str, Any]) -> Iterable[str]:
    yield _plots(record["plots"])
    yield _scores("Errors", record["scores"])
    yield _scores("Errors by chip", record["chips"])
    yield _ratios(record)
    yield _checks(record["checks"])


def _plots(plots: Iterable[Mapping[str, Any]]) -> str:
    cards = "".join(_plot(plot) for plot in plots)
    return f'<section class="scatter">{cards}</section>'


def _plot(plot: Mapping[str, Any]) -> str:
    points = plot["points"]
    shown = _some(points)
    times = [value for point in shown for value in (point["measured_us"], point["predicted_us"])]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    high = max(high, low + 1)
    body = [_band(low, high), *_axes(low, high)]
    body += [_dot(point, low, high) for point in shown]
    drawn = f", {len(shown):,} drawn" if len(shown) < len(points) else ""
    note = f"{len(points):,} rows{drawn}; the band is {BAND:.0%} around equality"
    return (
        f'<article class="card"><h2>{html.escape(plot["title"])}</h2><p class="note">{note}</p>'
        f'<svg class="plot" viewBox="0 0 {SIDE} {SIDE}" role="img" '
        f'aria-label="{html.escape(plot["title"])}">{"".join(body)}</svg>{_keys(shown)}</article>'
    )


def _some(points: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """At most :data:`POINTS`, at random: every n-th row could be of one chip only."""
    if len(points) <= POINTS:
        return points
    picked = np.random.default_rng(0).choice(len(points), POINTS, replace=False)
    return [points[place] for place in sorted(picked)]


def _place(value: float, low: int, high: int) -> float:
    """Pixels from the axis."""
    return (math.log10(value) - low) / (high - low) * (SIDE - 2 * MARGIN)


def _dot(point: Mapping[str, Any], low: int, high: int) -> str:
    x = MARGIN + _place(point["measured_us"], low, high)
    y = SIDE - MARGIN - _place(point["predicted_us"], low, high)
    title = html.escape(
        f"{point['label']}: measured {_time(point['measured_us'])}, "
        f"predicted {_time(point['predicted_us'])}"
    )
    kind = point["kind"] if point["kind"] in KINDS else "cpu"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{title}</title></circle>'


def _band(low: int, high: int) -> str:
    room, first, last = SIDE - 2 * MARGIN, MARGIN, SIDE - MARGIN
    shift = math.log10(1 + BAND) / (high - low) * room
    corners = f"{first},{last - shift:.1f} {last},{first - shift:.1f} "
    corners += f"{last},{first + shift:.1f} {first},{last + shift:.1f}"
    line = f'<line class="ideal" x1="{first}" y1="{last}" x2="{last}" y2="{first}"/>'
    return f'<polygon class="band" points="{corners}"/>{line}'


def _axes(low: int, high: int) -> Iterable[str]:
    first, last = MARGIN, SIDE - MARGIN
    for power in range(low, high + 1):
        at = _place(10.0**power, low, high)
        name = _time(10.0**power)
        yield _line(first + at, first, first + at, last)
        yield _line(first, last - at, last, last - at)
        yield f'<text x="{first + at:.1f}" y="{last + 16}" text-anchor="middle">{name}</text>'
        yield f'<text x="{first - 5}" y="{last - at + 4:.1f}" text-anchor="end">{name}</text>'
    yield f'<text x="{SIDE / 2}" y="{SIDE - 6}" text-anchor="middle">measured</text>'
    yield f'<text x="{first}" y="{first - 12}" text-anchor="start">predicted</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _time(us: float) -> str:
    if us >= 1e6:
        return f"{us / 1e6:.3g} s"
    return f"{us / 1e3:.3g} ms" if us >= 1e3 else f"{us:.3g} µs"


def _keys(points: Sequence[Mapping[str, Any]]) -> str:
    kinds = [kind for kind in KINDS if any(point["kind"] == kind for point in points)]
    keys = "".join(
        f'<span><svg width="12" height="12"><circle class="{kind}" cx="6" cy="6" r="5"/></svg>'
        f"{kind.upper()}</span>"
        for kind in kinds
    )
    return f'<p class="keys">{keys}</p>'


def _scores(title: str, scores: Iterable[Mapping[str, Any]]) -> str:
    names = ("split", "data", "group", "rows", "MAPE", "within 10 %", "within 20 %", "bias")
    rows = [
        (
            score["split"],
            score["dataset"],
            score["group"],
            f"{score['rows']:,}",
            _percent(score["mape"]),
            _percent(score["within_10"]),
            _percent(score["within_20"]),
            f"{100 * score['bias']:+.1f} %",
            _percent(score["baseline_mape"]),
            "" if math.isnan(score["tau"]) else f"{score['tau']:.2f}",
        )
        for score in scores
    ]
    return _table(title, (*names, "baseline", "tau"), rows)


def _ratios(record: Mapping[str, Any]) -> str:
    rows = [
        (
            each["split"],
            each["soc"],
            each["model"],
            each["ratio"],
            f"{each['measured']:.2f}",
            f"{each['predicted']:.2f}",
            f"{100 * each['error']:+.0f} %",
        )
        for each in record["ratios"]
    ]
    names = ("split", "chip", "training step", "ratio", "measured", "predicted", "error")
    return _table("Training: processors against the CPU", names, rows) if rows else ""


def _checks(checks: Iterable[Mapping[str, Any]]) -> str:
    """Every file that nothing is fitted to: how far predictions are, or why there is none."""
    rows = []
    for check in checks:
        shares = ("mape", "bias", "within_10", "within_20") if check["rows"] else ()
        numbers = [f"{check['rows']:,}", *(_percent(check[share]) for share in shares)]
        numbers = numbers if check["rows"] else [""] * 5
        rows.append((check["file"], check["what"], check["note"], *numbers))
    names = ("file", "what", "note", "rows", "MAPE", "bias", "within 10 %", "within 20 %")
    return _table("Rows that nothing is fitted to", names, rows) if rows else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th class="text">{html.escape(name)}</th>' for name in names)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{_kind(cell)}">{html.escape(cell)}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    return (
        f'<section class="card"><h2>{html.escape(title)}</h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _kind(cell: str) -> str:
    return "text long" if len(cell) > LONG else "text short"
