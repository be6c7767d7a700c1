"""Regions of placed graphs: where one ends for others, and where it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from coexec.core.plan import Plan
from coexec.frontend import load
from coexec.runtime.partition import Partitioning, partition
from tests.graphs import parse


def regions(text: str, places: str) -> Sequence[tuple[str, int]]:
    """Processor and number of nodes of each region; ``places`` are those of the nodes in order."""
    graph = load(parse(text)).graph
    names = [str(node.name) for node in graph]
    parts = partition(graph, Partitioning(Plan(dict(zip(names, places, strict=True)))))
    return [(part.processor, len(part.nodes)) for part in parts]


def shared(size: int) -> str:
    """Keys and values that another processor reads, little work between both."""
    return (
        f"g (float[{size},8] x) => (float[{size},8] y, float[{size},8] z) {{"
        " [a] k = Neg(x) [b] v = Abs(x) [c] s = Exp(v)"
        " [d] p = Neg(k) [e] y = Add(p, v) [f] z = Exp(s) }"
    )


def test_values_for_others_with_little_work_between_them_end_one_region() -> None:
    assert regions(shared(8), "aaabba") == [("a", 2), ("a", 2), ("b", 2)]


def test_a_value_for_others_does_not_wait_for_much_work() -> None:
    large = 1 << 16
    found = regions(shared(large), "aaabba")
    assert found == [("a", 1), ("a", 1), ("a", 2), ("b", 1), ("b", 1)]
