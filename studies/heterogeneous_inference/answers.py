"""The questions of the study, answered in sentences whose figures come from the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from data import (
    AUTO,
    EXACT,
    GAIN,
    PIPELINE,
    PROCESSORS,
    contexts,
    done,
    geometric,
    plain,
    single,
)
from levels import BACKEND, FRONTEND, fusion, levels
from strategies import (
    against_alone,
    against_exact,
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

NOTHING = "no cell of this part has a result"
WIDTH = 110
"""Of lines, in characters."""
RARELY = 0.05
SHOWN = 4
"""Strategies that a sentence names; the others are in the tables."""
GRID = 10_000
"""Cells of the grid that has to be simulated in twenty minutes."""


def answers(rows: pd.DataFrame, calls: pd.DataFrame) -> Iterator[str]:
    """A paragraph per question."""
    table = contexts(rows)
    for question, found in (
        ("The grid", grid(rows, calls)),
        ("When does parallel win?", wins(table)),
        ("When does it lose?", losses(table)),
        ("One processor alone", alone(table)),
        ("How far from the optimum?", optimum(rows)),
        ("Fallbacks", lacking(rows)),
        ("Robustness", robustness(table)),
        ("Static and adaptive", adapting(table, rows)),
        ("Streams", streaming(table, rows)),
        ("Levels", both_levels(rows)),
        ("Fusion", fused(rows)),
        ("Energy", frugal(rows)),
        ("Memory reuse", reuse(rows)),
    ):
        yield fill(
            f"* **{question}** {found}.",
            WIDTH,
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )


def grid(rows: pd.DataFrame, calls: pd.DataFrame) -> str:
    """How many cells, and how long they took."""
    refused = int((rows["outcome"] == "refused").sum())
    text = (
        f"{len(rows):,} cells, of which {refused:,} cannot be (no such processor, too little "
        f"memory); {rows['model'].nunique()} models, "
        f"{plain(rows)['machine'].nunique()} phones"
    )
    timed = int(calls["cells"].sum())
    if not timed:
        return f"{text}; how long they took was not written down"
    seconds = float(calls["seconds"].sum())
    workers = " or ".join(
        "1 process" if each == 1 else f"{each} processes"
        for each in sorted(calls["workers"].unique())
    )
    called = "one call" if len(calls) == 1 else f"{len(calls)} calls"
    rate = timed / seconds
    text += (
        f"; {called} with {workers} simulated {timed:,} in {seconds:,.0f} s: "
        f"{rate:.1f} cells a second, {GRID:,} in {GRID / rate / 60:.1f} minutes"
    )
    computed = calls["processor_seconds"]
    if computed.isna().any():
        return text
    each = float(computed.sum()) / timed
    return (
        f"{text}; whatever else ran there, a cell takes {each * 1e3:.0f} ms of a "
        f"core, so that two cores of their own take {GRID * each / 120:.1f} minutes for {GRID:,}"
    )


def wins(table: pd.DataFrame) -> str:
    """When several processors beat the best one, by how much."""
    own = against_alone(table)
    if not len(own):
        return NOTHING
    kinds = parallel_gain(table, "precision")
    by_kind = [
        f"{_percent(each['wins'])} of {each['cases']:.0f} cases in {name} (median gain there "
        f"{_times(each['median gain where it wins'])})"
        for name, each in kinds.iterrows()
    ]
    top = own.loc[own["gain"].idxmax()]
    phones = parallel_gain(table, "machine")["wins"]
    return (
        "On idle phones the best plan on several processors is faster than the best processor "
        f"alone in {_list(by_kind)}; at most {_times(top['gain'])} times "
        f"({_case(top)}). By time on the best processor alone it wins "
        f"{_bins(table, 'long')}. By how many times longer the second best takes: "
        f"{_bins(table, 'behind')}. It wins most on {phones.idxmax()} ({_percent(phones.max())}) "
        f"and least on {phones.idxmin()} ({_percent(phones.min())})"
    )


def losses(table: pd.DataFrame) -> str:
    """Which policies lose to the best processor alone."""
    found = policies_against_alone(table)
    if not len(found):
        return NOTHING
    parts = [
        f"`{name}` in {_percent(each['loses'])} ({_times(each['geometric mean'])}, "
        f"{_times(each['worst'])})"
        for name, each in found.sort_values("loses", ascending=False).iterrows()
        if each["loses"] >= RARELY
    ]
    own = single(table)
    speed = (own["alone"] / own[AUTO]).dropna()
    worst = own.loc[speed.idxmin()]
    return (
        f"Of the cases on idle phones, policies are more than {_percent(GAIN)} slower than the "
        "best processor alone (in brackets their speed against it, geometric mean and worst): "
        f"{_list(parts) if parts else 'none'}, all others in less than {_percent(RARELY)}. "
        f"`{AUTO}` is worst for {_case(worst)}, with {_times(speed.min())} of the speed"
    )


def alone(table: pd.DataFrame) -> str:
    """How often one processor is as good as anything, and which."""
    own = against_alone(table)
    if not len(own):
        return NOTHING
    enough = (own["gain"] <= 1 + GAIN).mean()
    parts = []
    for precision, group in own.groupby("precision"):
        counts = group["alone_is"].value_counts()
        shares = ", ".join(f"{count} times the {name.upper()}" for name, count in counts.items())
        parts.append(f"in {precision} {shares}")
    return (
        f"No plan on several processors is faster in {_percent(enough)} of the cases on idle "
        f"phones. The best one alone is {'; '.join(parts)}"
    )


def optimum(rows: pd.DataFrame) -> str:
    """Policies against a proved optimum, and how much of that could be proved."""
    searched = done(single(rows))
    searched = searched[searched["strategy"] == EXACT]
    found = against_exact(rows)
    if not len(searched) or not len(found):
        return NOTHING
    proved = int((searched["note"] == "optimal").sum())
    parts = [
        f"`{name}` {_times(each['geometric mean'])} (at most {_times(each['most'])})"
        for name, each in found.drop(EXACT, errors="ignore").iterrows()
    ]
    return (
        f"Of {len(searched)} searches on small models {proved} ended with a proof. Predicted times "
        f"over such an optimum of whole operators, geometric mean: {_list(parts)}; where a policy "
        "divides operators it can be below 1"
    )


def lacking(rows: pd.DataFrame) -> str:
    """What one operator costs that an NPU lacks."""
    found = fallbacks(rows)
    if not len(found):
        return NOTHING
    parts = []
    for lacks, group in found.groupby("lacks"):
        each = group.droplevel("lacks")
        phones = [
            f"{_times(one['NPU / whole'])} on {phone} ({_times(one['NPU / CPU'])} times the CPU)"
            for phone, one in each.iterrows()
        ]
        parts.append(f"without {_operator(lacks)} {_list(phones)}")
    worse = found[found["auto / whole"] > found["NPU / whole"] * (1 + GAIN)]
    where = [f"{_operator(lacks)} on {phone}" for phone, lacks in worse.index]
    behind = f"it is slower than that for {_list(where)}" if where else "it is nowhere slower"
    low, high = found["auto / whole"].min(), found["auto / whole"].max()
    return (
        "Times longer than on the NPU as it is (what it lacks anyway: docs/phones.md), the CPU "
        "doing what one operator less leaves it: "
        f"{'; '.join(parts)}. `auto` takes {_times(low)} to {_times(high)} times as long as the "
        f"NPU as it is; {behind}"
    )


def robustness(table: pd.DataFrame) -> str:
    """Which strategy is least far from the best of the moment."""
    found = regret(table).sort_values("geometric mean")
    if not found["cases"].max() > 0:
        return NOTHING
    shown = found.drop(PROCESSORS).dropna()
    parts = [
        f"`{name}` {_times(each['geometric mean'])} ({_times(each['90 %'])})"
        for name, each in shown.iterrows()
    ]
    fixed = found.loc[PROCESSORS]
    by_condition = regret(table, by_condition=True)
    first = [f"`{by_condition[name].idxmin()}` ({name})" for name in by_condition]
    return (
        f"Times longer than the best strategy of the moment over all conditions, geometric mean "
        f"of {found['cases'].max():.0f} cases (90 % are within): {_list(parts)}; one fixed "
        f"processor {_range(fixed['geometric mean'])} ({_range(fixed['90 %'])}). The most robust "
        f"by condition: {_list(first)}"
    )


def adapting(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """How far a static plan is from an adaptive one."""
    found = static_and_adaptive(table, rows)
    if not len(found) or "single" not in found.index:
        return NOTHING
    parts = []
    for condition, each in found.loc["single"].iterrows():
        gain = each["gain there"]
        there = f", factor {_times(gain)} there" if np.isfinite(gain) else ""
        parts.append(
            f"{condition} {_times(each['static / best'])} and {_times(each['adaptive / best'])} "
            f"({_percent(each['planned again'])} planned again{there})"
        )
    return (
        "Single requests, times longer than the best, a static plan and an adaptive one: "
        + _list(parts)
    )


def streaming(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Streams, bursts, three models; pipelines."""
    found = streams(table, rows)
    kinds = [name for name in ("camera", "burst", "three") if name in found]
    if not kinds:
        return NOTHING
    order = found[kinds].mean(axis=1).sort_values().index
    parts = [
        f"`{name}` " + ", ".join(_times(found.loc[name, kind]) for kind in kinds)
        for name in order[:SHOWN]
    ]
    late = found["late frames"].dropna()
    text = f"Times longer than the best for {_list(kinds)}, the {SHOWN} best: {_list(parts)}. "
    if len(late):
        named = [f"`{name}` {_percent(late[name])}" for name in order[:SHOWN] if name in late]
        text += f"Late frames: {_list(named)}; most with `{late.idxmax()}`, "
        text += f"{_percent(late.max())}. "
    lines = [
        f"{workload} {_times(each['requests a second / auto'])} times the requests a second (more "
        f"in {_percent(each['more a second in'])} of {each['cases']:.0f} cases, at most "
        f"{_times(each['most'])}) at {_times(each['latency / auto'])} times the latency"
        for workload, each in pipelines(rows).iterrows()
    ]
    return f"{text}`{PIPELINE}` against `{AUTO}`: {'; '.join(lines) if lines else NOTHING}"


def both_levels(rows: pd.DataFrame) -> str:
    """What each level gives, and both together."""
    found = levels(rows)
    if not len(found):
        return NOTHING
    techniques = found[[*FRONTEND, *BACKEND]].dropna(axis=1, how="all")
    parts = [f"{name} {_range(techniques[name])}" for name in techniques]
    more = found["both over one"]
    helped = [f"{model} on {machine}" for model, machine in found.index[more > 1 + GAIN]]
    whom = f", by more than {_percent(GAIN)} for {_list(helped)}" if helped else ""
    return (
        "Best processor alone in float32, no fusion, waits by the driver = 1. One technique alone "
        f"gives (least to most over {len(found)} models on phones): {_list(parts)}. All of the "
        f"frontend {_range(found['frontend'])}, all of the backend {_range(found['backend'])}, "
        f"both {_range(found['both'])}: {_range(more)} times the better level alone (geometric "
        f"mean {_times(geometric(more))}){whom}; {_range(found['both over product'])} times the "
        "product of the two"
    )


def fused(rows: pd.DataFrame) -> str:
    """What fusion adds alone, and beside everything else."""
    found = fusion(rows)
    if not len(found):
        return NOTHING
    parts = [
        f"{name} {_times(geometric(found[name]))} ({_range(found[name])})" for name in found.columns
    ]
    return f"Times without it over times with it, geometric mean (least to most): {_list(parts)}"


def frugal(rows: pd.DataFrame) -> str:
    """Energy by strategy."""
    found = energy(rows)["geometric mean"].dropna().sort_values()
    if not len(found):
        return NOTHING
    parts = [f"`{name}` {_times(value)}" for name, value in found.items()]
    return f"Of a request, times that of the most frugal strategy: {_list(parts)}"


def reuse(rows: pd.DataFrame) -> str:
    """Memory with reuse and without."""
    found = memory(rows)["without / with"].sort_values()
    if not len(found):
        return NOTHING
    return (
        f"Without it a model takes {_times(found.iloc[0])} ({found.index[0]}) to "
        f"{_times(found.iloc[-1])} times ({found.index[-1]}) as much memory"
    )


def _case(row: pd.Series) -> str:
    return f"{row['model']} in {row['precision']} on {row['machine']}"


def _operator(lower: object) -> str:
    """As ONNX writes those that phones here lack."""
    return str(lower).capitalize()


def _bins(table: pd.DataFrame, by: str) -> str:
    return _list(
        [
            f"{name} in {_percent(each['wins'])} of {each['cases']:.0f}"
            for name, each in parallel_gain(table, by).iterrows()
        ]
    )


def _range(values: pd.Series) -> str:
    low, high = _times(values.min()), _times(values.max())
    return low if low == high else f"{low} to {high}"


def _times(value: float) -> str:
    """Three digits below 10, whole numbers above 100."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _list(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
