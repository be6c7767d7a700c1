"""Servings as a picture: per scheduler, who ran where and when, and how long requests took."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coexec.base.disk import write_atomically
from coexec.base.errors import UsageError
from coexec.serving.outcome import Outcome
from coexec.serving.request import Service

MISSING = "pictures need Matplotlib: pip install 'coexec[pictures]'"
WIDTH, HEIGHT = 11.0, 2.2
"""Inches of the whole, and of each scheduler."""
TIMELINE_MS = 1000.0
"""The timeline shows the beginning: longer ones are a blur."""


def require_matplotlib() -> None:
    """Fail before a long run, not after it.

    Raises:
        UsageError: Matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(MISSING)


def draw(services: Sequence[Service], outcomes: Mapping[str, Outcome], path: Path) -> None:
    """Write an SVG with a row per scheduler: its timeline, and the share of requests by latency.

    Raises:
        SaveError: the file cannot be written.
    """
    figures = importlib.import_module("matplotlib.figure")
    colours = importlib.import_module("matplotlib").colormaps["tab10"]
    figure = figures.Figure(figsize=(WIDTH, HEIGHT * len(outcomes) + 0.6), layout="constrained")
    rows = figure.subplots(len(outcomes), 2, squeeze=False, width_ratios=(2, 1))
    colour_of = {service.name: colours(number % 10) for number, service in enumerate(services)}
    for (timeline, latencies), (name, outcome) in zip(rows, outcomes.items(), strict=True):
        _draw_timeline(timeline, outcome, colour_of)
        _draw_latencies(latencies, services, outcome, colour_of)
        timeline.set_title(name, loc="left", fontsize="medium")
    rows[-1][0].set_xlabel("ms")
    rows[-1][1].set_xlabel("latency, ms; dotted: deadline")
    handles, labels = rows[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(services), frameon=False)
    write_atomically(path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))


def _draw_timeline(axes: Any, outcome: Outcome, colour_of: Mapping[str, Any]) -> None:
    for number in range(len(outcome.processors)):
        for name, colour in colour_of.items():
            bars = [
                (span.start_ms, span.end_ms - span.start_ms)
                for span in outcome.spans
                if number in span.option.processors and span.request.service.name == name
            ]
            # A border keeps steps visible that are shorter than a pixel.
            axes.broken_barh(bars, (number - 0.4, 0.8), color=colour, linewidth=0.6)
    axes.set_xlim(0, min(outcome.elapsed_ms, TIMELINE_MS))
    axes.set_ylim(len(outcome.processors) - 0.5, -0.5)
    axes.set_yticks(range(len(outcome.processors)), outcome.processors, fontsize="small")


def _draw_latencies(
    axes: Any, services: Sequence[Service], outcome: Outcome, colour_of: Mapping[str, Any]
) -> None:
    """Of all requests that came, the share that was served within each latency."""
    for service in services:
        served = [each.latency_ms for each in outcome.served if each.service.name == service.name]
        model = outcome.model(service.name)
        came = model.served + model.dropped + model.waiting
        shares = np.arange(1, len(served) + 1) / max(came, 1)
        colour = colour_of[service.name]
        axes.step(np.sort(served), shares, where="post", color=colour, label=service.name)
        if not math.isinf(service.deadline_ms):
            axes.axvline(service.deadline_ms, color=colour, linestyle=":", linewidth=1)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("share of requests")
    axes.set_xscale("log")  # deadlines may be a hundred times as long as requests take
