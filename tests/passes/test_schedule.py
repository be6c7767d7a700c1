"""Order of nodes: topological, and the optimizer after everything it would spoil."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from coexec.frontend import load
from coexec.ops.builder import PHASE
from coexec.passes.schedule import schedule
from tests.graphs import parse

TEXT = (
    "g (float[2] x, float[2] p) => (float[2] n, float[2] y, float[2] m) "
    "{ [step] n = Sub(p, x) [forward] a = Mul(x, p) [backward] y = Neg(a) [copy] m = Abs(n) }"
)


def graph_of(text: str = TEXT) -> ir.Graph:
    return load(parse(text)).graph


def order(graph: ir.Graph) -> list[str]:
    return [str(node.name) for node in graph]


def mark(graph: ir.Graph, **phases: str) -> None:
    for node in graph:
        if node.name in phases:
            node.metadata_props[PHASE] = phases[node.name]


def test_optimizer_nodes_come_last() -> None:
    graph = graph_of()
    mark(graph, step="optimizer", forward="forward", backward="backward")
    schedule(graph)
    assert order(graph)[:2] == ["forward", "backward"]
    assert order(graph).index("step") > 1


def test_what_reads_an_optimizer_node_comes_after_it() -> None:
    """Copies in front of outputs have no phase: they must not be left before what they copy."""
    graph = graph_of()
    mark(graph, step="optimizer")
    schedule(graph)
    assert order(graph) == ["forward", "backward", "step", "copy"]


def test_a_chain_behind_the_optimizer_keeps_its_order() -> None:
    text = (
        "g (float[2] x) => (float[2] d, float[2] e) "
        "{ [o] a = Neg(x) [p] b = Abs(a) [q] c = Exp(b) [r] d = Log(c) [f] e = Sin(x) }"
    )
    graph = graph_of(text)
    mark(graph, o="optimizer", q="optimizer")
    schedule(graph)
    assert order(graph) == ["f", "o", "p", "q", "r"]


def test_without_an_optimizer_the_order_is_topological() -> None:
    graph = graph_of()
    first = graph[0]
    graph.remove(first)
    graph.append(first)  # step now stands behind copy, which reads it
    assert order(graph)[-2:] == ["copy", "step"]
    schedule(graph)
    assert order(graph).index("step") < order(graph).index("copy")
    assert order(graph).index("forward") < order(graph).index("backward")


@pytest.mark.parametrize("times", [1, 2])
def test_scheduling_twice_changes_nothing(times: int) -> None:
    graph = graph_of()
    mark(graph, step="optimizer")
    for _ in range(times):
        schedule(graph)
    assert order(graph) == ["forward", "backward", "step", "copy"]
