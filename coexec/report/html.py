"""The profile record as one HTML page that opens without a network, on a phone too.

The page is a template with a small script of its own, which draws inline SVG and canvas. A plotting
library was weighed: plotly.js is 4.8 MB a report before any data (1.5 MB if compressed, which a
file on disk is not), where the whole page with its data takes some 100 KB. Nothing is loaded, and a
content security policy with the hashes of the page's own script and style forbids anything else to
run: names of nodes are user data.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from coexec.base.disk import write_atomically
from coexec.report.wording import without_specifications

TEMPLATES = files("coexec.report") / "templates"
SCRIPTS = (
    "base.js",
    "bars.js",
    "timeline.js",
    "roofline.js",
    "table.js",
    "compare.js",
    "main.js",
)

FEW = 4
"""Lists shorter than this stay as they are."""


def write_html(record: Mapping[str, Any], path: Path) -> None:
    """Write one profile record (:class:`coexec.report.record.ProfileRecord`) as a page.

    Raises:
        SaveError: the file cannot be written.
    """
    name = Path(str(record["model"])).name
    _write(path, _page("profile", name, str(record["verdict"]), {"records": [record]}))


def write_comparison_html(
    comparison: Mapping[str, Any], records: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Write two records and their comparison (:func:`coexec.report.compare.compare`) as a page.

    Raises:
        SaveError: the file cannot be written.
    """
    data = {"records": list(records), "comparison": comparison}
    heading = f"A: {comparison['names'][0]}  →  B: {comparison['names'][1]}"
    _write(path, _page("compare", heading, str(comparison["verdict"]), data))


def _write(path: Path, page: str) -> None:
    write_atomically(path, lambda file: file.write(page.encode()))


def _page(kind: str, heading: str, verdict: str, data: Mapping[str, Any]) -> str:
    style = _text("style.css")
    body = "".join(_text(name) for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{body}}})();\n'
    return Template(_text("page.html")).substitute(
        kind=kind,
        title=html.escape(f"{heading} · coexec {kind}"),
        heading=html.escape(heading),
        verdict=html.escape(without_specifications(verdict)),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=_embedded(data),
    )


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(
        _packed(_shown(data)), separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.replace("<", "\\u003c")


def _shown(value: Any) -> Any:
    """Values as they are read: six digits, names of processors without their specifications.

    Where there are more digits before them, six decimals: nanoseconds of a millisecond.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return round(value, 6) if abs(value) >= 1 else float(f"{value:.6g}")
    if isinstance(value, str):
        return without_specifications(value)
    if isinstance(value, Mapping):
        return {_shown(key): _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return value


def _packed(value: Any) -> Any:
    """Lists of many objects with the same keys as columns: a fifth of the bytes."""
    if isinstance(value, Mapping):
        return {key: _packed(item) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    rows = list(value)
    if len(rows) < FEW or not all(isinstance(row, Mapping) for row in rows):
        return [_packed(row) for row in rows]
    if any(row.keys() != rows[0].keys() for row in rows):
        return [_packed(row) for row in rows]
    columns = {key: _column([row[key] for row in rows]) for key in rows[0]}
    return {"length": len(rows), "columns": columns}


def _column(values: list[Any]) -> Any:
    """Values, or the one that all of them are, or places in a list of distinct texts."""
    if all(value == values[0] for value in values):
        return {"all": values[0]}
    if not all(isinstance(value, str) for value in values):
        return [_packed(value) for value in values]
    places = {text: place for place, text in enumerate(dict.fromkeys(values))}
    return {"texts": list(places), "places": [places[value] for value in values]}
