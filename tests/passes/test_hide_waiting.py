"""Work that nobody waits for stands where a processor would wait."""

from __future__ import annotations

import coexec
from coexec.ops.builder import PHASE
from coexec.passes.hide_waiting import hide_waiting, latest_first
from tests.graphs import parse

GRAPH = (
    "g (float[4] x) => (float[4] end) { [one] a = Neg(x) [sum1] s = Abs(a) [two] b = Exp(a)"
    " [there] c = Neg(b) [back] d = Neg(c) [sum2] t = Abs(d) [more] e = Neg(d)"
    " [last] end = Sum(s, t, e) }"
)
PLACES = {"there": "b"}


def test_sums_move_behind_what_others_wait_for() -> None:
    graph = coexec.load(parse(GRAPH)).graph
    nodes = {str(node.name): node for node in graph}
    places = {name: PLACES.get(name, "a") for name in nodes}
    ordered = hide_waiting(list(graph), places, {nodes["sum1"], nodes["sum2"]})
    names = [str(node.name) for node in ordered]
    assert names == ["one", "two", "there", "sum1", "back", "more", "sum2", "last"]


def test_only_a_few_are_held_back() -> None:
    text = "g (float[4] x) => (float[4] y) { [s0] a = Abs(x) [s1] b = Abs(x) [s2] c = Abs(x)"
    graph = coexec.load(parse(text + " [other] d = Neg(x) [y] y = Sum(a, b, c, d) }")).graph
    nodes = list(graph)
    places = {str(node.name): "a" for node in nodes}
    names = [str(n.name) for n in hide_waiting(nodes, places, set(nodes[:3]))]
    assert names == ["s0", "other", "s1", "s2", "y"]


def test_updates_begin_with_what_comes_last() -> None:
    graph = coexec.load(
        parse(
            "g (float[4] x) => (float[4] u, float[4] v) { [early] a = Neg(x) [late] b = Abs(x)"
            " [join1] s = Add(a, x) [update1] u = Neg(s)"
            " [join2] t = Add(b, x) [update2] v = Neg(t) }"
        )
    ).graph
    nodes = {str(node.name): node for node in graph}
    for name, node in nodes.items():
        node.metadata_props[PHASE] = "backward" if name in ("early", "late") else "optimizer"
    ordered = latest_first(list(graph), {nodes["join1"], nodes["join2"]})
    names = [str(node.name) for node in ordered]
    assert names == ["early", "late", "join2", "join1", "update1", "update2"]
