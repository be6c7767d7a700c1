"""Strategies compared: several processors against one, robustness, adapting, streams, energy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from data import (
    ADAPTIVE,
    AUTO,
    CONTEXT,
    EVERYWHERE,
    EXACT,
    GAIN,
    PIPELINE,
    POLICIES,
    PROCESSORS,
    SETTING,
    STRATEGIES,
    WITHOUT,
    done,
    geometric,
    plain,
    single,
)

LENGTHS = [0.0, 1.0, 3.0, 10.0, 50.0, np.inf]
LENGTH_NAMES = ["under 1 ms", "1 to 3 ms", "3 to 10 ms", "10 to 50 ms", "above 50 ms"]
TOLERANCE = 0.02
"""``auto`` takes several processors only if they gain this share."""
BEHIND = [0.0, 1.25, 1.5, 2.0, 3.0, np.inf]
BEHIND_NAMES = ["under 1.25", "1.25 to 1.5", "1.5 to 2", "2 to 3", "above 3"]


def against_alone(table: pd.DataFrame) -> pd.DataFrame:
    """Idle phones: the ``gain`` of the best plan on several processors over the best one alone.

    With the bins that explain it: how ``long`` the model takes alone, and by how much the second
    best processor is ``behind`` the best.
    """
    own = single(table).dropna(subset=["alone"]).copy()
    own["gain"] = (own["alone"] / own["together"]).fillna(1.0)
    lanes = np.sort(own[PROCESSORS].to_numpy(), axis=1)  # what is missing comes last
    own["balance"] = lanes[:, 1] / lanes[:, 0]
    own["long"] = pd.cut(own["alone"], LENGTHS, labels=LENGTH_NAMES, right=False)
    own["behind"] = pd.cut(own["balance"], BEHIND, labels=BEHIND_NAMES, right=False)
    return own


def parallel_gain(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """The best plan on several processors against the best processor alone, on idle phones."""
    groups = against_alone(table).groupby(by, observed=True)["gain"]
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
        if not len(gain):
            continue
        found[policy] = {
            "cases": len(gain),
            "wins": (gain > 1 + GAIN).mean(),
            "equal": ((gain - 1).abs() <= GAIN).mean(),
            "loses": (gain < 1 - GAIN).mean(),
            "geometric mean": geometric(gain),
            "worst": gain.min(),
            "best": gain.max(),
        }
    return _whole(pd.DataFrame(found).T, "cases")


def auto_behind(table: pd.DataFrame) -> pd.DataFrame:
    """Single requests on idle phones where ``auto`` takes longer than another static strategy."""
    own = table[(table["workload"] == "single") & (table["condition"] == "idle")]
    own = own.dropna(subset=[AUTO]).set_index(SETTING)
    others = own[[name for name in STRATEGIES if name not in (AUTO, ADAPTIVE)]]
    ratio = own[AUTO] / others.min(axis=1)
    late = ratio > 1 + TOLERANCE
    found = {"behind": others[late].idxmin(axis=1), "times its time": ratio[late]}
    return pd.DataFrame(found).sort_values("times its time", ascending=False)


def against_exact(rows: pd.DataFrame) -> pd.DataFrame:
    """Small models on idle phones: predicted times over that of a proved optimum.

    The optimum is of whole operators: below 1 is what dividing them gains beyond it.
    """
    own = done(single(rows))
    found = own[(own["strategy"] == EXACT) & (own["note"] == "optimal")]
    optimum = found.set_index(SETTING)["predicted_ms"]
    times = own[own["strategy"].isin(POLICIES)]
    times = times.pivot_table(index=SETTING, columns="strategy", values="predicted_ms")
    ratios = times.reindex(optimum.index).div(optimum, axis=0).reindex(columns=POLICIES)
    ratios = ratios.dropna(axis=1, how="all")
    return pd.DataFrame(
        {
            "cases": ratios.count(),
            "geometric mean": ratios.apply(geometric),
            "least": ratios.min(),
            "most": ratios.max(),
            "within 1 %": (ratios <= 1 + GAIN).sum() / ratios.count(),
        }
    )


def regret(table: pd.DataFrame, by_condition: bool = False) -> pd.DataFrame:
    """How many times longer than the best strategy of the same context each one takes."""
    own = plain(table)
    own = own[own["workload"] == "single"].dropna(subset=["alone", AUTO, ADAPTIVE])
    ratios = own[EVERYWHERE].div(own["best"], axis=0)
    if by_condition:
        ratios["condition"] = own["condition"]
        return ratios.groupby("condition", sort=False).agg(geometric).T
    return pd.DataFrame(
        {
            "cases": ratios.count(),
            "geometric mean": ratios.apply(geometric),
            "90 %": ratios.quantile(0.9),
            "worst": ratios.max(),
            "within 5 %": (ratios <= 1.05).sum() / ratios.count(),
            "is the best": (ratios <= 1 + GAIN).sum() / ratios.count(),
        }
    )


def static_and_adaptive(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """``auto``, planned for an idle phone, against planning again, by workload and condition."""
    own = plain(table).dropna(subset=[AUTO, ADAPTIVE]).set_index(CONTEXT)
    adaptive = rows[rows["strategy"] == ADAPTIVE].set_index(CONTEXT)["replanned"]
    own["again"] = adaptive.reindex(own.index) > 0
    own["static"], own["adapted"] = own[AUTO] / own["best"], own[ADAPTIVE] / own["best"]
    own["gain"] = own[AUTO] / own[ADAPTIVE]
    groups = own.reset_index().groupby(["workload", "condition"], sort=False)
    changed = own[own["again"]].reset_index().groupby(["workload", "condition"], sort=False)
    return pd.DataFrame(
        {
            "cases": groups.size(),
            "static / best": groups["static"].agg(geometric),
            "adaptive / best": groups["adapted"].agg(geometric),
            "static / adaptive": groups["gain"].agg(geometric),
            "planned again": groups["again"].mean(),
            "gain there": changed["gain"].agg(geometric),
        }
    )


def streams(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Streams, bursts and several models: latency against the best, late frames, throughput."""
    own = plain(table)
    own = own[own["workload"] != "single"]
    ratios = own[STRATEGIES].div(own["best"], axis=0)
    ratios["workload"] = own["workload"]
    found = ratios.groupby("workload", sort=False).agg(geometric).T.reindex(STRATEGIES)
    served = plain(done(rows))
    late = served[served["workload"] == "camera"]
    found["late frames"] = late.groupby("strategy")["late"].mean()
    burst = served[served["workload"] == "burst"]
    rates = burst.pivot_table(index=CONTEXT, columns="strategy", values="per_s")
    found["burst: share of the most a second"] = rates.div(rates.max(axis=1), axis=0).apply(
        geometric
    )
    return found.dropna(how="all")


def pipelines(rows: pd.DataFrame) -> pd.DataFrame:
    """Pipelines against ``auto`` by workload: requests a second, latency of a request."""
    own = plain(done(rows))
    own = own[own["strategy"].isin([PIPELINE, AUTO])]
    rates = own.pivot_table(index=CONTEXT, columns="strategy", values="per_s")
    times = own.pivot_table(index=CONTEXT, columns="strategy", values="ms")
    both = pd.DataFrame({"rate": [], "time": []}, dtype=float)
    if PIPELINE in rates and AUTO in rates:
        both = pd.DataFrame(
            {"rate": rates[PIPELINE] / rates[AUTO], "time": times[PIPELINE] / times[AUTO]}
        ).dropna()
    groups = both.reset_index().groupby("workload") if len(both) else None
    if groups is None:
        return pd.DataFrame()
    return pd.DataFrame(
        {
            "cases": groups.size(),
            "requests a second / auto": groups["rate"].agg(geometric),
            "most": groups["rate"].max(),
            "more a second in": groups["rate"].agg(lambda rate: (rate > 1 + GAIN).mean()),
            "latency / auto": groups["time"].agg(geometric),
        }
    )


def energy(rows: pd.DataFrame) -> pd.DataFrame:
    """Energy of a request against the most frugal strategy of the same context, idle phones."""
    own = done(single(rows))
    table = own.pivot_table(index=SETTING, columns="strategy", values="mj")
    table = table.reindex(columns=EVERYWHERE).dropna(subset=["cpu", "gpu", AUTO])
    ratios = table.div(table.min(axis=1), axis=0)
    return pd.DataFrame({"geometric mean": ratios.apply(geometric), "worst": ratios.max()})


def memory(rows: pd.DataFrame) -> pd.DataFrame:
    """Memory of a model on its best processor alone: with reuse, and without."""
    own = done(single(rows))
    own = own[(own["strategy"] == "single_best") & (own["precision"] == "float32")]
    groups = own.groupby("model")[["peak_bytes", "naive_bytes"]].median()
    found = groups / 2**20
    found["without / with"] = found["naive_bytes"] / found["peak_bytes"]
    return found.rename(columns={"peak_bytes": "MiB", "naive_bytes": "MiB without reuse"})


def fallbacks(rows: pd.DataFrame) -> pd.DataFrame:
    """What it costs that an NPU lacks one operator: models in which it stands, int8, idle phones.

    ``NPU`` has the CPU for what it refuses; ``whole`` is the NPU with all of its list.
    """
    own = done(rows)
    own = own[(own["workload"] == "single") & (own["condition"] == "idle")]
    own = own[(own["wait"] == "finish") & (own["technique"] == "none") & (own["fusion"] == "on")]
    own = own[own["precision"] == "int8"].copy()
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
                "auto / whole": here[AUTO] / whole,
            }
        )
    columns = ["whole / CPU", "NPU / whole", "NPU / CPU", "auto / whole"]
    frame = pd.DataFrame(found, columns=["lacks", "phone", "refused", "launches", *columns])
    groups = frame.groupby(["phone", "lacks"])
    counts = groups[["refused", "launches"]].median()
    return counts.assign(models=groups.size(), **{c: groups[c].agg(geometric) for c in columns})


def _whole(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Columns that hold counts."""
    return frame.astype(dict.fromkeys(columns, int)) if len(frame) else frame
