"""Findings of the published study, one by one: a criterion, what the data say, the verdict.

Source: "Optimizing on-device parallel inference on heterogeneous processors" (arXiv 2405.01851).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from data import ADAPTIVE, AUTO, GAIN, contexts, done, plain
from levels import levels
from strategies import against_alone, fallbacks, memory, regret, static_and_adaptive

REPRODUCED, PARTLY, NOT = "reproduced", "in part", "not reproduced"
UNKNOWN = "cannot be told"
OFTEN = 0.05
"""Of the cases: what happens less often is none."""
COSTLY = 1.5
LEVELS_GAIN = 0.05
REUSE = 1.1


@dataclass(frozen=True)
class Finding:
    """What was published; by which ``criterion`` it is judged; what is seen here."""

    claim: str
    criterion: str
    seen: str
    verdict: str


def findings(rows: pd.DataFrame) -> list[Finding]:
    """All of them."""
    table = contexts(rows)
    judges: list[Callable[[], Finding]] = [
        lambda: _no_winner(table),
        lambda: _one_processor(table),
        lambda: _costly_fallbacks(rows),
        lambda: _frequent_fallbacks(rows),
        lambda: _both_levels(rows),
        _profiling,
        lambda: _reuse(rows),
        lambda: _adaptive(table, rows),
    ]
    return [judge() for judge in judges]


def markdown(found: list[Finding]) -> str:
    """A table of them."""
    lines = ["| finding | criterion | here | verdict |", "|---|---|---|---|"]
    lines += [f"| {f.claim} | {f.criterion} | {f.seen} | {f.verdict} |" for f in found]
    return "\n".join(lines)


def _no_winner(table: pd.DataFrame) -> Finding:
    best = regret(table)["is the best"].dropna()
    claim = "no strategy wins everywhere"
    rule = (
        f"each strategy is more than {_percent(GAIN)} from the best in {_percent(OFTEN)} of cases"
    )
    if not len(best):
        return _missing(claim, rule)
    top = best.idxmax()
    missed = 1 - best[top]
    seen = f"the most frequent winner, `{top}`, is not the best in {_percent(missed)}"
    return Finding(claim, rule, seen, REPRODUCED if missed >= OFTEN else NOT)


def _one_processor(table: pd.DataFrame) -> Finding:
    claim = "one processor alone is sometimes best"
    rule = f"no plan on several is more than {_percent(GAIN)} faster in {_percent(OFTEN)} of cases"
    own = against_alone(table)
    if not len(own):
        return _missing(claim, rule)
    share = (own["gain"] <= 1 + GAIN).mean()
    return Finding(claim, rule, f"in {_percent(share)}", REPRODUCED if share >= OFTEN else NOT)


def _costly_fallbacks(rows: pd.DataFrame) -> Finding:
    claim = "unsupported operators and their fallbacks are costly"
    rule = f"one missing operator costs {COSTLY} times the time on most phones and operators"
    found = fallbacks(rows)
    if not len(found):
        return _missing(claim, rule)
    costs = found["NPU / whole"]
    share = (costs >= COSTLY).mean()
    seen = (
        f"{costs.min():.1f} to {costs.max():.1f} times; {_percent(share)} of {len(costs)} so costly"
    )
    return Finding(claim, rule, seen, _by_share(share))


def _frequent_fallbacks(rows: pd.DataFrame) -> Finding:
    claim = "... and frequent"
    rule = "none: which operators the NPUs here lack is assumed"
    own = plain(done(rows))
    own = own[(own["strategy"] == "npu") & (own["workload"] == "single")]
    own = own[(own["condition"] == "idle") & (own["precision"] == "int8")]
    refused = (own["refused"] > 0).sum()
    seen = f"they lack something for {refused} of {len(own)} models on phones in int8"
    return Finding(claim, rule, seen, UNKNOWN)


def _both_levels(rows: pd.DataFrame) -> Finding:
    claim = "gains need both levels together"
    rule = f"both give {_percent(LEVELS_GAIN)} more than the better level for most models on phones"
    found = levels(rows)
    if not len(found):
        return _missing(claim, rule)
    more = found["both over one"]
    share = (more >= 1 + LEVELS_GAIN).mean()
    seen = f"for {(more >= 1 + LEVELS_GAIN).sum()} of {len(more)}, at most {more.max():.2f} times"
    return Finding(claim, rule, seen, _by_share(share))


def _profiling() -> Finding:
    return Finding(
        "runtime latency profiling is needed",
        "none: all plans here know the predicted times",
        "only what `adaptive` sees while it runs",
        UNKNOWN,
    )


def _reuse(rows: pd.DataFrame) -> Finding:
    claim = "memory allocation should know of reuse"
    rule = f"without it most models take {REUSE} times the memory"
    found = memory(rows)["without / with"]
    if not len(found):
        return _missing(claim, rule)
    share = (found >= REUSE).mean()
    seen = f"{found.min():.2f} to {found.max():.2f} times; {_percent(share)} of {len(found)} models"
    return Finding(claim, rule, seen, _by_share(share))


def _adaptive(table: pd.DataFrame, rows: pd.DataFrame) -> Finding:
    claim = "scheduling should adapt"
    rule = (
        f"`{ADAPTIVE}` is {_percent(GAIN)} faster than `{AUTO}` (geometric mean, single requests) "
        "under every condition but idle"
    )
    found = static_and_adaptive(table, rows)
    changed = (
        found.loc["single"].drop("idle", errors="ignore") if "single" in found.index else found
    )
    if not len(changed):
        return _missing(claim, rule)
    gains = changed["static / adaptive"]
    seen = ", ".join(f"{name} {gain:.3f}" for name, gain in gains.items())
    return Finding(claim, rule, seen, _by_share((gains >= 1 + GAIN).mean(), all_of_them=True))


def _by_share(share: float, all_of_them: bool = False) -> str:
    if share >= 1.0 or (share > 0.5 and not all_of_them):
        return REPRODUCED
    return PARTLY if share else NOT


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _missing(claim: str, rule: str) -> Finding:
    return Finding(claim, rule, "no such cell has a result", UNKNOWN)
