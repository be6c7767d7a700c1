"""What replaces an input comes behind all that reads it, or is copied there at the end."""

from __future__ import annotations

import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.passes.carry import carry
from coexec.processors.reference.processor import ReferenceProcessor
from tests.graphs import parse

CPU = {"reference": ReferenceProcessor()}
BOTH = {**CPU, "other": ReferenceProcessor()}


def carried(text: str, state: dict[str, str], **places: str) -> tuple[ir.Graph, Plan]:
    """The graph in its new order, with its plan; ``places`` are processors of nodes by output."""
    graph = specialise(load(parse(text)), {}, {}).graph
    by_node = {str(n.name): places.get(str(n.outputs[0].name), "reference") for n in graph}
    return graph, carry(graph, state, Plan(by_node), BOTH)


def order(graph: ir.Graph) -> list[str]:
    return [str(node.outputs[0].name) for node in graph]


def test_readers_of_the_old_value_come_first() -> None:
    text = "g (float[4] x, float[4] h) => (float[4] n, float[4] y) { n = Add(x, h) y = Mul(x, h) }"
    graph, _ = carried(text, {"n": "h"})
    assert order(graph) == ["y", "n"]


def test_readers_of_a_view_come_first() -> None:
    text = (
        "g (float[4] x, float[2,2] h, float[2,2] m) => (float[2,2] n, float[4] y)"
        " { n = Add(m, h) s = Constant<value_ints = [4]>() v = Reshape(h, s) y = Mul(x, v) }"
    )
    graph, _ = carried(text, {"n": "h"})
    assert order(graph) == ["v", "y", "n"]


def test_what_needs_the_new_value_and_the_old_one_makes_a_copy_necessary() -> None:
    text = "g (float[4] x, float[4] h) => (float[4] n, float[4] y) { n = Add(x, h) y = Mul(n, h) }"
    graph, plan = carried(text, {"n": "h"})
    assert order(graph) == ["n#new", "y", "n"]
    assert graph[-1].op_type == "Identity"
    assert plan.processors.keys() == {str(node.name) for node in graph}
    assert [str(value.name) for value in graph.outputs] == ["n", "y"]


def test_what_reads_the_old_value_twice_is_copied() -> None:
    graph, _ = carried("g (float[4] h) => (float[4] n) { n = Mul(h, h) }", {"n": "h"})
    assert graph[-1].op_type == "Identity"


def test_states_that_need_each_others_old_values_are_copied_once() -> None:
    text = "g (float[4] a, float[4] b) => (float[4] c, float[4] d) { c = Neg(b) d = Abs(a) }"
    graph, _ = carried(text, {"c": "a", "d": "b"})
    copies = [node for node in graph if node.op_type == "Identity"]
    assert len(copies) == 1
    assert order(graph).index("c") > order(graph).index("d#new" if copies[0] is graph[-1] else "d")


def test_an_old_value_that_is_an_output_keeps_memory_of_its_own() -> None:
    text = (
        "g (float[4] x, float[4] h) => (float[4] n, float[2,2] y)"
        " { n = Add(x, h) s = Constant<value_ints = [2, 2]>() y = Reshape(h, s) }"
    )
    graph, _ = carried(text, {"n": "h"})
    assert [node.op_type for node in graph] == ["Where", "Add", "Reshape"]


def test_a_view_for_another_processor_has_memory_of_its_own() -> None:
    text = (
        "g (float[4] x, float[4] h) => (float[4] n, float[2,2] y)"
        " { n = Add(x, h) s = Constant<value_ints = [2, 2]>() v = Reshape(h, s) y = Neg(v) }"
    )
    assert [node.op_type for node in carried(text, {"n": "h"})[0]] == ["Reshape", "Neg", "Add"]
    graph, plan = carried(text, {"n": "h"}, y="other")
    assert [node.op_type for node in graph] == ["Where", "Add", "Reshape", "Neg"]
    assert [*plan.processors.values()].count("other") == 1
