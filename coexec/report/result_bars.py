"""Latency and energy of many results as a picture of bars (matplotlib)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coexec.base.disk import write_atomically
from coexec.base.errors import UsageError

MISSING = "a picture needs matplotlib: pip install 'coexec[pictures]'"
INCH_PER_BAR, INCHES_WIDE = 0.28, 9.0
LATENCY_COLOUR, ENERGY_COLOUR = "#2b6cb0", "#c05621"


@dataclass(frozen=True)
class Result:
    """A bar: ``group`` stands once over results of one phone and condition."""

    group: str
    name: str
    ms: float
    joules: float


def write_result_bars(results: Sequence[Result], title: str, path: Path) -> None:
    """Draw results as horizontal bars, latency left and energy right, as SVG.

    ``title`` says of what they are.

    Raises:
        UsageError: matplotlib is not installed.
        SaveError: the file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(MISSING)
    mpl = importlib.import_module("matplotlib")
    figures = importlib.import_module("matplotlib.figure")
    labels = [f"{result.group}  {result.name}" for result in results]
    height = 1.2 + INCH_PER_BAR * len(results)
    # Text stays text, and the same results give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "coexec"}):
        figure = figures.Figure(figsize=(INCHES_WIDE, height), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(labels, [result.ms for result in results], color=LATENCY_COLOUR)
        right.barh(labels, [result.joules * 1e3 for result in results], color=ENERGY_COLOUR)
        left.set_xlabel("latency, ms")
        right.set_xlabel("energy of the whole phone, mJ")
        left.margins(y=0.5 / len(labels))
        left.invert_yaxis()
        figure.suptitle(title)
        write_atomically(
            path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None})
        )
