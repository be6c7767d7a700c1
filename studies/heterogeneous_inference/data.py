"""Rows of the study as a table, and what is compared in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

SETTING = ["model", "technique", "machine", "precision", "wait", "fusion"]
CONTEXT = [*SETTING, "workload", "condition"]
PROCESSORS = ["cpu", "gpu", "npu"]
PIPELINE, EXACT, AUTO, ADAPTIVE = "pipeline", "exact", "auto", "adaptive"
RANKED = [
    *("single_best", "greedy", "chain", "heft", "branch_parallel", "operator_split", AUTO),
]
"""Policies that every context was planned by."""
POLICIES = [*RANKED[:-1], PIPELINE, EXACT, AUTO]
STRATEGIES = [*PROCESSORS, *POLICIES, ADAPTIVE]
EVERYWHERE = [*PROCESSORS, *RANKED, ADAPTIVE]
"""Strategies of all workloads and conditions (``pipeline`` is for streams, ``exact`` searches for
small models on idle phones)."""
GAIN = 0.01
"""Less of a difference is none."""
WITHOUT = "-without-"
"""In the name of a phone whose NPU lacks an operator."""


def read(folder: Path) -> pd.DataFrame:
    """The results of ``coexec study run``, with how many processors each plan uses."""
    parquet = folder / "results.parquet"
    rows = pd.read_parquet(parquet) if parquet.exists() else pd.read_csv(folder / "results.csv")
    rows["outcome"] = rows["outcome"].fillna("")
    placed = _of_each(rows, "nodes") > 0
    shared = (_of_each(rows, "busy") > 0) & (rows["splits"].to_numpy()[:, None] > 0)
    rows["processors"] = (placed | shared).sum(axis=1)
    return rows


def read_calls(folder: Path) -> pd.DataFrame:
    """The calls that simulated these rows: ``cells`` new ones in ``seconds`` on ``workers``."""
    path = folder / "calls.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    columns = ["cells", "seconds", "processor_seconds", "workers"]
    return pd.DataFrame([json.loads(line) for line in lines], columns=columns)


def contexts(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per context: milliseconds by strategy, and the best of what is compared.

    ``alone`` is the fastest processor alone (with the CPU for what it refuses), ``together`` the
    fastest plan that uses several processors, ``best`` the fastest of all.
    """
    own = done(rows)
    # An NPU that refuses all nodes is the CPU under another name.
    own = own[(own["strategy"] != "npu") | (own["nodes_npu"] > 0)]
    table = own.pivot_table(index=CONTEXT, columns="strategy", values="ms", observed=True)
    table = table.reindex(columns=STRATEGIES)
    whole = own[own["strategy"].isin(PROCESSORS) & (own["processors"] == 1)]
    alone = whole.loc[whole.groupby(CONTEXT)["ms"].idxmin()].set_index(CONTEXT)
    parallel = own[own["strategy"].isin(POLICIES) & (own["processors"] > 1)]
    together = parallel.loc[parallel.groupby(CONTEXT)["ms"].idxmin()].set_index(CONTEXT)
    table["best"] = table[STRATEGIES].min(axis=1)
    table["alone"], table["alone_is"] = alone["ms"], alone["strategy"]
    table["together"], table["together_is"] = together["ms"], together["strategy"]
    return table.reset_index()


def done(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells that have a time."""
    return rows[rows["outcome"] == ""]


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Models and phones as they are: fused, not compressed, waits by the driver."""
    table = table[(table["technique"] == "none") & (table["wait"] == "finish")]
    return table[(table["fusion"] == "on") & ~table["machine"].str.contains(WITHOUT)]


def single(table: pd.DataFrame, condition: str = "idle") -> pd.DataFrame:
    """Single requests of plain models under one condition."""
    table = plain(table)
    return table[(table["workload"] == "single") & (table["condition"] == condition)]


def geometric(values: pd.Series) -> float:
    """The geometric mean of what is known; NaN of nothing."""
    values = values.dropna()
    return float(np.exp(np.log(values.astype(float)).mean())) if len(values) else float("nan")


def _of_each(rows: pd.DataFrame, what: str) -> np.ndarray:
    return rows[[f"{what}_{name}" for name in PROCESSORS]].fillna(0).to_numpy()
