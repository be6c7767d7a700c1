"""The ladder of the phones as a picture: a step's time by rung, over that of the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

BASE, CPUS = "coexec CPU", ("stock CPU", "coexec CPU")
COLOURS = ("#e9c46a", "#e76f51", "#2a9d8f")


def draw(ladder: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """One panel per net, one line per phone; below 1 the GPU is faster than coexec's own CPU."""
    mpl.rcParams["svg.hashsalt"] = "coexec"  # the same figures give the same file
    nets = list(dict.fromkeys(name.split()[0] for name in ladder))
    columns = 3
    rows = -(-len(nets) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(11, 2.8 * rows), squeeze=False, sharey=True, layout="constrained"
    )
    for axis in axes.flat[len(nets) :]:
        axis.remove()
    for axis, net in zip(axes.flat, nets, strict=False):
        _panel(axis, net, {n: row for n, row in ladder.items() if n.split()[0] == net})
    figure.supylabel("step over coexec's own on the CPU", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axis: Any, net: str, ladder: Mapping[str, Mapping[str, float]]) -> None:
    for (name, row), colour in zip(ladder.items(), COLOURS, strict=False):
        rungs = [rung for rung in row if rung not in CPUS]
        ratios = [row[rung] / row[BASE] for rung in rungs]
        axis.plot(rungs, ratios, marker="o", ms=4, color=colour, label=name.split()[1])
    axis.axhline(1, color="#264653", linestyle="--", linewidth=1)
    axis.set_yscale("log")
    axis.set_title(f"{net}, batch 32", fontsize=9)
    axis.tick_params(axis="x", labelsize=7, rotation=40)
    axis.tick_params(axis="y", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
