"""How long planning takes: made-up networks on three processors, every policy by itself."""

from __future__ import annotations

from bench.case import Case, Suite

FAST, EXACT = "planning.fast", "planning.exact"
SIZES = (100, 300, 1_000, 3_000, 10_000)
EXACT_SIZE = 30


def _case(kind: str, nodes: int, quick: bool = False) -> Case:
    group = kind.partition(".")[2]
    return Case(f"{nodes:,} nodes, {group}", kind, {"nodes": nodes}, group, quick=quick)


SUITE = Suite(
    "planning",
    "Planning for three processors",
    (*(_case(FAST, n, quick=n <= 1_000) for n in SIZES), _case(EXACT, EXACT_SIZE)),
    seconds=0.01,
    turns=2,
    pause=0.0,
    minutes=4.0,
    alone=True,
)
