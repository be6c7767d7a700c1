"""What nodes cost that a processor computes as one, with processors whose costs are made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from coexec.core.types import OpCall, Region
from coexec.cost.key import call_key
from coexec.cost.model import ProcessorCosts
from coexec.frontend import load
from coexec.ops.node import call_of
from coexec.placement.build_problem import build_problem
from coexec.placement.fused import calls_made, fused_calls
from tests.graphs import parse
from tests.placement.test_build_problem import costs_of, measured
from tests.placement.test_first_that_can import MadeUp

TEXT = (
    "g (float[1,2,9,4] x, float[8,2,3,3] w) => (float[1,8,9,4] y) "
    "{ [before] a = Abs(x) [conv] b = Conv<pads = [1, 1, 1, 1]>(a, w)"
    " [act] c = Relu(b) [behind] y = Exp(c) }"
)
NODES = ("Abs", "Conv", "Relu", "Exp")
TIMES = {"before": 10.0, "conv": 400.0, "act": 20.0, "behind": 30.0}


class Fusing(MadeUp):
    """Computes ``before``, ``conv``, ``act`` and ``behind`` by one call."""

    def fused(self, region: Region) -> Mapping[str, OpCall | None]:
        by_name = {node.call.name: node.call for node in region.nodes}
        return {**dict.fromkeys(TIMES), "conv": own_call(by_name["conv"])}


def own_call(call: OpCall) -> OpCall:
    return replace(call, op_type="Whole", domain="made.up", name="", like=call)


@pytest.fixture
def model() -> ir.Model:
    return load(parse(TEXT))


@pytest.fixture
def costs(model: ir.Model, tmp_path: Path) -> dict[str, ProcessorCosts]:
    """Of ``a``, which fuses, and ``b``, which does not; every call was measured."""
    found = costs_of(tmp_path, Fusing("a", *NODES), MadeUp("b", *NODES))
    for node in model.graph:
        call = call_of(node)
        measured(found, call, {"a": TIMES[call.name], "b": TIMES[call.name]})
        if call.name == "conv":
            measured(found, own_call(call), {"a": 100.0})
    return found


def test_one_node_has_the_time_of_all_that_a_processor_computes_as_one(
    model: ir.Model, costs: dict[str, ProcessorCosts]
) -> None:
    planned = build_problem(model.graph, costs)
    assert planned.problem.time_us.tolist() == [[0, 10], [100, 400], [0, 20], [0, 30]]
    sources = [[cost.source for cost in row if cost] for row in planned.costs]
    assert sources == [["fused", "measured"], ["measured"] * 2, *[["fused", "measured"]] * 2]


def test_shares_of_it_take_what_they_and_the_nodes_around_take_apart(
    model: ir.Model, costs: dict[str, ProcessorCosts]
) -> None:
    problem = build_problem(model.graph, costs, axes=2).problem
    (channels,) = (way for way in problem.divisions[1] if way.axis == 1)
    assert channels.time_us(0, 8) == 400 + 10 + 20 + 30
    assert channels.time_us(1, 8) == 400


def test_what_a_processor_makes_of_calls_has_its_own_ones(
    model: ir.Model, costs: dict[str, ProcessorCosts]
) -> None:
    calls = [call_of(node) for node in model.graph]
    made = calls_made(calls, fused_calls(model.graph, costs))
    assert {name: [each.op_type for each in found] for name, found in made.items()} == {
        "a": ["Whole"]
    }
    planned = build_problem(model.graph, costs)
    assert [call_key(call) for call in planned.calls_on("b")] == [*map(call_key, calls)]
    assert [call.op_type for call in planned.calls_on("a")] == ["Whole"]
