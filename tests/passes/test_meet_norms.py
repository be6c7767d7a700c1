"""Normalisations of shares that meet: which do, in which order, and what regions become of them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

import coexec
from coexec import zoo
from coexec.core.plan import Plan
from coexec.ops.batch_norm_joint import words_of
from coexec.ops.node import call_of, type_of
from coexec.passes.meet_norms import meet_norms
from coexec.runtime.partition import (
    Part,
    Partitioning,
    exported,
    meeting_places,
    meets,
    partition,
)
from tests.passes.test_batch_parallel import divided, step_graph

BATCH = {"a": 5, "b": 3}
STEPS = {
    "BatchStatistics",
    "JoinStatistics",
    "BatchNormalizationSums",
    "BatchNormalizationFlow",
}


def step(name: str = "sensor_cnn") -> tuple[ir.Model, Plan]:
    model, _ = step_graph(coexec.load(zoo.build(name, batch=8)), 8)
    return model, divided(model, BATCH)


def met(plan: Plan, graph: ir.Graph, processor: str) -> list[ir.Node]:
    return [n for n in graph if meets(n) and plan.processors[str(n.name)] == processor]


def test_each_normalisation_and_gradient_becomes_one_node_of_each_processor() -> None:
    model, plan = step()
    outputs = [value.name for value in model.graph.outputs]
    statistics = sum(node.op_type == "BatchStatistics" for node in model.graph)
    plan = meet_norms(model.graph, plan, {"a", "b"})
    assert STEPS.isdisjoint(node.op_type for node in model.graph)
    assert [value.name for value in model.graph.outputs] == outputs
    assert list(plan.processors) == [node.name for node in model.graph] == list(plan.order)
    for name in BATCH:
        assert len(met(plan, model.graph, name)) == statistics


def test_members_meet_in_words_of_their_own_in_the_same_order_everywhere() -> None:
    model, plan = step()
    plan = meet_norms(model.graph, plan, {"a", "b"})
    calls = {name: [call_of(n) for n in met(plan, model.graph, name)] for name in BATCH}
    offsets = [[call.attributes["offset"] for call in each] for each in calls.values()]
    assert offsets[0] == offsets[1]
    assert [call.attributes["member"] for each in calls.values() for call in each] == (
        [0] * len(calls["a"]) + [1] * len(calls["b"])
    )
    taken = {c.attributes["offset"]: words_of(2, c.input(0).shape[1]) for c in calls["a"]}
    ends = [start + taken[start] for start in sorted(taken)]
    assert sorted(taken) == [0, *ends[:-1]]
    (place,) = meeting_places(model.graph)
    (size,) = [type_of(v).size for n in model.graph for v in n.outputs if v.name == place]
    assert size == ends[-1]


def test_processors_that_cannot_wait_for_each_other_keep_their_exchanges() -> None:
    model, plan = step()
    before = [node.name for node in model.graph]
    assert meet_norms(model.graph, plan, {"a"}) is plan
    assert [node.name for node in model.graph] == before


def behind_what_is_wanted(part: Part, wanted: frozenset[ir.Value]) -> Iterator[ir.Node]:
    """Nodes of a region that stand behind one whose result another processor waits for."""
    since = False
    for node in part.nodes:
        if since:
            yield node
        since |= not wanted.isdisjoint(node.outputs)


def test_a_region_that_others_wait_for_waits_for_nobody_behind_what_they_want() -> None:
    """Else two processors would wait for each other for ever."""
    model, plan = step()
    apart = partition(model.graph, Partitioning(plan, "optimizer"))
    plan = meet_norms(model.graph, plan, {"a", "b"})
    parts = partition(model.graph, Partitioning(plan, "optimizer"))
    assert len(parts) < len(apart)
    names = exported(model.graph, plan)
    # What is read behind the gate only is waited for when all before the gate was handed over.
    late = {n for n in model.graph if n.metadata_props["coexec.phase"] == "optimizer"}
    sent = (v for n in model.graph for v in n.outputs if v.name in names)
    wanted = frozenset(value for value in sent if not late.issuperset(value.consumers()))
    assert wanted
    for part in parts:
        assert not any(meets(node) for node in behind_what_is_wanted(part, wanted))
