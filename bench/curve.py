"""Planning time by the number of nodes as an SVG picture: a line per policy on logarithmic axes."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

Record = Mapping[str, Any]
LIMIT = (1_000, 1.0)
"""The target: so many nodes in so many seconds."""


def lines(suite: Record) -> dict[str, list[tuple[int, float]]]:
    """By policy, (nodes, seconds) in ascending order."""
    found: dict[str, list[tuple[int, float]]] = {}
    for case in suite["cases"]:
        nodes = int(case["name"].partition(" ")[0].replace(",", ""))
        for row in case["rows"]:
            if "seconds" in row:
                found.setdefault(row["peer"], []).append((nodes, row["seconds"]))
    return {policy: sorted(points) for policy, points in found.items()}


def growth(points: list[tuple[int, float]]) -> float:
    """How many times longer ten times the nodes take, from the least to the most nodes measured."""
    (first, before), (last, after) = points[0], points[-1]
    return float((after / before) ** (1 / log10(last / first)))


def draw(suite: Record, path: Path) -> None:
    """Write the picture."""
    mpl.rcParams["svg.hashsalt"] = "coexec"  # the same figures give the same file
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for policy, points in lines(suite).items():
        nodes, seconds = zip(*points, strict=True)
        axis.plot(nodes, seconds, marker="o", markersize=4, linewidth=1.2, label=policy)
    axis.plot(*LIMIT, marker="*", markersize=12, color="#222222", linestyle="", label="target")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("nodes")
    axis.set_ylabel("seconds to plan for three processors")
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
