"""From graphs to planning problems, with processors whose costs are made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from coexec.base.errors import ModelError, ProcessorError
from coexec.core.machine import Link, Rates
from coexec.core.plan import Plan, Refusal
from coexec.core.processor import ProcessorSpec
from coexec.core.types import OpCall
from coexec.cost.distribution import Distribution
from coexec.cost.key import call_key
from coexec.cost.model import LINKS, ProcessorCosts
from coexec.cost.store import CostStore, Entry
from coexec.frontend import load
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of
from coexec.placement import build_problem as build
from coexec.placement.build_problem import Planned, States, build_problem
from coexec.placement.policies.table import rank
from coexec.placement.save import load_plan, read_plan, save_plan, write_plan
from tests.graphs import parse
from tests.placement.test_first_that_can import MadeUp

TEXT = (
    "g (float[2,3] x, float[3,2] w) => (float[2,2] y, float[2,3] z) "
    "{ [act] a = Relu(x) [product] b = MatMul(a, w) [last] y = Exp(b) [other] z = Relu(a) }"
)
EVERY = ("Relu", "MatMul", "Exp")
RATES = Rates({"float32": 1.0}, 1.0, 2.0, 3.0, {"write": Link(5.0, 1.0), "read": Link(7.0, 2.0)})


@pytest.fixture
def model() -> ir.Model:
    return load(parse(TEXT))


def costs_of(folder: Path, *processors: MadeUp) -> dict[str, ProcessorCosts]:
    return {
        each.name: ProcessorCosts(each, RATES, CostStore(each.describe(), "test", folder))
        for each in processors
    }


class On(MadeUp):
    """Computes on some silicon."""

    def __init__(self, name: str, silicon: tuple[str, ...]) -> None:
        super().__init__(name, *EVERY)
        self.silicon = silicon

    def describe(self) -> ProcessorSpec:
        return replace(super().describe(), resources=self.silicon)


def measured(costs: Mapping[str, ProcessorCosts], call: OpCall, times: Mapping[str, float]) -> None:
    for name, us in times.items():
        entry = Entry(Distribution(us, us / 2, us * 2), call.identifier)
        costs[name].store.put(call_key(call), entry)


def test_tasks_tensors_and_costs_with_their_sources(model: ir.Model, tmp_path: Path) -> None:
    costs = costs_of(tmp_path, MadeUp("a", *EVERY), MadeUp("b", *EVERY))
    product = next(call_of(node) for node in model.graph if node.name == "product")
    measured(costs, product, {"a": 40.0})
    planned = build_problem(model.graph, costs)
    problem = planned.problem
    assert [task.name for task in problem.tasks] == ["act", "product", "last", "other"]
    tensors = {tensor.name: tensor for tensor in problem.tensors}
    assert {name for name, t in tensors.items() if t.fetched} == {"y", "z"}
    assert tensors["x"].producer is tensors["x"].home is None
    assert (tensors["a"].producer, tensors["a"].nbytes) == (0, 24)
    found = planned.costs[1]
    assert [cost.source for cost in found if cost] == ["measured", "roofline"]
    assert problem.time_us[1, 0] == 40
    # 2 x 2 x 2 x 3 FLOP at 1 GFLOP/s, 64 bytes at 1 GB/s, and a launch.
    assert problem.time_us[1, 1] == pytest.approx(2 + max(0.024, (24 + 24 + 16) / 1e3))
    # Read by the host, written, the reader started: latencies and times per byte add up.
    assert problem.latency_us[0, 1] == 7 + 5 + 3
    assert problem.us_per_byte[0, 1] == pytest.approx(1.5e-3)
    assert (problem.latency_us[0, 2], problem.latency_us[2, 0]) == (7, 5 + 3)


def test_who_refuses_to_cut_or_to_join_a_tensor_stands_with_it(
    model: ir.Model, tmp_path: Path
) -> None:
    npu, cpu = MadeUp("npu", *EVERY, "Slice"), MadeUp("cpu", *EVERY, "Slice", "Concat")
    gpu = MadeUp("gpu", *EVERY, "Concat")
    problem = build_problem(model.graph, costs_of(tmp_path, npu, cpu, gpu), axes=1).problem
    tensors = {tensor.name: tensor for tensor in problem.tensors}
    for name in ("x", "a", "b", "y", "z"):
        assert (tensors[name].uncut, tensors[name].unjoined) == (frozenset({2}), frozenset({0}))
    # All of it is read, whatever the share.
    assert tensors["w"].uncut == tensors["w"].unjoined == frozenset()


def test_refusals_are_infinite_and_told(model: ir.Model, tmp_path: Path) -> None:
    npu = MadeUp("npu", "MatMul", reason="only products")
    planned = build_problem(model.graph, costs_of(tmp_path, npu, MadeUp("cpu", *EVERY)))
    assert np.isinf(planned.problem.time_us[:, 0]).tolist() == [True, False, True, True]
    assert planned.refusals[0] == Refusal("act", "Relu", "npu", "only products")
    plan = planned.plan(rank(planned.problem).chosen)
    assert plan.processors["last"] == "cpu"
    assert "Exp x1 not on npu: only products (last)" in plan.table()


def test_the_last_resort_takes_only_what_all_others_refuse(model: ir.Model, tmp_path: Path) -> None:
    npu, cpu = MadeUp("npu", "MatMul", "Relu"), MadeUp("cpu", *EVERY)
    planned = build_problem(model.graph, costs_of(tmp_path, npu, cpu), last_resort="cpu")
    plan = planned.plan(rank(planned.problem).chosen)
    assert plan.processors == {"act": "npu", "product": "npu", "last": "cpu", "other": "npu"}
    able = MadeUp("npu", *EVERY)
    planned = build_problem(model.graph, costs_of(tmp_path, able, cpu), last_resort="cpu")
    assert [unit.name for unit in planned.problem.units] == ["npu"]


def test_a_node_that_nobody_takes_is_an_error_with_every_reason(
    model: ir.Model, tmp_path: Path
) -> None:
    costs = costs_of(tmp_path, MadeUp("npu", "Relu"), MadeUp("gpu", "Relu", "Exp"))
    with pytest.raises(ProcessorError, match="MatMul 'product': npu: npu is picky; gpu: gpu is"):
        build_problem(model.graph, costs)


def test_states_live_where_they_are_written_and_updates_wait_for_the_gate(tmp_path: Path) -> None:
    text = (
        "g (float[2] x, float[2] w) => (float[2] loss, float[2] v) "
        "{ [use] loss = Mul(x, w) [grad] d = Neg(x) [update] v = Sub(w, d) }"
    )
    graph = load(parse(text)).graph
    next(node for node in graph if node.name == "update").metadata_props[PHASE] = "optimizer"
    costs = costs_of(tmp_path, MadeUp("a", "Mul", "Neg", "Sub"))
    states = States({"v": "w"}, frozenset({"w"}), ("loss",))
    problem = build_problem(graph, costs, states).problem
    tensors = {tensor.name: number for number, tensor in enumerate(problem.tensors)}
    assert problem.tensors[tensors["w"]].home == 2
    assert not problem.tensors[tensors["v"]].fetched
    assert problem.tensors[tensors["loss"]].fetched
    assert [tensor.name for tensor in problem.tensors if tensor.gate] == ["loss"]
    assert tensors["loss"] in problem.tasks[2].inputs


def test_exchanges_take_the_host_what_was_measured(model: ir.Model, tmp_path: Path) -> None:
    costs = costs_of(tmp_path, MadeUp("a", *EVERY), MadeUp("b", *EVERY))
    assert build_problem(model.graph, costs).problem.exchange_us is None
    costs["a"].learn_exchange(costs["b"], Entry(Distribution.exactly(140.0)))
    assert build_problem(model.graph, costs).problem.exchanges == [[0, 140], [0, 0]]


def test_measured_links_come_before_those_of_the_rates(model: ir.Model, tmp_path: Path) -> None:
    costs = costs_of(tmp_path, MadeUp("a", *EVERY))
    for key, us in zip(LINKS, (100.0, 200.0), strict=True):
        costs["a"].store.put(key, Entry(Distribution(us, us / 2, us * 2), "", (0.25,)))
    problem = build_problem(model.graph, costs).problem
    assert (problem.latency_us[1, 0], problem.latency_us[0, 1]) == (100, 200)
    assert problem.us_per_byte[0, 1] == 0.25
    assert problem.latency_sigma[0, 1] > 0


# Plans in files


@pytest.fixture
def planned(model: ir.Model, tmp_path: Path) -> Planned:
    npu = MadeUp("npu", "MatMul", reason="only products")
    costs = costs_of(tmp_path, npu, MadeUp("cpu", *EVERY))
    product = next(call_of(node) for node in model.graph if node.name == "product")
    measured(costs, product, {"cpu": 1e6, "npu": 1.0})
    return build_problem(model.graph, costs)


def test_a_saved_plan_is_read_back_whole(model: ir.Model, planned: Planned, tmp_path: Path) -> None:
    plan = replace(planned.plan(rank(planned.problem, "heft").chosen), early=True)
    assert set(plan.processors.values()) == {"npu", "cpu"}
    save_plan(model, plan, tmp_path / "plan.onnx")
    loaded, again = load_plan(tmp_path / "plan.onnx")
    assert again == plan
    assert loaded.ir_version >= 11
    assert [node.name for node in loaded.graph] == list(plan.order)
    assert not model.device_configurations  # the model itself stays as it was


def test_other_tools_see_devices_and_where_each_tensor_is_made(
    model: ir.Model, planned: Planned
) -> None:
    plan = planned.plan(rank(planned.problem, "heft").chosen)
    proto = ir.to_proto(write_plan(model, plan))
    (configuration,) = proto.configuration
    assert sorted(configuration.device) == ["cpu", "npu"]
    for node in proto.graph.node:
        (place,) = node.device_configurations
        assert place.configuration_id == configuration.name
        assert [spec.tensor_name for spec in place.sharding_spec] == list(node.output)
        (device,) = place.sharding_spec[0].device
        assert configuration.device[device] == plan.processors[node.name]


def test_another_plan_replaces_the_one_in_the_model(model: ir.Model, planned: Planned) -> None:
    first = planned.plan(rank(planned.problem, "heft").chosen)
    everything = Plan(dict.fromkeys(first.processors, "cpu"))
    twice = write_plan(write_plan(model, first), everything)
    assert read_plan(twice).processors == everything.processors
    assert len(twice.device_configurations) == 1


def test_a_model_without_a_plan_and_a_file_that_is_none(model: ir.Model, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no device configuration"):
        read_plan(model)
    (tmp_path / "no.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not a readable"):
        load_plan(tmp_path / "no.onnx")


def test_a_node_on_two_devices_is_no_plan_of_ours(model: ir.Model, planned: Planned) -> None:
    marked = write_plan(model, planned.plan(rank(planned.problem, "heft").chosen))
    node = marked.graph[0]
    configuration = marked.device_configurations[0]
    spec = ir.ShardingSpec(node.outputs[0], (0, 1))
    node.device_configurations = (ir.NodeDeviceConfiguration(configuration, (spec,)),)
    with pytest.raises(ModelError, match="devices \\[0, 1\\]"):
        read_plan(marked)


def test_the_host_is_on_the_first_processors_core_where_each_has_its_own(
    model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "resources_of", lambda: ("cpu:0", "cpu:1"))
    monkeypatch.setattr(build, "cores_of", lambda of: tuple(each for each in of if "cpu" in each))
    for silicon, first in (
        ((("cpu:0",), ("cpu:1",)), True),
        ((("cpu:0",), ("gpu",)), False),
        ((("cpu:0", "cpu:1"), ("gpu",)), False),
        ((("cpu:0", "cpu:1"), ("cpu:1",)), False),
    ):
        both = (On(name, of) for name, of in zip("ab", silicon, strict=True))
        costs = costs_of(tmp_path, *both)
        assert build_problem(model.graph, costs).problem.host_first is first
