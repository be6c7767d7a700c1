"""Regions of placed graphs: where one ends for others, and where it goes on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coexec.core.plan import Plan
from coexec.frontend import load
from coexec.ops.builder import MEETING
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


def meeting_regions(text: str, places: str, state: dict[str, str]) -> Sequence[tuple[str, str]]:
    """Processor and nodes of each region, by their names; who reads ``p`` meets others."""
    graph = load(parse(text)).graph
    nodes = list(graph)
    nodes[0].outputs[0].metadata_props[MEETING] = "1"
    plan = Plan(dict(zip((str(node.name) for node in nodes), places, strict=True)))
    how = Partitioning(plan, "optimizer", state, free_phase="forward", reuses=True)
    return [
        (each.processor, " ".join(str(n.name) for n in each.nodes))
        for each in partition(graph, how)
    ]


MINE = "[m0] a0 = Add(p, x)"
THEIRS = "[n0] b0 = Sub(p, x) [reads] r = Mul(b0, w)"


@pytest.mark.parametrize(
    ("begun", "places"), [(f"{MINE} {THEIRS}", "abb"), (f"{THEIRS} {MINE}", "bba")], ids=["a", "b"]
)
def test_what_waits_for_the_readers_of_a_state_waits_for_no_later_meeting(
    begun: str, places: str
) -> None:
    """Else the last of those would wait, in the region of the reader, for who waits for that."""
    found = meeting_regions(
        "g (float[4] w, float[4] x) => (float[4] new, float[4] y, float[4] z) {"
        f" [place] p = Neg(x) {begun}"
        " [replaces] new = Mul(w, a0) [m1] y = Add(p, a0) [n1] z = Sub(p, r) }",
        f"a{places}aab",
        {"new": "w"},
    )
    assert found[0] == ("a", "place")
    assert sorted(found[1:3]) == [("a", "m0"), ("b", "n0 reads")]
    assert found[3:] == [("a", "replaces m1"), ("b", "n1")]


def test_who_has_read_what_others_made_tells_so_before_it_meets_them_again() -> None:
    found = meeting_regions(
        "g (float[4] x) => (float[4] y, float[4] z) {"
        " [place] p = Neg(x) [n0] b0 = Sub(p, x) [m0] a0 = Add(p, x) [made] s = Exp(a0)"
        " [reads] r = Mul(b0, s) [n1] z = Sub(p, r) [m1] y = Add(p, a0) }",
        "abaabba",
        {},
    )
    assert found == [
        ("a", "place"),
        ("b", "n0"),
        ("a", "m0 made"),
        ("b", "reads"),
        ("b", "n1"),
        ("a", "m1"),
    ]
