"""Sessions follow plans: whole nodes and shares on two processors give what one processor gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import coexec
from bench.light_models import model_file, with_random_weights, without_softmax
from coexec.api import open_all
from coexec.base.errors import ModelError, ProcessorError
from coexec.core.events import COPY, HOST, Trace
from coexec.core.plan import Plan, Split
from coexec.core.program import Read
from coexec.core.types import Array
from coexec.frontend.specialise import specialise
from coexec.ops.node import call_of, type_of
from coexec.ops.split import CannotSplit
from coexec.ops.split_rules import way
from coexec.passes.fold_for_inference import fold_for_inference
from coexec.passes.split_operator import split_operators
from coexec.placement.save import save_plan
from coexec.session import Session, legalise
from tests.graphs import evaluate, parse
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed
from tests.pipeline.small import FEATURES, write_network

NETWORK = (
    "g (float[2,4,9,8] x, float[6,4,3,3] v, float[6,3,3,3] w, float[5,96] m) => (float[2,5] y) {"
    " [one] a = Conv<pads = [1, 1, 1, 1]>(x, v) [act] b = Relu(a)"
    " [two] c = Conv<group = 2, strides = [2, 1], dilations = [1, 2], pads = [1, 2, 1, 2]>(b, w)"
    " [pool] d = MaxPool<kernel_shape = [2, 2], strides = [1, 2], pads = [0, 0, 0, 0]>(c)"
    " [flat] e = Flatten(d) [fc] y = Gemm<transB = 1>(e, m) }"
)
TWO = ("opencl", "reference")


def network() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The network with random weights, and data for it."""
    rng = np.random.default_rng(0)
    model = parse(NETWORK)
    feeds = {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    weights = [onnx.numpy_helper.from_array(feeds[name], name) for name in ("v", "w", "m")]
    data = [value for value in model.graph.input if value.name == "x"]
    del model.graph.input[:]
    model.graph.input.extend(data)
    model.graph.initializer.extend(weights)
    return model, {"x": feeds["x"]}


@pytest.fixture(scope="module")
def alone() -> Session:
    return coexec.compile(coexec.load(network()[0]), ["reference"])


def plan_of(alone: Session, splits: dict[str, tuple[int, int, int]]) -> Plan:
    """Everything on OpenCL but what is divided: axis, elements there, elements on the reference."""
    gpu = next(iter(open_all(["opencl"])))
    return Plan(
        dict.fromkeys(alone.plan.processors, gpu),
        splits={
            name: Split(axis, {gpu: one, "reference": two})
            for name, (axis, one, two) in splits.items()
        },
    )


ROWS = {"one": (2, 5, 4), "act": (2, 5, 4), "two": (2, 4, 1), "pool": (2, 1, 3)}
CHANNELS = {"one": (1, 5, 1), "act": (1, 3, 3), "two": (1, 3, 3), "fc": (1, 1, 4)}
BATCH = dict.fromkeys(("one", "act", "two", "pool", "flat", "fc"), (0, 1, 1))


@pytest.mark.parametrize("splits", [ROWS, CHANNELS, BATCH], ids=["rows", "channels", "batch"])
def test_shares_give_what_one_processor_gives(
    alone: Session, splits: dict[str, tuple[int, int, int]]
) -> None:
    proto, feeds = network()
    session = coexec.compile(coexec.load(proto), TWO, plan=plan_of(alone, splits))
    assert len(set(session.plan.processors.values())) == 2
    expected = alone.run(feeds)["y"]
    first = session.run(feeds)["y"]
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-4)
    for _ in range(3):
        np.testing.assert_array_equal(session.run(feeds)["y"], first)


def test_no_processor_cuts_inputs_or_joins_outputs(alone: Session) -> None:
    """Each copies its piece, also where rows of several images lie apart, and nothing else."""
    proto, feeds = network()
    del proto.graph.node[1:]
    del proto.graph.output[:]
    proto.graph.output.extend([onnx.helper.make_tensor_value_info("a", 1, [2, 6, 9, 8])])
    model = coexec.load(proto)
    expected = coexec.compile(model, ["reference"]).run(feeds)["a"]
    gpu, opened = next(iter(open_all(["opencl"]).items()))
    for axis, one, two in ((0, 1, 1), (1, 5, 1), (2, 4, 5)):
        split = Split(axis, {gpu: one, "reference": two})
        plan = Plan({"one": gpu}, splits={"one": split})
        session = coexec.compile(model, TWO, plan=plan)
        trace = Trace()
        found = session.run(feeds, trace=trace)["a"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        made = {leaf.operator for event in trace.events for leaf in (event, *event.parts)}
        assert made.isdisjoint({"Slice", "Concat"})
        read = [step for step in session.program.instructions if isinstance(step, Read)]
        assert [step.part for step in read] == [(axis, 0, one), (axis, one, one + two)]
        # Both read the channels of one array; of rows and images, each has its own. The caller
        # copies to and from memory that it shares with a processor, others do so themselves.
        shared = [spec for spec in session.program.buffers if spec.shares]
        assert len(shared) == (axis == 1)
        by_host = [e.name for e in trace.events if (e.track, e.kind) == (HOST, COPY)]
        sees = opened.sees_host_memory()
        assert by_host == ["write x"] * (axis == 1 or sees) + ["read a"] * sees
        other = {name: -array for name, array in feeds.items()}
        kept = found.copy()
        assert not np.array_equal(session.run(other)["a"], kept)
        np.testing.assert_array_equal(found, kept)


def test_a_plan_of_another_model_is_refused(alone: Session) -> None:
    plan = plan_of(alone, {})
    other = coexec.load(parse("g (float[4] x) => (float[4] y) { [one] y = Neg(x) }"))
    with pytest.raises(ModelError, match="not of this model"):
        coexec.compile(other, TWO, plan=plan)


def test_a_plan_for_a_processor_that_is_not_there_is_refused(alone: Session) -> None:
    plan = Plan(dict.fromkeys(alone.plan.processors, "npu"))
    with pytest.raises(ProcessorError, match="npu"):
        coexec.compile(coexec.load(network()[0]), ["reference"], plan=plan)


def test_a_node_that_does_not_divide_is_told(alone: Session) -> None:
    with pytest.raises(ModelError, match=r"'two' cannot be divided.*multiples of 3"):
        coexec.compile(coexec.load(network()[0]), TWO, plan=plan_of(alone, {"two": (1, 2, 4)}))


@pytest.mark.parametrize("policy", ["heft", "operator_split"])
def test_the_command_line_plans_saves_and_follows(tmp_path: Path, policy: str) -> None:
    model = write_network(tmp_path / "model.onnx")
    plan, data = tmp_path / "plan.onnx", tmp_path / "x.npy"
    np.save(data, np.ones((4, FEATURES), np.float32))
    planned = command(
        *("plan", model, "--processors", "opencl,reference", "--batch-size", "4", "--budget", "0"),
        *("--policy", policy, "--save", plan, "--json"),
    )
    assert planned.record["policy"] == policy
    for source in (model, plan):
        followed = command(
            *("run", source, "--input", f"x={data}", "--plan", plan, "--json"),
            *("--save-outputs", tmp_path / "followed.npz"),
        ).record
        assert followed["fallbacks"] == []
    single = command(
        *("run", model, "--input", f"x={data}", "-p", "reference", "--json"),
        *("--save-outputs", tmp_path / "alone.npz"),
    )
    assert single.status == 0
    with np.load(tmp_path / "followed.npz") as found, np.load(tmp_path / "alone.npz") as expected:
        np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-4, atol=1e-5)
    assert "carries no plan" in failed(
        command("run", model, "--input", f"x={data}", "--plan", model)
    )


def test_the_command_line_follows_shares(alone: Session, tmp_path: Path) -> None:
    proto, feeds = network()
    np.save(tmp_path / "x.npy", feeds["x"])
    onnx.save(proto, tmp_path / "model.onnx")
    save_plan(coexec.load(proto), plan_of(alone, ROWS), tmp_path / "plan.onnx")
    for source in ("model.onnx", "plan.onnx"):
        done = command(
            *("run", tmp_path / source, "--input", f"x={tmp_path / 'x.npy'}", "--json"),
            *("--plan", tmp_path / "plan.onnx", "--save-outputs", tmp_path / "y.npz"),
        )
        assert done.status == 0, done.err
        with np.load(tmp_path / "y.npz") as found:
            np.testing.assert_allclose(found["y"], alone.run(feeds)["y"], rtol=1e-4, atol=1e-4)


def test_a_real_network_divided_at_every_node_computes_the_same() -> None:
    """ShuffleNet: grouped and depthwise convolutions, shuffles, joins; through the references."""
    proto = without_softmax(with_random_weights(onnx.load(model_file("shufflenet"))))
    static = specialise(coexec.load(proto), fold_parameters=True)
    fold_for_inference(static)
    model = legalise(static, open_all(["reference"]))
    plan = Plan({str(n.name): "a" for n in model.graph}, splits=dict(_splits(model.graph)))
    assert len(plan.splits) > 100
    rng = np.random.default_rng(0)
    feeds = {
        str(value.name): rng.standard_normal(type_of(value).shape).astype(np.float32)
        for value in model.graph.inputs
    }
    (expected,) = evaluate(model, feeds).values()
    split_operators(model.graph, plan)
    (found,) = evaluate(model, feeds).values()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def _splits(graph: ir.Graph) -> Iterator[tuple[str, Split]]:
    """Every node that divides, by turns along channels and rows, in thirds."""
    for number, node in enumerate(graph):
        for axis in (1, 2) if number % 6 < 3 else (2, 1):
            with contextlib.suppress(CannotSplit):
                how = way(call_of(node), axis)
                first = -(-how.count // 3) * how.quantum
                sizes = {"a": first, "b": how.count * how.quantum - first}
                yield str(node.name), Split(axis, sizes)
                break
