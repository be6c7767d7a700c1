"""Rows of the study as a table, and what is compared in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

SETTING = ["model", "technique", "machine", "precision", "wait"]
CONTEXT = [*SETTING, "workload", "condition"]
PROCESSORS = ["cpu", "gpu", "npu"]
POLICIES = ["single_best", "greedy", "chain", "heft", "branch_parallel", "operator_split", "auto"]
ADAPTIVE = "adaptive"
GAIN = 0.01
"""Less of a difference is none."""


def read(folder: Path) -> pd.DataFrame:
    """The results of ``coexec study run``, with how many processors each plan uses."""
    parquet = folder / "results.parquet"
    rows = pd.read_parquet(parquet) if parquet.exists() else pd.read_csv(folder / "results.csv")
    placed = _of_each(rows, "nodes") > 0
    shared = (_of_each(rows, "busy") > 0) & (rows["splits"].to_numpy()[:, None] > 0)
    rows["processors"] = (placed | shared).sum(axis=1)
    return rows


def contexts(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per context: milliseconds by strategy, and the best of what is compared.

    ``alone`` is the fastest processor alone (with the CPU for what it refuses), ``together`` the
    fastest plan that uses several processors, ``best`` the fastest of all.
    """
    done = rows[rows["outcome"].fillna("") == ""]
    # An NPU that refuses all nodes is the CPU under another name.
    done = done[(done["strategy"] != "npu") | (done["nodes_npu"] > 0)]
    table = done.pivot_table(index=CONTEXT, columns="strategy", values="ms", observed=True)
    whole = done[done["strategy"].isin(PROCESSORS) & (done["processors"] == 1)]
    alone = whole.loc[whole.groupby(CONTEXT)["ms"].idxmin()].set_index(CONTEXT)
    parallel = done[done["strategy"].isin(POLICIES) & (done["processors"] > 1)]
    together = parallel.loc[parallel.groupby(CONTEXT)["ms"].idxmin()].set_index(CONTEXT)
    table["alone"], table["alone_is"] = alone["ms"], alone["strategy"]
    table["together"], table["together_is"] = together["ms"], together["strategy"]
    table["best"] = table[[c for c in (*PROCESSORS, *POLICIES, ADAPTIVE) if c in table]].min(axis=1)
    return table.reset_index()


def _of_each(rows: pd.DataFrame, what: str) -> np.ndarray:
    return rows[[f"{what}_{name}" for name in PROCESSORS]].fillna(0).to_numpy()
