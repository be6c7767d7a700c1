"""What suites set out to reach beyond ratios to peers, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Any

from bench.curve import growth, lines
from bench.speed_targets import SPEED_TARGETS, Line
from bench.statistics import geomean

Record = Mapping[str, Any]

SPLIT, AUTO, SEARCHED = "operator split", "auto", "best ratio found"
BATCH = "batch parallel"
AIMS = {
    "layers": (SPLIT, "at least 1.85x"),
    "models": (AUTO, "geometric mean at least 1.5x, none below 0.98x"),
    "training": (BATCH, "geometric mean at least 1.6x"),
}
"""By what a group begins with: the plan that counts, and its speedup over the best processor."""


def coexecution(suite: Record) -> list[Line]:
    """Speedups of each group, how good divisions, predictions and choices are."""
    cases = suite["cases"]
    groups = dict.fromkeys(case["group"] for case in cases)
    lines = [line for group in groups for line in _group(group, cases)]
    errors = [
        abs(1e-3 * row["facts"]["predicted_ms"] / row["seconds"] - 1)
        for case in cases
        for row in case["rows"]
        if "seconds" in row and "predicted_ms" in row["facts"]
    ]
    if errors:
        text = f"median {median(errors):.1%} of {len(errors)} plans"
        lines.append(("predicted makespan against measured", "at most 10 %", text))
    behind = {case["name"]: found for case in cases if (found := _behind_best(case)) is not None}
    if behind:
        worst = max(behind, key=lambda name: behind[name])
        text = f"median {median(behind.values()):.1%}, most {behind[worst]:.1%} ({worst})"
        lines.append(("auto's plan behind the best plan that was run", "at most 3 %", text))
    return lines


def _group(group: str, cases: Sequence[Record]) -> list[Line]:
    counted, target = AIMS.get(group.partition(",")[0], ("", ""))
    own = [case for case in cases if case["group"] == group]
    gains = {
        case["name"]: 1 / row["ratio"]["value"]
        for case in own
        for row in case["rows"]
        if row["peer"] == counted and "ratio" in row
    }
    lines = []
    if gains:
        work = f"{group}: {counted} against the best processor alone"
        lines.append((work, target, _spread(gains, "{:.2f}x")))
    reached = {
        name: gain / bound
        for case in own
        if (name := case["name"]) in gains
        for gain, bound in [(gains[name], _bound(case))]
        if bound
    }
    if reached:
        work = f"{group}: of the speedup that the rates of both allow"
        lines.append((work, "", _spread(reached, "{:.0%}")))
    shares = {
        case["name"]: found[SEARCHED] / found[counted]
        for case in own
        if {SEARCHED, counted} <= (found := _seconds(case)).keys()
    }
    if shares:
        work = f"{group}: speed of {counted} against the best ratio found"
        lines.append((work, "at least 95 %", _spread(shares, "{:.0%}")))
    return lines


def _spread(values: Mapping[str, float], form: str) -> str:
    least = min(values, key=lambda name: values[name])
    mean = form.format(geomean(list(values.values())))
    return f"geometric mean {mean}, least {form.format(values[least])} ({least})"


def _bound(case: Record) -> float:
    """The speedup over the faster processor if both worked at their own rates all the time."""
    alone = [row["seconds"] for row in case["rows"] if not row["ours"] and "seconds" in row]
    return sum(min(alone) / each for each in alone) if len(alone) > 1 else 0.0


def _behind_best(case: Record) -> float | None:
    """How much longer auto takes than the fastest plan, one processor alone being a plan too."""
    found = {name: time for name, time in _seconds(case).items() if name != SEARCHED}
    return found[AUTO] / min(found.values()) - 1 if AUTO in found else None


def _seconds(case: Record) -> dict[str, float]:
    return {row["peer"]: row["seconds"] for row in case["rows"] if "seconds" in row}


def planning(suite: Record) -> list[Line]:
    """Time of the slowest policy on a thousand nodes, growth, and the exact search."""
    found = lines(suite)
    known = {policy: dict(points).get(THOUSAND) for policy, points in found.items()}
    slow = {policy: seconds for policy, seconds in known.items() if seconds is not None}
    result = []
    if slow:
        worst = max(slow, key=lambda policy: slow[policy])
        text = f"at most {slow[worst]:.2f} s ({worst})"
        result.append(("1,000 nodes on three processors", "at most 1 s", text))
    grown = {policy: growth(points) for policy, points in found.items() if len(points) > 1}
    if grown:
        worst = max(grown, key=lambda policy: grown[policy])
        text = f"at most {grown[worst]:.1f} times as long ({worst})"
        result.append(("ten times the nodes", "near linear", text))
    exact = [
        (case["name"], row)
        for case in suite["cases"]
        for row in case["rows"]
        if "proved" in row["facts"] and "seconds" in row
    ]
    for name, row in exact:
        proved = "proved best" if row["facts"]["proved"] else "not proved best"
        result.append((name, "at most 60 s", f"{row['seconds']:.1f} s, {proved}"))
    return result


THOUSAND = 1_000

TARGETS: Mapping[str, Callable[[Record], Sequence[Line]]] = MappingProxyType(
    {**SPEED_TARGETS, "coexec": coexecution, "planning": planning}
)
"""By the suite's name."""
