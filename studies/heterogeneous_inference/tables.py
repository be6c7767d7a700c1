"""The study's questions as tables of its data."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from levels import fusion, levels
from strategies import (
    against_exact,
    auto_behind,
    energy,
    fallbacks,
    memory,
    parallel_gain,
    pipelines,
    policies_against_alone,
    regret,
    static_and_adaptive,
    streams,
)


def tables(rows: pd.DataFrame, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All tables by their headings."""
    return {
        "Several processors against the best one, by element type": parallel_gain(
            table, "precision"
        ),
        "... by phone": parallel_gain(table, "machine"),
        "... by model": parallel_gain(table, "model"),
        "... by time on the best processor alone": parallel_gain(table, "long"),
        "... by how many times longer the second best takes": parallel_gain(table, "behind"),
        "Policies against the best processor alone": policies_against_alone(table),
        "Where `auto` is more than 2 % behind another strategy": auto_behind(table),
        "Predicted times over the proved optimum of whole operators": against_exact(rows),
        "Times longer than the best strategy, all conditions": regret(table),
        "... by condition (geometric mean)": regret(table, by_condition=True),
        "Static and adaptive": static_and_adaptive(table, rows),
        "Fallbacks: NPUs that lack an operator, int8": fallbacks(rows),
        "Levels: speedup over one processor in float32 without fusion": levels(rows),
        "Fusion: times without it over times with it": fusion(rows),
        "Streams, bursts, three models: times longer than the best": streams(table, rows),
        "Pipelines against auto": pipelines(rows),
        "Energy of a request, times that of the most frugal strategy": energy(rows),
        "Memory": memory(rows),
    }


def markdown(found: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Tables with their headings."""
    for title, each in found.items():
        yield f"## {title}\n\n{as_text(each)}\n"


def as_text(frame: pd.DataFrame) -> str:
    """A frame as a table of Markdown, its index as the first columns."""
    if not len(frame):
        return "No cell of this part has a result."
    shown = frame.reset_index()
    lines = [list(map(str, shown.columns)), ["---"] * len(shown.columns)]
    lines += [[_text(value) for value in row] for row in shown.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"  # noqa: PLR0124  NaN is not itself
    return str(value)
