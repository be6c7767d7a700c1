"""Figures of the study as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from levels import BACKEND, FRONTEND, LEVELS, levels
from matplotlib import pyplot as plt
from strategies import against_alone, fallbacks, regret

COLOURS = {"float32": "#264653", "float16": "#2a9d8f", "int8": "#e76f51"}
GREY = "#888888"
LEVEL_COLOURS = [
    *("#f4a261", "#e9c46a", "#e76f51", "#b5838d"),  # techniques of the frontend
    *("#8ab17d", "#2a9d8f"),  # and of the backend
    *("#9c2c13", "#1d6f66", "#264653"),  # levels
]


def draw(rows: pd.DataFrame, table: pd.DataFrame, folder: Path) -> None:
    """Write all figures; the same data gives the same files."""
    mpl.rcParams["svg.hashsalt"] = "coexec"
    mpl.rcParams["svg.fonttype"] = "none"
    for name, panel, size in (
        ("parallel_gain", lambda axis: _parallel_gain(axis, table), (7.5, 4.2)),
        ("robustness", lambda axis: _robustness(axis, table), (8, 4.2)),
        ("levels", lambda axis: _levels(axis, rows), (9, 4.4)),
        ("fallbacks", lambda axis: _fallbacks(axis, rows), (7, 3.4)),
    ):
        figure, axis = plt.subplots(figsize=size, layout="constrained")
        panel(axis)
        axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def _parallel_gain(axis: Any, table: pd.DataFrame) -> None:
    own = against_alone(table).dropna(subset=["together"])
    balance = own["balance"].to_numpy()
    for precision, colour in COLOURS.items():
        mine = (own["precision"] == precision).to_numpy()
        gain = (own["alone"] / own["together"]).to_numpy()[mine]
        axis.scatter(balance[mine], gain, s=14, color=colour, label=precision, alpha=0.8)
    best = np.geomspace(1, 30)
    axis.plot(best, 1 + 1 / best, color=GREY, linewidth=1, label="if work divided without cost")
    axis.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_xscale("log")
    axis.set_xlabel("second best processor alone / best processor alone")
    axis.set_ylabel("best alone / best of several")
    axis.set_title("Several processors pay where two of them are about as fast (idle phones)")
    axis.legend(fontsize=8)


def _robustness(axis: Any, table: pd.DataFrame) -> None:
    found = regret(table, by_condition=True)
    width = 0.8 / len(found.columns)
    for number, condition in enumerate(found.columns):
        places = np.arange(len(found)) + number * width
        axis.bar(places, found[condition] - 1, width, bottom=1, label=condition)
    axis.set_xticks(np.arange(len(found)) + 0.4 - width / 2, found.index, rotation=30, ha="right")
    axis.set_yscale("log")
    axis.set_yticks([1, 1.2, 1.5, 2, 3, 5], ["1", "1.2", "1.5", "2", "3", "5"])
    axis.minorticks_off()
    axis.set_ylabel("times longer than the best strategy")
    axis.set_title("Geometric mean over models, phones and element types")
    axis.legend(fontsize=8)


def _levels(axis: Any, rows: pd.DataFrame) -> None:
    found = levels(rows)
    names = [f"{model}\n{machine}" for model, machine in found.index]
    shown = [*FRONTEND, *BACKEND, *LEVELS]
    width = 0.9 / len(shown)
    for number, (level, colour) in enumerate(zip(shown, LEVEL_COLOURS, strict=True)):
        places = np.arange(len(found)) + width * number
        axis.bar(places, found[level], width, color=colour, label=level)
    axis.set_xticks(np.arange(len(found)) + 0.45, names, rotation=40, ha="right", fontsize=7)
    axis.set_yscale("log")
    axis.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axis.minorticks_off()
    axis.axhline(1, color=GREY, linewidth=0.8)
    axis.set_ylabel("speedup over one processor, float32, no fusion")
    axis.set_title("Techniques on the model (frontend) and on the placement (backend)")
    axis.legend(fontsize=7, ncols=3)


def _fallbacks(axis: Any, rows: pd.DataFrame) -> None:
    found = fallbacks(rows)
    names = [f"{phone}, no {lacks}" for phone, lacks in found.index]
    places = np.arange(len(found))
    axis.barh(places - 0.2, found["NPU / whole"], 0.4, color="#e76f51", label="NPU and CPU")
    axis.barh(places + 0.2, found["auto / whole"], 0.4, color="#264653", label="auto")
    axis.set_yticks(places, names)
    axis.axvline(1, color=GREY, linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlabel("times longer than on the NPU with all operators of its list")
    axis.set_title("What it costs that an NPU lacks one operator (int8)")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
