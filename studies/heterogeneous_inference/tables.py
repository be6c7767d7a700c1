"""The study's questions as tables of its data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from data import ADAPTIVE, CONTEXT, GAIN, POLICIES, PROCESSORS, SETTING

STRATEGIES = [*PROCESSORS, *POLICIES, ADAPTIVE]
WITHOUT = "-without-"
"""In the name of a phone whose NPU lacks an operator."""


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Models and phones as they are, waits by the driver."""
    table = table[(table["technique"] == "none") & (table["wait"] == "finish")]
    return table[~table["machine"].str.contains(WITHOUT)]


def single(table: pd.DataFrame, condition: str = "idle") -> pd.DataFrame:
    """Single requests of plain models under one condition."""
    table = plain(table)
    return table[(table["workload"] == "single") & (table["condition"] == condition)]


def parallel_gain(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """The best plan on several processors against the best processor alone, on idle phones."""
    own = single(table).dropna(subset=["alone"]).copy()
    own["gain"] = (own["alone"] / own["together"]).fillna(1.0)
    groups = own.groupby(by, observed=True)["gain"]
    return pd.DataFrame(
        {
            "cases": groups.size(),
            "wins": groups.apply(lambda gain: (gain > 1 + GAIN).mean()),
            "median gain where it wins": groups.apply(lambda gain: gain[gain > 1 + GAIN].median()),
            "most": groups.max(),
        }
    )


def policies_against_alone(table: pd.DataFrame) -> pd.DataFrame:
    """What each policy comes to against the best processor alone, on idle phones."""
    own = single(table)
    found = {}
    for policy in [*POLICIES, ADAPTIVE]:
        gain = (own["alone"] / own[policy]).dropna()
        found[policy] = {
            "wins": (gain > 1 + GAIN).mean(),
            "equal": ((gain - 1).abs() <= GAIN).mean(),
            "loses": (gain < 1 - GAIN).mean(),
            "geometric mean": _geometric(gain),
            "worst": gain.min(),
            "best": gain.max(),
        }
    return pd.DataFrame(found).T


def regret(table: pd.DataFrame, by_condition: bool = False) -> pd.DataFrame:
    """How many times longer than the best strategy of the same context each one takes."""
    own = plain(table)
    own = own[own["workload"] == "single"].dropna(subset=["alone", "auto", ADAPTIVE])
    ratios = own[STRATEGIES].div(own["best"], axis=0)
    if by_condition:
        ratios["condition"] = own["condition"]
        return ratios.groupby("condition", sort=False).agg(_geometric).T
    return pd.DataFrame(
        {
            "geometric mean": ratios.apply(_geometric),
            "90 %": ratios.quantile(0.9),
            "worst": ratios.max(),
            "within 5 %": (ratios <= 1.05).sum() / ratios.notna().sum(),
            "is the best": (ratios <= 1 + GAIN).sum() / ratios.notna().sum(),
        }
    )


def static_and_adaptive(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """``auto``, planned for an idle phone, against planning again, by workload and condition."""
    own = plain(table).dropna(subset=["auto", ADAPTIVE]).set_index(CONTEXT)
    adaptive = rows[rows["strategy"] == ADAPTIVE].set_index(CONTEXT)["replanned"]
    own["replanned"] = adaptive.reindex(own.index) > 0
    groups = own.reset_index().groupby(["workload", "condition"], sort=False)
    return pd.DataFrame(
        {
            "cases": groups.size(),
            "static / best": groups.apply(lambda g: _geometric(g["auto"] / g["best"])),
            "adaptive / best": groups.apply(lambda g: _geometric(g[ADAPTIVE] / g["best"])),
            "planned again": groups["replanned"].mean(),
            "gain there": groups.apply(
                lambda g: _geometric((g["auto"] / g[ADAPTIVE])[g["replanned"]])
            ),
        }
    )


def fallbacks(rows: pd.DataFrame) -> pd.DataFrame:
    """What it costs that an NPU lacks one operator: models in which it stands, int8, idle phones.

    ``NPU`` has the CPU for what it refuses; ``whole`` is the NPU that has all operators.
    """
    own = rows[(rows["workload"] == "single") & (rows["condition"] == "idle")]
    own = own[(own["wait"] == "finish") & (own["technique"] == "none")]
    own = own[(own["precision"] == "int8") & (own["outcome"].fillna("") == "")].copy()
    parts = own["machine"].str.split(WITHOUT, n=1, expand=True).reindex(columns=[0, 1])
    own["phone"], own["lacks"] = parts[0], parts[1].fillna("")
    index = ["phone", "model"]
    times = own.pivot_table(index=["lacks", *index], columns="strategy", values="ms")
    npu = own[own["strategy"] == "npu"].set_index(["lacks", *index])
    found = []
    for (lacks, phone, model), each in npu[npu["refused"] > 0].iterrows():
        if not lacks or ("", phone, model) not in npu.index:
            continue
        here, whole = times.loc[(lacks, phone, model)], times.loc[("", phone, model), "npu"]
        found.append(
            {
                "lacks": lacks,
                "phone": phone,
                "refused": each["refused"],
                "launches": each["launches"],
                "whole / CPU": whole / here["cpu"],
                "NPU / whole": here["npu"] / whole,
                "NPU / CPU": here["npu"] / here["cpu"],
                "auto / whole": here["auto"] / whole,
            }
        )
    columns = ["whole / CPU", "NPU / whole", "NPU / CPU", "auto / whole"]
    frame = pd.DataFrame(found, columns=["lacks", "phone", "refused", "launches", *columns])
    groups = frame.groupby(["phone", "lacks"])
    counts = groups[["refused", "launches"]].median()
    return counts.assign(models=groups.size(), **{c: groups[c].agg(_geometric) for c in columns})


def levels(rows: pd.DataFrame) -> pd.DataFrame:
    """Speedups by the techniques of the frontend alone, of the backend alone, and of both.

    From the best processor alone in float32 with the driver's wait: frontend is the best of int8,
    low rank and fewer channels (one of the latter two), backend the best placement and wait.
    """
    own = rows[(rows["workload"] == "single") & (rows["condition"] == "idle")]
    own = own[(own["outcome"].fillna("") == "")]
    grid = own[own["wait"] == "flag"][["model", "machine"]].drop_duplicates()
    found = []
    for model, machine in grid.itertuples(index=False):
        here = own[(own["model"] == model) & (own["machine"] == machine)]
        here = here[here["precision"].isin(["float32", "int8"])]
        as_it_is = (here["technique"] == "none") & (here["precision"] == "float32")
        one = here["strategy"].isin(PROCESSORS) & (here["wait"] == "finish")
        start = here[as_it_is & one]["ms"].min()
        speed = {
            "frontend": start / here[one]["ms"].min(),
            "backend": start / here[as_it_is]["ms"].min(),
            "both": start / here["ms"].min(),
        }
        over = speed["both"] / max(speed["frontend"], speed["backend"])
        found.append(
            {"model": model, "machine": machine, "ms": start, **speed, "both over one": over}
        )
    columns = ["model", "machine", "ms", "frontend", "backend", "both", "both over one"]
    return pd.DataFrame(found, columns=columns).set_index(["model", "machine"])


def streams(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Streams, bursts and several models: milliseconds against the best, late frames, energy."""
    own = plain(table)
    own = own[own["workload"] != "single"]
    ratios = own[STRATEGIES].div(own["best"], axis=0)
    ratios["workload"] = own["workload"]
    found = ratios.groupby("workload", sort=False).agg(_geometric).T
    late = plain(rows)
    late = late[(late["workload"] == "camera") & (late["outcome"].fillna("") == "")]
    found["late frames"] = late.groupby("strategy")["late"].mean()
    return found


def energy(rows: pd.DataFrame) -> pd.DataFrame:
    """Energy of a request against the most frugal strategy of the same context."""
    own = single(rows)
    table = own.pivot_table(index=SETTING, columns="strategy", values="mj").dropna(
        subset=["cpu", "gpu", "auto"]
    )
    ratios = table.div(table.min(axis=1), axis=0)[STRATEGIES]
    return pd.DataFrame({"geometric mean": ratios.apply(_geometric), "worst": ratios.max()})


def memory(rows: pd.DataFrame) -> pd.DataFrame:
    """Memory of a model on its best processor alone: with reuse, and without."""
    own = single(rows)
    own = own[(own["strategy"] == "single_best") & (own["precision"] == "float32")]
    groups = own.groupby("model")[["peak_bytes", "naive_bytes"]].median()
    found = groups / 2**20
    found["without / with"] = found["naive_bytes"] / found["peak_bytes"]
    return found.rename(columns={"peak_bytes": "MiB", "naive_bytes": "MiB without reuse"})


def _geometric(values: pd.Series) -> float:
    values = values.dropna()
    return float(np.exp(np.log(values.astype(float)).mean())) if len(values) else float("nan")


def markdown(rows: pd.DataFrame, table: pd.DataFrame) -> Iterator[str]:
    """All tables, with their headings."""
    found = {
        "Several processors against the best one, by element type": parallel_gain(
            table, "precision"
        ),
        "... by phone": parallel_gain(table, "machine"),
        "... by model": parallel_gain(table, "model"),
        "Policies against the best processor alone": policies_against_alone(table),
        "Times longer than the best strategy, all conditions": regret(table),
        "... by condition (geometric mean)": regret(table, by_condition=True),
        "Static and adaptive": static_and_adaptive(table, rows),
        "Fallbacks: NPUs that lack an operator, int8": fallbacks(rows),
        "Levels: speedup over one processor in float32": levels(rows),
        "Streams, bursts, three models: times longer than the best": streams(table, rows),
        "Energy of a request, times that of the most frugal strategy": energy(rows),
        "Memory": memory(rows),
    }
    for title, each in found.items():
        yield f"## {title}\n\n{_table(each)}\n"


def _table(frame: pd.DataFrame) -> str:
    shown = frame.reset_index()
    lines = [list(map(str, shown.columns)), ["---"] * len(shown.columns)]
    lines += [[_text(value) for value in row] for row in shown.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"  # noqa: PLR0124  NaN is not itself
    return str(value)
