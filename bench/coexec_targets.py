"""Targets of co-execution: speedups over one processor, predictions, streams, loads and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.contenders import BOTH
from bench.speed_targets import Line
from bench.statistics import geomean

Record = Mapping[str, Any]

SPLIT, AUTO, SEARCHED = "operator split", "auto", "best ratio found"
BATCH = "batch parallel"
ON_BOTH = tuple(title for _, title in BOTH)
STREAMED = ("a copy on each", "pipeline")
LOADED, BEST_LOADED = "adapted to the load", "best plan found for the load"
TAKEN = "one taken away"
WITHOUT = "without it from then on"
NEAR, STEPS = 1.10, 20
"""After a change, steps are to be within this factor of the best plan's after so many."""
AIMS = {
    "layers": (SPLIT, "at least 1.85x"),
    "models": (AUTO, "geometric mean at least 1.5x, none below 0.98x"),
    "training": (BATCH, "geometric mean at least 1.6x"),
}
"""By what a group begins with: the plan that counts, and its speedup over the best processor."""


def coexecution(suite: Record) -> list[Line]:
    """Speedups by group; how good divisions, predictions and choices are; what was withstood."""
    cases = suite["cases"]
    groups = dict.fromkeys(case["group"] for case in cases)
    lines = [line for group in groups for line in _group(group, cases)]
    lines += _predictions(cases)
    return lines + [line for case in cases for line in _disturbed(case)]


def _predictions(cases: Sequence[Record]) -> list[Line]:
    lines = []
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


def _disturbed(case: Record) -> list[Line]:
    """Cases in which something happens to a processor."""
    rows = {row["peer"]: row for row in case["rows"]}
    lines = []
    if LOADED in rows:
        aim = f"within {NEAR - 1:.0%} of the best plan for it in at most {STEPS} steps"
        lines.append((case["name"], aim, _recovery(rows)))
    if TAKEN in rows:
        aim = "goes on, nothing lost, results as without it"
        lines.append((case["name"], aim, _survival(rows)))
    return lines


def _recovery(rows: Mapping[str, Record]) -> str:
    failed = [f"{name}: {row['error']}" for name, row in rows.items() if "error" in row]
    if failed:
        return "; ".join(failed)
    best, adapted = rows[BEST_LOADED], rows[LOADED]
    found = back(adapted["facts"]["steps_ms"], 1e3 * best["seconds"])
    when = f"not in {STEPS} steps" if found is None else f"after {found} steps"
    happened = adapted["facts"]["adaptations"]
    changed = [f"{kind} after {step}" for step, kind, *_ in happened if 0 < step <= STEPS]
    return (
        f"{when}; then {adapted['ratio']['value']:.2f} of the time of the best plan "
        f"({best['facts']['plan']}); {', '.join(changed) or 'no other plan'}"
    )


def back(steps_ms: Sequence[float], best_ms: float) -> int | None:
    """Steps until one takes the best plan's time, and so do those that follow, by their median.

    None if that never holds, or only for the last two.
    """
    for count in range(len(steps_ms) - 2):
        here, *later = steps_ms[count:]
        if max(here, median([here, *later[:2]]), median([here, *later])) <= NEAR * best_ms:
            return count
    return None


def _survival(rows: Mapping[str, Record]) -> str:
    failed = [f"{name}: {row['error']}" for name, row in rows.items() if "error" in row]
    if WITHOUT not in rows:
        failed.append("held against no other training")
    facts = rows[TAKEN].get("facts", {})
    if not failed and not facts["lost_at"]:
        failed.append("nobody noticed that it was gone")
    if failed:
        return "; ".join(failed)
    return (
        f"{facts['steps']} of {facts['steps_wanted']} steps, losses and states agree; "
        f"the step in which it went took {facts['lost_step_s']:.1f} s"
    )


def _streams(group: str, cases: Sequence[Record]) -> list[Line]:
    gains = {}
    for case in cases:
        found = _seconds(case)
        streamed = [found[name] for name in STREAMED if name in found]
        alone = [time for name, time in found.items() if name not in STREAMED]
        if streamed and alone:
            gains[case["name"]] = min(alone) / min(streamed)
    if not gains:
        return []
    work = f"{group}: the better of {' and '.join(STREAMED)} against the best processor alone"
    return [(work, "throughput at least 1.85x", _spread(gains, "{:.2f}x"))]


def _group(group: str, cases: Sequence[Record]) -> list[Line]:
    counted, target = AIMS.get(group.partition(",")[0], ("", ""))
    own = [case for case in cases if case["group"] == group]
    if group.startswith("streams"):
        return _streams(group, own)
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
    lines += _of_both_cores(group, counted, own)
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
        case["name"]: _speed(case, counted, SEARCHED)
        for case in own
        if {SEARCHED, counted} <= _seconds(case).keys()
    }
    if shares:
        work = f"{group}: speed of {counted} against the best ratio found"
        lines.append((work, "at least 95 %", _spread(shares, "{:.0%}")))
    return lines


def _speed(case: Record, ours: str, theirs: str) -> float:
    """Their time over ours: the median over turns that were neighbours."""
    rows = {row["peer"]: row for row in case["rows"]}
    pairs = zip(rows[ours]["turns"], rows[theirs]["turns"], strict=True)
    return float(median(b / a for a, b in pairs))


def _of_both_cores(group: str, counted: str, cases: Sequence[Record]) -> list[Line]:
    """How fast two processors are beside one runtime that has the cores of both."""
    shares = {}
    for case in cases:
        found = _seconds(case)
        both = [found[name] for name in ON_BOTH if name in found]
        if both and counted in found:
            shares[case["name"]] = min(both) / found[counted]
    if not shares:
        return []
    work = f"{group}: speed of {counted} against the faster runtime on both cores"
    return [(work, "", _spread(shares, "{:.0%}"))]


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
    left_out = (SEARCHED, *ON_BOTH)
    found = {name: time for name, time in _seconds(case).items() if name not in left_out}
    return found[AUTO] / min(found.values()) - 1 if AUTO in found else None


def _seconds(case: Record) -> dict[str, float]:
    return {row["peer"]: row["seconds"] for row in case["rows"] if "seconds" in row}
