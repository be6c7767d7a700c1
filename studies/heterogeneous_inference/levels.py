"""Techniques of both levels: each alone, a level's together, both levels, and what fusion adds.

The frontend changes the model or its kernels: ``fusion`` of elementwise operators, ``int8``,
``low-rank`` or ``pruned`` weights. The backend changes where and how it runs: ``placement`` on
several processors, the host's wait for a GPU (``flag``). All is measured from nothing of either:
the best processor alone in float32, every operator a kernel of its own, waits by the driver.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from data import PROCESSORS, WITHOUT, done

INDEX = ["model", "machine"]
FRONTEND = ["fusion", "int8", "low-rank", "pruned"]
BACKEND = ["placement", "flag"]
LEVELS = ["frontend", "backend", "both"]


def levels(rows: pd.DataFrame) -> pd.DataFrame:
    """Speedups by each technique alone, by all of the frontend, of the backend, and of both.

    ``both over one``: against the better level alone; ``both over product``: 1 if the levels'
    gains multiply, less if they get the same time twice.
    """
    found = [{**grid.named, **_speedups(grid)} for grid in _grids(rows)]
    columns = [*INDEX, "ms", *FRONTEND, *BACKEND, *LEVELS, "both over one", "both over product"]
    return pd.DataFrame(found, columns=columns).set_index(INDEX)


def fusion(rows: pd.DataFrame) -> pd.DataFrame:
    """Times without fusion over times with it, by element type and by what else is done."""
    found = []
    for grid in _grids(rows):
        cells, one, plain = grid.cells, grid.one, grid.cells["technique"] == "none"
        single = cells["precision"] == "float32"
        finish = cells["wait"] == "finish"
        found.append(
            {
                **grid.named,
                "one processor, float32": _without_over_with(cells[one & plain & single]),
                "one processor, int8": _without_over_with(cells[one & plain & ~single]),
                "best plan, float32": _without_over_with(cells[plain & finish & single]),
                "best plan, int8": _without_over_with(cells[plain & finish & ~single]),
                "beside all others": _without_over_with(cells),
            }
        )
    return pd.DataFrame(found, columns=list(found[0]) if found else INDEX).set_index(INDEX)


@dataclass(frozen=True)
class _Grid:
    """All cells of one model on one phone; ``one``: one processor, waits by the driver."""

    model: str
    machine: str
    cells: pd.DataFrame

    @property
    def named(self) -> dict[str, str]:
        return {"model": self.model, "machine": self.machine}

    @property
    def one(self) -> pd.Series:
        return self.cells["strategy"].isin(PROCESSORS) & (self.cells["wait"] == "finish")


def _grids(rows: pd.DataFrame) -> list[_Grid]:
    """Idle single requests of models and phones that have cells without fusion."""
    own = done(rows)
    own = own[(own["workload"] == "single") & (own["condition"] == "idle")]
    own = own[own["precision"].isin(["float32", "int8"]) & ~own["machine"].str.contains(WITHOUT)]
    own = own[own["strategy"].isin(_strategies(own))]
    pairs = own[own["fusion"] == "off"][INDEX].drop_duplicates()
    return [
        _Grid(model, machine, own[(own["model"] == model) & (own["machine"] == machine)])
        for model, machine in pairs.itertuples(index=False)
    ]


def _strategies(own: pd.DataFrame) -> list[str]:
    """Those that were tried without fusion, too: the others would win for being tried."""
    return list(own[own["fusion"] == "off"]["strategy"].unique())


def _speedups(grid: _Grid) -> dict[str, float]:
    cells, one = grid.cells, grid.one
    bare, float32 = cells["technique"] == "none", cells["precision"] == "float32"
    fused, finish = cells["fusion"] == "on", cells["wait"] == "finish"
    alone = cells["strategy"].isin(PROCESSORS)
    as_it_is = bare & float32 & ~fused
    start = cells[as_it_is & one]["ms"].min()

    def speed(which: pd.Series) -> float:
        return float(start / cells[which]["ms"].min())

    found = {
        "fusion": speed(one & bare & float32 & fused),
        "int8": speed(one & bare & ~float32 & ~fused),
        "low-rank": speed(one & (cells["technique"] == "low-rank") & float32 & ~fused),
        "pruned": speed(one & (cells["technique"] == "pruned") & float32 & ~fused),
        "placement": speed(as_it_is & finish),
        "flag": speed(as_it_is & alone),
        "frontend": speed(one),
        "backend": speed(as_it_is),
        "both": speed(one | ~one),
    }
    over = found["both"] / max(found["frontend"], found["backend"])
    product = found["both"] / (found["frontend"] * found["backend"])
    return {"ms": start, **found, "both over one": over, "both over product": product}


def _without_over_with(cells: pd.DataFrame) -> float:
    times = cells.groupby("fusion")["ms"].min()
    return float(times.get("off", float("nan")) / times.get("on", float("nan")))
