"""Step time against memory, with the frontier: what nothing measured beats in both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

COLORS = {"resnet18": "#2a9d8f", "mobilenetv2": "#e76f51", "vit_tiny": "#264653"}
OTHER = "#f4a261"
RUNTIME = "opencl:intel"
"""Whose steps are drawn; the table has all."""


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel: each network a colour; crosses are plans with micro-batches. Intel's runtime."""
    mpl.rcParams["svg.hashsalt"] = "coexec"  # the same figures give the same file
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    rows = [row for row in rows if row["runtime"] == RUNTIME]
    for net in dict.fromkeys(row["net"] for row in rows):
        own = [row for row in rows if row["net"] == net]
        color = COLORS.get(net, OTHER)
        _points(axis, [row for row in own if "micro" not in row["used"]], color, "o", net)
        _points(axis, [row for row in own if "micro" in row["used"]], color, "x", "")
        best = frontier(own)
        axis.plot(
            [row["peak_share"] for row in best], [row["time_ratio"] for row in best], color=color
        )
    axis.set_xlabel("planned peak, of the plain step's")
    axis.set_ylabel("step time, of the plain step's")
    axis.set_xlim(left=0)
    axis.axhline(1.0, color="#888888", linewidth=0.8)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def frontier(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by growing memory, each faster than all before it."""
    best: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["peak_share"], row["time_ratio"])):
        if not best or row["time_ratio"] < best[-1]["time_ratio"]:
            best.append(row)
    return best


def _points(axis: Any, rows: list[dict[str, Any]], color: str, marker: str, label: str) -> None:
    if rows:
        x, y = [row["peak_share"] for row in rows], [row["time_ratio"] for row in rows]
        axis.scatter(x, y, color=color, marker=marker, label=label or None)
