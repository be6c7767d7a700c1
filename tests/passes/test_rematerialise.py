"""Recomputed activations: nodes repeated right before they are read, and the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.autodiff.step import StepGraph
from coexec.base.errors import ModelError
from coexec.core.plan import ALONE
from coexec.core.types import Array
from coexec.memory.build_problem import build_problem
from coexec.memory.lifetimes import usage
from coexec.ops.builder import PHASE, SOURCE
from coexec.passes.rematerialise import RECOMPUTE, is_forward, rematerialise
from coexec.session import legalise
from coexec.steps.resident import ResidentPrograms
from tests.pipeline.small import FEATURES, arrays, network
from tests.runtimes import THOROUGH

BATCH = 8


def kept_activations(graph: StepGraph) -> list[str]:
    """What nodes after the forward pass read of it, beside the loss."""
    made = {v for node in graph.model.graph if is_forward(node) for v in node.outputs}
    late = [v for node in graph.model.graph if not is_forward(node) for v in node.inputs]
    found = dict.fromkeys(v for v in late if v is not None and v in made)
    return [str(v.name) for v in found if not v.is_graph_output()]


def trainer(processor: str) -> coexec.Trainer:
    model = coexec.load(network(dropout=True))
    return coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.05, momentum=0.9), [processor])


def legal_step(learner: coexec.Trainer) -> StepGraph:
    graph = learner.build_step({"x": np.zeros((BATCH, FEATURES), np.float32)})
    legalise(graph.model, learner.processors)
    return graph


def trained(processor: str, recompute: list[str], steps: int = 4) -> dict[str, Array]:
    """States after some steps with activations recomputed."""
    learner = trainer(processor)
    data = arrays(BATCH)
    feeds = {"x": data["x"]}
    programs = ResidentPrograms(learner.processors)
    programs.compile("step", feeds, learner.build_step(feeds), recompute)
    learner.switch(programs, {})
    for _ in range(steps):
        learner.step(feeds, data["labels"])
    return learner.state()


@pytest.mark.parametrize("processor", ["reference", *THOROUGH])
def test_all_activations_recomputed_give_the_same_bits(processor: str) -> None:
    """Masks are drawn again as they were, and running statistics are updated once."""
    kept = kept_activations(legal_step(trainer(processor)))
    assert len(kept) >= 4
    plain, again = trained(processor, []), trained(processor, kept)
    assert plain.keys() == again.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def gated() -> onnx.ModelProto:
    """A layer whose result is split into two factors and a summand, and a linear layer."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Split", ["h"], ["a", "b", "c"], axis=1, num_outputs=3),
        helper.make_node("Mul", ["a", "b"], ["product"]),
        helper.make_node("Add", ["product", "c"], ["sum"]),
        helper.make_node("MatMul", ["sum", "v"], ["y"]),
    ]
    weights = {"w": (FEATURES, 24), "v": (8, 3)}
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 3])],
        [
            numpy_helper.from_array(rng.standard_normal(shape, np.float32), name)
            for name, shape in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("processor", ["reference", *THOROUGH])
def test_the_first_part_of_a_split_is_recomputed_without_the_others(processor: str) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((BATCH, FEATURES), np.float32)}
    labels = np.arange(BATCH) % 3
    states = []
    for recompute in ([], ["a"]):
        model = coexec.load(gated())
        learner = coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.05), [processor])
        programs = ResidentPrograms(learner.processors)
        programs.compile("step", feeds, learner.build_step(feeds), recompute)
        learner.switch(programs, {})
        learner.step(feeds, labels)
        states.append(learner.state())
    plain, again = states
    for name, array in plain.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize("processor", ["reference", THOROUGH[0]])
def test_activations_recomputed_alone_give_the_same_bits(processor: str) -> None:
    kept = kept_activations(legal_step(trainer(processor)))
    alone = [f"{name}{ALONE}" if number % 2 else name for number, name in enumerate(kept)]
    plain, again = trained(processor, []), trained(processor, alone)
    for name, array in plain.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_what_leads_to_an_activation_alone_is_repeated_once_more_for_others() -> None:
    step = legal_step(trainer("reference"))
    problem = build_problem(step.model.graph, (), lambda _call: 1.0)
    loss, dropped, *others = kept_activations(step)
    names = [loss, f"{dropped}{ALONE}", *others]
    expected = [
        str(problem.nodes[event.node].name)
        for event in usage(problem, *problem.numbers(names)).events
        if event.again
    ]
    rematerialise(step.model.graph, names)
    again = [n for n in step.model.graph if n.metadata_props[PHASE] == RECOMPUTE]
    assert [str(node.name).split("#again")[0] for node in again] == expected
    assert len({node.name for node in again}) == len(again) > len(set(expected))


def test_repetitions_stand_right_before_their_reader_and_keep_their_provenance() -> None:
    graph = legal_step(trainer("reference")).model.graph
    originals = {str(node.name): node for node in graph}
    rematerialise(graph, ["c", "b"])
    nodes = list(graph)
    again = [node for node in nodes if node.metadata_props[PHASE] == RECOMPUTE]
    assert [node.name for node in again] == ["bn#again", "relu#again"]
    assert [node.metadata_props[SOURCE] for node in again] == ["bn", "relu"]
    assert again[0].inputs[0] is originals["bn"].inputs[0]
    assert len(again[0].outputs) == 1  # no running statistics
    place = nodes.index(again[1])
    assert again[1].outputs[0] in nodes[place + 1].inputs
    readers = [node for node in nodes if originals["relu"].outputs[0] in node.inputs]
    assert all(is_forward(node) for node in readers)


def test_a_name_that_no_forward_node_makes_is_refused() -> None:
    graph = legal_step(trainer("reference")).model.graph
    with pytest.raises(ModelError, match=r"makes nonsense: .* plan the memory again"):
        rematerialise(graph, ["nonsense"])


def test_a_convolutional_step_fits_less_with_the_same_bits() -> None:
    """The whole way with a budget, on a network of the zoo with normalisation and pooling."""
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((16, 6, 100)).astype(np.float32)}
    labels = rng.integers(0, 4, 16)

    def run(memory: int | None) -> coexec.Trainer:
        model = coexec.load(zoo.build("sensor_cnn", batch=16))
        learner = coexec.Trainer(
            model, SoftmaxCrossEntropy(), SGD(0.01), [THOROUGH[0]], memory=memory
        )
        for _ in range(3):
            learner.step(feeds, labels)
        return learner

    plain = run(None)
    small = run(int(plain.peak_bytes * 0.7))
    assert small.peak_bytes <= plain.peak_bytes * 0.7
    for name, array in plain.state().items():
        np.testing.assert_array_equal(small.state()[name], array, err_msg=name)
