"""What suites set out to reach beyond ratios to peers, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bench.coexec_targets import coexecution
from bench.curve import growth, lines
from bench.speed_targets import SPEED_TARGETS, Line

Record = Mapping[str, Any]


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
