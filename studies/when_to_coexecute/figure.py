"""Speedup of dividing by the operator's time, and the synchronisation cost at which it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

COLORS = {"5": "#2a9d8f", "50": "#8ab17d", "500": "#f4a261", "5000": "#e76f51"}
MARKERS = {"convolution": "o", "linear": "s"}
DARK = "#264653"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A row of two panels per runtime: speedups, and break-even points."""
    mpl.rcParams["svg.hashsalt"] = "coexec"  # the same figures give the same file
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    figure, axes = plt.subplots(
        len(runtimes), 2, figsize=(11, 4 * len(runtimes)), squeeze=False, layout="constrained"
    )
    for (left, right), runtime in zip(axes, runtimes, strict=True):
        own = [row for row in rows if row["runtime"] == runtime]
        _speedups(left, own)
        _break_even(right, own)
        left.set_title(f"ONNX Runtime and {runtime}, one core each: speedup over the better one")
        right.set_title("synchronisation cost at which dividing stops to pay")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _alone(row: dict[str, Any]) -> float:
    return float(row["predicted_alone_ms"])


def _speedups(axis: Any, rows: list[dict[str, Any]]) -> None:
    ordered = sorted(rows, key=_alone)
    for cost, color in COLORS.items():
        label = f"predicted, {cost} us"
        values = [row["speedups"][cost] for row in ordered]
        axis.plot([_alone(row) for row in ordered], values, color=color, label=label, linewidth=1)
    for family, marker in MARKERS.items():
        own = [row for row in ordered if row["family"] == family]
        times = [min(row["alone_ms"].values()) for row in own]
        gains = [time / row["divided_ms"] for time, row in zip(times, own, strict=True)]
        axis.scatter(times, gains, marker=marker, color=DARK, label=f"measured, {family}", zorder=3)
    axis.axhline(1.0, color="#888888", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlabel("operator on the better processor, ms")
    axis.set_ylabel("speedup")
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _break_even(axis: Any, rows: list[dict[str, Any]]) -> None:
    for family, marker in MARKERS.items():
        own = [row for row in rows if row["family"] == family and row["break_even_us"] > 0]
        costs = [row["break_even_us"] for row in own]
        axis.scatter([_alone(r) for r in own], costs, marker=marker, color=DARK, label=family)
    times = sorted(_alone(row) for row in rows)
    ends = [times[0], times[-1]]
    axis.plot(ends, [1e3 * t / 2 for t in ends], color="#888888", linewidth=0.8, label="half of it")
    axis.axhline(rows[0]["sync_us"], color="#e76f51", linewidth=1, label="measured here")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("operator on the better processor, ms")
    axis.set_ylabel("us")
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
