"""The ladder as a picture: step time by rung, split into kernels and everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

KERNELS = ("compute", "bandwidth")
PARTS = {
    "kernels": (KERNELS, "#2a9d8f"),
    "layout, transfer, map": (("layout", "transfer", "map"), "#e9c46a"),
    "dispatch": (("dispatch",), "#f4a261"),
    "synchronisation": (("sync",), "#e76f51"),
    "idle": (("idle",), "#bbbbbb"),
}


def draw(record: dict[str, Any], path: Path) -> None:
    """One panel per net and runtime: a bar per rung, milliseconds by part; the line is the CPU."""
    mpl.rcParams["svg.hashsalt"] = "coexec"  # the same figures give the same file
    pairs = list(dict.fromkeys((r["model"], r["runtime"]) for r in record["rows"]))
    runtimes = list(dict.fromkeys(runtime for _, runtime in pairs))
    models = list(dict.fromkeys(model for model, _ in pairs))
    figure, axes = plt.subplots(
        len(models),
        len(runtimes),
        figsize=(5.5 * len(runtimes), 2.1 * len(models)),
        squeeze=False,
        layout="constrained",
    )
    for i, model in enumerate(models):
        for j, runtime in enumerate(runtimes):
            rows = [r for r in record["rows"] if (r["model"], r["runtime"]) == (model, runtime)]
            _panel(axes[i][j], rows, record["baselines"][model])
            axes[i][j].set_title(f"{model} on {runtime}, ms a step", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axis: Any, rows: list[dict[str, Any]], baseline: dict[str, Any]) -> None:
    names = [row["rung"] for row in rows][::-1]
    left = dict.fromkeys(names, 0.0)
    for label, (keys, color) in PARTS.items():
        widths = {r["rung"]: r["step_ms"] * sum(r["shares"][k] for k in keys) for r in rows}
        lengths = [widths.get(name, 0.0) for name in names]
        axis.barh(names, lengths, left=[left[n] for n in names], color=color, label=label)
        for name in names:
            left[name] += widths.get(name, 0.0)
    axis.axvline(baseline["step_ms"], color="#264653", linestyle="--", label="CPU baseline")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
