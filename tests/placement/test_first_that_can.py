"""The first processor in the user's order that supports a node gets it; no device is needed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import pytest

from coexec.base.errors import ProcessorError
from coexec.core.events import Event
from coexec.core.plan import Plan, Refusal
from coexec.core.processor import (
    Buffer,
    Executable,
    Host,
    Processor,
    ProcessorSpec,
    Support,
    Ticket,
)
from coexec.core.types import OpCall, Region
from coexec.frontend import load
from coexec.placement.policies.first_that_can import place
from tests.graphs import parse

TEXT = (
    "g (float[2,3] x, float[3,2] w) => (float[2,2] y, float[2,3] z) "
    "{ [act] a = Relu(x) [product] b = MatMul(a, w) [last] y = Exp(b) [other] z = Relu(a) }"
)


class MadeUp(Processor):
    """Supports the operators it is told to; nothing here may run it."""

    def __init__(self, name: str, *operators: str, reason: str = "") -> None:
        self.name = name
        self.operators = operators
        self.reason = reason or f"{name} is picky"
        self.asked: list[str] = []

    def supports(self, call: OpCall) -> Support:
        self.asked.append(call.name)
        yes = call.identifier in self.operators
        return Support(yes, "" if yes else self.reason)

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(self.name, "made up", "none")

    def compile(self, region: Region) -> Executable:
        raise AssertionError("placement compiles nothing")

    def alloc(self, nbytes: int) -> Buffer:
        raise AssertionError("placement allocates nothing")

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Ticket:
        raise AssertionError("placement copies nothing")

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Ticket:
        raise AssertionError("placement runs nothing")

    def wait(self, ticket: Ticket) -> Event:
        raise AssertionError("placement waits for nothing")


@pytest.fixture
def graph() -> ir.Graph:
    return load(parse(TEXT)).graph


def plan_of(graph: ir.Graph, *processors: MadeUp) -> Plan:
    return place(graph, {processor.name: processor for processor in processors})


def test_all_on_the_first_if_it_can(graph: ir.Graph) -> None:
    first, second = MadeUp("a", "Relu", "MatMul", "Exp"), MadeUp("b", "Relu", "MatMul", "Exp")
    plan = plan_of(graph, first, second)
    assert plan.processors == dict.fromkeys(("act", "product", "last", "other"), "a")
    assert plan.refusals == ()
    assert plan.table() == ""
    assert second.asked == []


def test_each_node_goes_to_the_first_that_can(graph: ir.Graph) -> None:
    npu = MadeUp("npu", "MatMul", reason="only products")
    gpu = MadeUp("gpu", "MatMul", "Relu", reason="no exponentials")
    cpu = MadeUp("cpu", "MatMul", "Relu", "Exp")
    plan = plan_of(graph, npu, gpu, cpu)
    assert plan.processors == {"act": "gpu", "product": "npu", "last": "cpu", "other": "gpu"}
    assert sorted(plan.refusals, key=lambda r: (r.node, r.processor)) == [
        Refusal("act", "Relu", "npu", "only products"),
        Refusal("last", "Exp", "gpu", "no exponentials"),
        Refusal("last", "Exp", "npu", "only products"),
        Refusal("other", "Relu", "npu", "only products"),
    ]


def test_the_order_of_the_processors_decides(graph: ir.Graph) -> None:
    every = ("Relu", "MatMul", "Exp")
    assert set(plan_of(graph, MadeUp("a", *every), MadeUp("b", *every)).processors.values()) == {
        "a"
    }
    assert set(plan_of(graph, MadeUp("b", *every), MadeUp("a", *every)).processors.values()) == {
        "b"
    }


def test_refusals_become_one_table(graph: ir.Graph) -> None:
    npu = MadeUp("npu", "MatMul", reason="only products")
    cpu = MadeUp("cpu", "MatMul", "Relu", "Exp")
    lines = plan_of(graph, npu, cpu).table().splitlines()
    assert lines == [
        "Exp x1 not on npu: only products (last)",
        "Relu x2 not on npu: only products (act, other)",
    ]


def test_long_lists_of_nodes_are_cut_in_the_table() -> None:
    chain = " ".join(f"[n{i}] a{i + 1} = Relu(a{i})" for i in range(5))
    graph = load(parse(f"g (float[2] a0) => (float[2] a5) {{ {chain} }}")).graph
    plan = plan_of(graph, MadeUp("npu"), MadeUp("cpu", "Relu"))
    assert plan.table() == "Relu x5 not on npu: npu is picky (n0, n1, n2, ...)"


def test_a_node_that_nobody_supports_is_an_error_with_every_reason(graph: ir.Graph) -> None:
    npu = MadeUp("npu", "MatMul", "Relu", reason="only products")
    gpu = MadeUp("gpu", "Relu", reason="no exponentials")
    with pytest.raises(ProcessorError) as caught:
        plan_of(graph, npu, gpu)
    assert str(caught.value) == (
        "no processor executes Exp 'last': npu: only products; gpu: no exponentials"
    )
