"""Divisions of real graphs' nodes with made-up costs, and plans with shares in files."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from coexec.base.errors import ModelError
from coexec.base.window import Window
from coexec.core.plan import Plan, Split
from coexec.cost.distribution import Distribution
from coexec.cost.key import call_key
from coexec.cost.store import Entry
from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.ops.node import call_of
from coexec.ops.split import share_call
from coexec.ops.split_rules import way
from coexec.placement.build_problem import build_problem
from coexec.placement.divide import divide
from coexec.placement.policies.operator_split import operator_split
from coexec.placement.policies.table import rank
from coexec.placement.save import OVERLAP, SHARES, load_plan, read_plan, save_plan, write_plan
from coexec.placement.timeline import simulate
from tests.graphs import parse
from tests.placement.test_build_problem import costs_of, measured
from tests.placement.test_first_that_can import MadeUp

TEXT = (
    "g (float[1,2,9,4] x, float[8,2,3,3] w) => (float[1,8,9,4] y) "
    "{ [conv] a = Conv<pads = [1, 1, 1, 1]>(x, w) [act] y = Relu(a) }"
)
NODES = ("Conv", "Relu")


@pytest.fixture
def model() -> ir.Model:
    return load(parse(TEXT))


@pytest.fixture
def shared_plan(model: ir.Model) -> Plan:
    split = Split(2, {"b": 5, "a": 4}, overlap=(1, 0))
    processors = {str(node.name): "b" for node in model.graph}
    return Plan(processors, order=("conv", "act"), splits={"conv": split, "act": split})


def test_divisions_have_windows_and_measured_shares(model: ir.Model, tmp_path: Path) -> None:
    costs = costs_of(tmp_path, MadeUp("a", *NODES), MadeUp("b", "Relu"))
    conv = call_of(next(iter(model.graph)))
    measured(costs, conv, {"a": 80.0})
    half = share_call(conv, way(conv, 1), 0, 4)
    costs["a"].store.put(call_key(half), Entry(Distribution(60, 60, 60), "Conv"))
    problem = build_problem(model.graph, costs, axes=3).problem
    channels, rows = problem.divisions[0]
    assert (channels.axis, channels.count, rows.axis, rows.count) == (1, 8, 2, 9)
    # Weights are no constants here: each share reads its own.
    assert channels.windows == (None, Window(0, 8))
    assert rows.windows == (Window(2, 9, 1, 1, 3), None)
    # A launch takes 2 us; half was measured, the rest lies in between; the other refuses.
    assert [channels.time_us(0, units) for units in (0, 4, 6, 8)] == [2, 60, 70, 80]
    assert rows.time_us(0, 9) == 80
    assert channels.time_us(1, 4) == float("inf")
    assert not build_problem(model.graph, costs).problem.divisions


def test_a_plan_with_shares_is_one_by_names(model: ir.Model, tmp_path: Path) -> None:
    costs = costs_of(tmp_path, MadeUp("a", *NODES), MadeUp("b", *NODES))
    for node in model.graph:
        measured(costs, call_of(node), {"a": 4000.0, "b": 4000.0})
    planned = build_problem(model.graph, costs, axes=3)
    plan = planned.plan(rank(planned.problem, "operator_split").chosen)
    assert set(plan.splits) == {"conv", "act"}
    assert plan.splits["conv"] == plan.splits["act"]
    assert set(plan.splits["conv"].sizes) == {"a", "b"}
    assert plan.predicted_us == pytest.approx(4000, rel=0.2)


ATTENTION = """
g (float[1,8,12] x, float[12,36] v) => (float[1,8,12] y) {
  heads = Constant<value = int64[4] {0, 8, 3, 4}>()
  flat = Constant<value = int64[3] {0, 8, 12}>()
  [all] a = MatMul(x, v)
  [parts] p, r, s = Split<axis = -1, num_outputs = 3>(a)
  [q3] q3 = Reshape(p, heads) [q] q = Transpose<perm = [0, 2, 1, 3]>(q3)
  [k3] k3 = Reshape(r, heads) [k] k = Transpose<perm = [0, 2, 3, 1]>(k3)
  [v3] v3 = Reshape(s, heads) [u] u = Transpose<perm = [0, 2, 1, 3]>(v3)
  [scores] m = MatMul(q, k) [weights] n = Softmax<axis = -1>(m) [mix] o = MatMul(n, u)
  [back] t = Transpose<perm = [0, 2, 1, 3]>(o) [flat] f = Reshape(t, flat) [sum] y = Add(x, f)
}
"""
"""Self-attention of eight tokens."""


def test_attention_is_divided_by_tokens_with_one_exchange(tmp_path: Path) -> None:
    model = specialise(load(parse(ATTENTION)))
    kinds = {node.op_type for node in model.graph}
    costs = costs_of(tmp_path, MadeUp("a", *kinds), MadeUp("b", *kinds))
    for node in model.graph:
        if node.op_type != "Reshape":
            measured(costs, call_of(node), {"a": 2e4, "b": 2e4})
    problem = build_problem(model.graph, costs, axes=3).problem
    schedule = operator_split(problem)
    # The keys' tokens are the last axis, the fourth; views divide with the rest.
    axes = {
        task.name: problem.divisions[index][schedule.shares[index].division].axis
        for index, task in enumerate(problem.tasks)
        if index in schedule.shares
    }
    assert (axes["k"], axes["q"], axes["scores"], axes["flat"]) == (3, 2, 2, 1)
    assert len(axes) == len(problem.tasks)
    plain = divide(problem, schedule)
    operators = [task.operator for task in plain.problem.tasks]
    assert (operators.count("Split"), operators.count("Concat")) == (2, 4)
    between = [
        move
        for move in simulate(plain.problem, plain.schedule).moves
        if problem.host not in (move.source, move.target)
    ]
    assert len(between) == 4


def test_shares_are_saved_and_read_back(model: ir.Model, shared_plan: Plan, tmp_path: Path) -> None:
    save_plan(model, shared_plan, tmp_path / "plan.onnx")
    assert load_plan(tmp_path / "plan.onnx")[1] == shared_plan
    proto = onnx.load(tmp_path / "plan.onnx")
    onnx.checker.check_model(proto)
    (spec,) = proto.graph.node[0].device_configurations[0].sharding_spec
    (dimension,) = spec.sharded_dim
    assert (list(spec.device), dimension.axis) == ([0, 1], 2)
    assert (dimension.simple_sharding[0].dim_value, dimension.simple_sharding[0].num_shards) == (
        9,
        2,
    )
    again = write_plan(write_plan(model, shared_plan), Plan(shared_plan.processors))
    assert not read_plan(again).splits


def test_shares_of_other_tools_are_equal_and_damaged_ones_refused(
    model: ir.Model, shared_plan: Plan
) -> None:
    marked = write_plan(model, shared_plan)
    conv = next(iter(marked.graph))
    del conv.metadata_props[SHARES]
    assert read_plan(marked).splits["conv"].sizes == {"b": 4, "a": 5}
    for text in ("4", "4,4", "9,0", "many"):
        conv.metadata_props[SHARES] = text
        with pytest.raises(ModelError, match="conv"):
            read_plan(marked)
    del conv.metadata_props[SHARES]
    for text in ("1", "-1,0", "1,0,0", "some"):
        conv.metadata_props[OVERLAP] = text
        with pytest.raises(ModelError, match="conv"):
            read_plan(marked)
