"""Training on OpenCL devices: whole networks against the NumPy reference, and what is trained."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import coexec
from coexec import zoo
from coexec.autodiff.losses import MeanSquaredError, SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Adam
from coexec.autodiff.selection import select
from coexec.base.errors import CheckpointError, GradientError, NonFiniteLoss
from coexec.core.types import Array
from tests.runtimes import DRIVERS, THOROUGH

DEFAULT = THOROUGH[0]

# Whole networks against the reference.


@dataclass(frozen=True)
class Network:
    """A zoo model with a batch size and a rate at which its loss falls smoothly.

    Where it jumps, a ReLU that changes sides by rounding changes later losses by more than 1e-3,
    in float32 NumPy against float64 NumPy too.
    """

    name: str
    batch: int
    rate: float


NETWORKS = (
    Network("lenet5", 32, 1e-3),
    Network("resnet18", 8, 2e-4),
    Network("vit_tiny", 4, 2e-3),
)
SOON_BUILT = NETWORKS[:1]
"""What every runtime trains; the others have many times as many programs to build."""


def losses(network: Network, processor: str, steps: int = 20) -> Array:
    """Loss of each step on four batches of random images, the same ones everywhere."""
    model = coexec.load(zoo.build(network.name, batch=network.batch))
    trainer = coexec.Trainer(
        model, SoftmaxCrossEntropy(), SGD(network.rate, momentum=0.9), [processor]
    )
    rng = np.random.default_rng(0)
    shape = (4 * network.batch, *zoo.CATALOG[network.name].input_shape)
    x, labels = rng.standard_normal(shape, np.float32), rng.integers(0, 10, shape[0])
    found = []
    for step in range(steps):
        rows = np.arange(step * network.batch, (step + 1) * network.batch) % len(x)
        found.append(trainer.step({"x": x[rows]}, labels[rows]))
    assert processor == "reference" or not trainer.plan.table()
    return np.array(found)


@functools.cache
def reference_losses(network: Network) -> Array:
    return losses(network, "reference")


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_twenty_steps_follow_the_reference(network: Network) -> None:
    expected = reference_losses(network)
    # It trains: the labels of the four batches are being learned, or nothing is compared.
    assert expected[-4:].mean() < 0.75 * expected[:4].mean()
    for runtime in DRIVERS if network in SOON_BUILT else THOROUGH:
        np.testing.assert_allclose(losses(network, runtime), expected, rtol=1e-3, err_msg=runtime)


@pytest.mark.parametrize("runtime", DRIVERS)
def test_training_twice_is_the_same_bit_for_bit(runtime: str) -> None:
    network = NETWORKS[0]
    np.testing.assert_array_equal(losses(network, runtime, 5), losses(network, runtime, 5))


# What is trained, and what is not.


def test_frozen_parameters_keep_every_bit_and_cost_nothing(rng: np.random.Generator) -> None:
    x, labels = rng.standard_normal((4, 1, 8, 8), np.float32), rng.integers(0, 10, 4)
    full, head = (digits_trainer(trainable=patterns) for patterns in ((), ("fc2.*",)))
    for _ in range(3):
        full.step({"x": x}, labels)
        head.step({"x": x}, labels)
    before = initial(full.model)
    trained = {each.name for each in select(full.model, ())}
    changed = {name for name in trained if not np.array_equal(full.state()[name], before[name])}
    assert changed == trained
    assert head.step_graph.trainable == ("fc2.weight", "fc2.bias")
    after = initial(head.trained_model())
    for name in trained - {"fc2.weight", "fc2.bias"}:
        np.testing.assert_array_equal(after[name], before[name], strict=True)
    assert not np.array_equal(after["fc2.weight"], before["fc2.weight"])
    assert backward_operators(full) >= {"coexec::ConvWeightGrad", "coexec::MaxPoolGrad"}
    assert backward_operators(head) <= {
        "coexec::SoftmaxCrossEntropyLossGrad",
        "Gemm",
        "MatMul",
        "Transpose",
        "ReduceSum",
        "Reshape",
    }
    assert len(list(head.step_graph.model.graph)) < 0.6 * len(list(full.step_graph.model.graph))
    assert head.peak_bytes < full.peak_bytes


def test_gradients_stop_at_the_first_trained_layer(rng: np.random.Generator) -> None:
    """What lies in front of the deepest trained parameter needs no gradient of its input."""
    x, labels = rng.standard_normal((4, 1, 8, 8), np.float32), rng.integers(0, 10, 4)
    trainer = digits_trainer(trainable=("conv2.weight",))
    trainer.step({"x": x}, labels)
    found = [
        (node.op_type, node.metadata_props["coexec.source"])
        for node in trainer.step_graph.model.graph
        if node.op_type in ("ConvWeightGrad", "ConvInputGrad")
    ]
    assert sorted(found) == [("ConvInputGrad", "conv3"), ("ConvWeightGrad", "conv2")]


def test_a_pattern_without_a_parameter_is_refused() -> None:
    with pytest.raises(GradientError, match=r"'head\.\*' matches no parameter; known: conv1"):
        digits_trainer(trainable=("fc2.*", "head.*"))


@pytest.mark.parametrize("runtime", DRIVERS)
def test_running_statistics_follow_the_batches(runtime: str, rng: np.random.Generator) -> None:
    """ONNX: new = momentum * old + (1 - momentum) * of the batch, the variance divided by N."""
    trainer = coexec.Trainer(normalised_model(0.8), MeanSquaredError(), SGD(0.1), [runtime])
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(4):
        x = rng.normal([[[1.0]], [[-2.0]], [[0.5]]], [[[2.0]], [[0.5]], [[1.0]]], (6, 3, 4, 5))
        trainer.step({"x": x.astype(np.float32)}, np.zeros((6, 2), np.float32))
        mean = 0.8 * mean + 0.2 * x.mean((0, 2, 3))
        variance = 0.8 * variance + 0.2 * x.var((0, 2, 3))
    state = trainer.state()
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(state["variance"], variance, rtol=1e-4)
    saved = initial(trainer.trained_model())
    np.testing.assert_array_equal(saved["mean"], state["mean"])


# Dropout: a function of seed, node and step.


def dropout_losses(trainer: coexec.Trainer, steps: int, rng: np.random.Generator) -> list[float]:
    """Losses at rate 0 on one batch: only the masks can make them differ."""
    x = rng.standard_normal((2, 3, 32, 32), np.float32)
    return [trainer.step({"x": x}, np.array([0, 1])) for _ in range(steps)]


def dropout_trainer(seed: int = 0, **options: Any) -> coexec.Trainer:
    model = zoo.build("squeezenet", classes=10, image_size=32)
    return coexec.Trainer(
        coexec.load(model), SoftmaxCrossEntropy(), SGD(0.0), [DEFAULT], seed=seed, **options
    )


def test_masks_differ_between_steps_and_seeds() -> None:
    first = dropout_losses(dropout_trainer(), 4, np.random.default_rng(0))
    other = dropout_losses(dropout_trainer(seed=1), 4, np.random.default_rng(0))
    assert len({*first, *other}) == 8


def test_masks_repeat_on_resume() -> None:
    expected = dropout_losses(dropout_trainer(), 4, np.random.default_rng(0))
    resumed = dropout_trainer()
    resumed.load_state({}, steps=2)
    assert dropout_losses(resumed, 2, np.random.default_rng(0)) == expected[2:]


def test_micro_batches_have_masks_of_their_own() -> None:
    """Two equal halves under one mask would give the loss of one half."""
    x = np.repeat(np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32), 2, 0)
    labels = np.array([1, 1])
    trainer = dropout_trainer(micro_batches=2)
    loss = trainer.step({"x": x}, labels)
    same_mask = dropout_trainer().step({"x": x[:1]}, labels[:1])
    assert loss != same_mask


def test_a_part_without_a_loss_takes_the_gradients_of_others_with_it() -> None:
    def learner() -> coexec.Trainer:
        model = coexec.load(zoo.build("mlp"))
        return coexec.Trainer(
            model, SoftmaxCrossEntropy(), SGD(0.1), ["reference"], micro_batches=2
        )

    x, labels = np.random.default_rng(0).standard_normal((4, 784), np.float32), np.arange(4)
    bad = x.copy()
    bad[3] = np.nan
    trainer, never = learner(), learner()
    with pytest.raises(NonFiniteLoss):
        trainer.step({"x": bad}, labels)
    assert trainer.step({"x": x}, labels) == never.step({"x": x}, labels)
    found, expected = trainer.state(), never.state()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_prediction_drops_nothing() -> None:
    trainer = dropout_trainer()
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)}
    trainer.step(x, np.array([0, 1]))
    np.testing.assert_array_equal(trainer.predict(x)["y"], trainer.predict(x)["y"])


# The trained file.

SAVED: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("digits_cnn", (8, 1, 8, 8), {}),
    ("sensor_cnn", (4, 6, 100), {}),
    ("lstm_har", (4, 20, 9), {"length": 20}),
    ("gru_kws", (4, 25, 10), {}),
    ("squeezenet", (2, 3, 64, 64), {"image_size": 64}),
    ("vit_tiny", (4, 3, 32, 32), {"depth": 2}),
]


@pytest.mark.parametrize(("name", "shape", "options"), SAVED, ids=[case[0] for case in SAVED])
def test_onnxruntime_predicts_the_same_with_the_saved_file(
    name: str, shape: tuple[int, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    model = coexec.load(zoo.build(name, classes=4, **options))
    trainer = coexec.Trainer(model, SoftmaxCrossEntropy(), Adam(1e-3), [DEFAULT])
    x, labels = rng.standard_normal(shape, np.float32), rng.integers(0, 4, shape[0])
    untrained = trainer.predict({"x": x})["y"]
    for _ in range(5):
        trainer.step({"x": x}, labels)
    trainer.save(tmp_path / "trained.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "trained.onnx"), full_check=True)
    ours = trainer.predict({"x": x})["y"]
    session = onnxruntime.InferenceSession(
        tmp_path / "trained.onnx", providers=["CPUExecutionProvider"]
    )
    theirs = np.asarray(session.run(["y"], {"x": x})[0])
    scale = np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= 1e-4 * scale
    np.testing.assert_array_equal(ours.argmax(1), theirs.argmax(1))
    assert np.abs(ours - untrained).max() > 1e-2 * scale


# Helpers.


def digits_trainer(**options: Any) -> coexec.Trainer:
    model = coexec.load(zoo.build("digits_cnn", width=8))
    return coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.1), [DEFAULT], **options)


def initial(model: ir.Model) -> dict[str, Array]:
    """Initializers of a model."""
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def backward_operators(trainer: coexec.Trainer) -> set[str]:
    return {
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in trainer.step_graph.model.graph
        if node.metadata_props.get("coexec.phase") == "backward"
    }


def normalised_model(momentum: float) -> ir.Model:
    """x (6, 3, 4, 5) -> BatchNormalization -> mean over the image -> Gemm -> y (6, 2)."""
    rng = np.random.default_rng(0)
    weights = {
        "scale": np.ones(3),
        "shift": np.zeros(3),
        "mean": np.zeros(3),
        "variance": np.ones(3),
        "w": rng.standard_normal((3, 2)),
    }
    nodes = [
        helper.make_node(
            "BatchNormalization",
            ["x", "scale", "shift", "mean", "variance"],
            ["h"],
            momentum=momentum,
        ),
        helper.make_node("GlobalAveragePool", ["h"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "normalised",
        [helper.make_tensor_value_info("x", kind, (6, 3, 4, 5))],
        [helper.make_tensor_value_info("y", kind, (6, 2))],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    imports = [helper.make_opsetid("", 20)]
    return coexec.load(helper.make_model(graph, opset_imports=imports, ir_version=9))


def test_a_state_of_another_model_is_refused() -> None:
    """It would leave all as it is without a word, or end in an error within the step."""

    def learner(model: ir.Model) -> coexec.Trainer:
        return coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.1), ["reference"])

    x, labels = np.random.default_rng(0).standard_normal((4, 784), np.float32), np.arange(4)
    own, wider = (learner(coexec.load(zoo.build("mlp", classes=n))) for n in (10, 12))
    for each in (own, wider):
        each.step({"x": x}, labels)
    kept = own.state()
    with pytest.raises(CheckpointError, match=r"of another model: it has w; this one has fc1\."):
        own.load_state({"w": x}, 1)
    with pytest.raises(CheckpointError, match=r"float32\[12.*, this one's is float32\[10"):
        own.load_state(wider.state(), 1)
    assert {n: a.tobytes() for n, a in own.state().items()} == {
        n: a.tobytes() for n, a in kept.items()
    }
    fresh = learner(coexec.load(zoo.build("mlp")))
    own.load_state(fresh.state(), 0)  # it has made no step: nothing is in it


def test_a_state_must_not_change_what_is_not_trained() -> None:
    """It is constant in the steps, while the trained file would have had it from the state."""

    def learner(**options: Any) -> coexec.Trainer:
        model = coexec.load(zoo.build("mlp"))
        return coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.1), ["reference"], **options)

    x, labels = np.random.default_rng(0).standard_normal((4, 784), np.float32), np.arange(4)
    whole, part = learner(), learner(trainable=("bias",))
    whole.step({"x": x}, labels)
    part.step({"x": x}, labels)
    before = part.state()
    with pytest.raises(CheckpointError, match=r"this training leaves as it is: .*weight"):
        part.load_state(whole.state(), 1)
    again = learner(trainable=("bias",))
    again.load_state(before, 1)
    assert again.step({"x": x}, labels) == part.step({"x": x}, labels)
