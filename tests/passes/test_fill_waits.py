"""Gradients of weights fill the waits of a divided step: the same bits, in another order."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec.core.plan import Plan
from coexec.frontend import load
from coexec.ops.builder import PHASE
from coexec.passes import fill_waits as ordering
from coexec.passes.fill_waits import fill_waits
from coexec.runtime.partition import Partitioning, partition
from tests.graphs import evaluate, parse
from tests.passes.test_batch_parallel import divided, step_graph
from tests.pipeline.small import network

BATCH = {"a": 4, "b": 3}
STEP = (
    "g (float[{rows}, 64] x, float[64, 64] d, float[64, 64] w) => (float[64, 64] y, "
    "float[64, 64] z, float[64, 64] u) {{ [c] c = Neg(d) [dw] g = MatMul(x, c) "
    "[dx] e = MatMul(c, w) [sum_a] s = Neg(e) [sum_b] t = Abs(d) [both_a] y = Add(s, t) "
    "[both_b] z = Add(s, t) [update] u = Sub(w, g) }}"
)
"""Two processors sum; where the gradient of a weight stands, one of them is late."""


def ordered(rows: int) -> list[str]:
    """The order of a step whose gradient has so many rows; its operand has 64."""
    model = load(parse(STEP.format(rows=rows)), {})
    for node in model.graph:
        node.metadata_props[PHASE] = "optimizer" if node.name == "update" else "backward"
    places = {str(n.name): "b" if str(n.name).endswith("_b") else "a" for n in model.graph}
    plan = fill_waits(model.graph, Plan(places))
    assert plan.order == tuple(names(model.graph))
    return names(model.graph)


def names(graph: ir.Graph) -> list[str]:
    return [str(node.name) for node in graph]


LATER = ["c", "dx", "sum_a", "sum_b", "dw", "both_a", "both_b", "update"]


def test_a_gradient_of_a_weight_runs_where_the_other_part_of_a_sum_is_waited_for() -> None:
    assert ordered(rows=64) == LATER


def test_what_would_need_more_memory_than_allowed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small gradient instead of its large operand is less to keep."""
    assert ordered(rows=1) == ["c", "dw", "dx", "sum_a", "sum_b", "both_a", "both_b", "update"]
    monkeypatch.setattr(ordering, "GROWTH", 1.0)
    assert ordered(rows=1) == LATER


@pytest.mark.parametrize("dropout", [False, True])
def test_a_divided_step_computes_the_same_bits(dropout: bool) -> None:
    model, feeds = step_graph(coexec.load(network(dropout=dropout)), sum(BATCH.values()))
    plan = divided(model, BATCH)
    before, expected = names(model.graph), evaluate(model, feeds)
    parts = len(partition(model.graph, Partitioning(plan, "optimizer")))
    changed = fill_waits(model.graph, plan)
    assert names(model.graph) != before
    assert sorted(names(model.graph)) == sorted(before)
    for name, array in evaluate(model, feeds).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    # Processors still wait for each other at sums only.
    assert len(partition(model.graph, Partitioning(changed, "optimizer"))) <= parts + 2


def test_a_step_without_exchanges_stays_as_it_is() -> None:
    model, _ = step_graph(coexec.load(network(dropout=False)), 4)
    before = names(model.graph)
    fill_waits(model.graph, Plan(dict.fromkeys(before, "a")))
    assert names(model.graph) == before
