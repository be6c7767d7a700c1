"""Activations in fewer bytes: exact ways change no bit, lossy ones stay within their error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import coexec
from coexec import zoo
from coexec.autodiff.losses import MeanSquaredError, SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.ops.compressed import OPS
from coexec.ops.node import type_of
from coexec.ops.opdef import Example, Sample
from coexec.passes.compress_activations import Activations
from coexec.passes.kept import kept_bytes, kept_tensors
from coexec.steps.builder import Recipe, StepBuilder
from tests.runtimes import THOROUGH

BATCH, CLASSES = 8, 4
COMPRESS, DECOMPRESS = OPS


def network() -> ir.Model:
    """What has masks: Relu, Clip, LeakyRelu, Dropout, pooling with and without overlap."""
    rng = np.random.default_rng(5)
    weights: dict[str, Array] = {
        "w1": rng.standard_normal((6, 2, 3, 3)),
        "w2": rng.standard_normal((16, 6, 3, 3)) * 0.3,
        "w3": rng.standard_normal((8, 16, 3, 3)) * 0.2,
        "w4": rng.standard_normal((8 * 3 * 3, CLASSES)) * 0.2,
        "low": np.zeros(()),
        "high": np.full((), 1.5),
        "ratio": np.full((), 0.25),
        "one": np.ones(()),
    }
    convolution: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a1"], name="conv1", **convolution),
        helper.make_node("Relu", ["a1"], ["b1"], name="relu"),
        helper.make_node(
            "MaxPool", ["b1"], ["c1"], kernel_shape=[2, 2], strides=[2, 2], name="pool1"
        ),
        helper.make_node("Conv", ["c1", "w2"], ["a2"], name="conv2", **convolution),
        helper.make_node("Clip", ["a2", "low", "high"], ["b2"], name="clip"),
        helper.make_node("Add", ["b2", "one"], ["s2"], name="add"),
        helper.make_node("Dropout", ["s2", "ratio"], ["d2"], name="drop"),
        helper.make_node("Conv", ["d2", "w3"], ["a3"], name="conv3", **convolution),
        helper.make_node("LeakyRelu", ["a3"], ["b3"], alpha=0.1, name="leaky"),
        helper.make_node(
            "MaxPool", ["b3"], ["c3"], kernel_shape=[3, 3], strides=[2, 2], name="pool3"
        ),
        helper.make_node("Flatten", ["c3"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w4"], ["y"], name="fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, 2, 14, 14])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, CLASSES])],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    return coexec.load(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def feeds() -> dict[str, Array]:
    return {"x": np.random.default_rng(6).standard_normal((BATCH, 2, 14, 14)).astype(np.float32)}


def gradients(how: Activations, processor: str = "reference", steps: int = 1) -> dict[str, Array]:
    """After the first step from zero, momentum is the gradient."""
    optimizer, labels = SGD(1e-2, momentum=0.9), np.arange(BATCH) % CLASSES
    trainer = coexec.Trainer(
        network(), SoftmaxCrossEntropy(), optimizer, [processor], activations=how
    )
    for _ in range(steps):
        trainer.step(feeds(), labels)
    return {name: value for name, value in trainer.state().items() if "#" in name}


def step_graph(model: ir.Model, arrays: Mapping[str, Array], how: Activations) -> ir.Graph:
    recipe = Recipe(SoftmaxCrossEntropy(), SGD(0.1), activations=how)
    return StepBuilder(model, recipe).build("step", arrays).model.graph


def operators(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]


def distance(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Of all gradients together, relative."""
    off = sum(float(((found[name] - expected[name]) ** 2).sum()) for name in expected)
    return float(np.sqrt(off / sum(float((value**2).sum()) for value in expected.values())))


@pytest.mark.parametrize("how", ["mask", "bits"])
def test_exact_techniques_change_no_bit(how: Activations) -> None:
    found, expected = gradients(how, steps=3), gradients("full", steps=3)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_masks_and_taps_take_the_place_of_what_was_kept() -> None:
    full, graph = (step_graph(network(), feeds(), how) for how in ("full", "mask"))
    assert operators(graph).count("MaxPoolTapsGrad") == 1
    # Windows that overlap are looked at again: slower kernels would not be worth the bytes.
    assert operators(graph).count("MaxPoolGrad") == 1
    # Relu passes by the taps of the pooling behind it; Clip, LeakyRelu and Dropout by bits.
    assert operators(graph).count("PackBits") == 3
    assert "Greater" not in operators(graph)
    assert kept_bytes(graph) < 0.6 * kept_bytes(full)


@pytest.mark.parametrize(
    ("how", "error", "share"), [("int8", 0.01, 0.4), ("int4", 0.15, 0.35), ("pooled", 0.8, 0.4)]
)
def test_lossy_techniques_stay_within_their_error(
    how: Activations, error: float, share: float
) -> None:
    assert 0 < distance(gradients(how), gradients("full")) < error
    full, graph = (step_graph(network(), feeds(), each) for each in ("full", how))
    assert kept_bytes(graph) < share * kept_bytes(full)


def test_auto_stops_where_little_enough_is_kept() -> None:
    """Exact techniques are enough for pooling behind Relu; batch normalisation needs more."""
    lenet = coexec.load(zoo.build("lenet5", batch=4))
    arrays = {"x": np.zeros((4, 1, 28, 28), np.float32)}
    assert "CompressBlocks" not in operators(step_graph(lenet, arrays, "auto"))
    digits = coexec.load(zoo.build("digits_cnn", batch=16))
    arrays = {"x": np.zeros((16, 1, 8, 8), np.float32)}
    full, auto, every = (step_graph(digits, arrays, how) for how in ("full", "auto", "int8"))
    assert kept_bytes(auto) <= 0.4 * kept_bytes(full)
    assert operators(auto).count("CompressBlocks") < operators(every).count("CompressBlocks")


def test_the_smallest_tensors_are_left_alone() -> None:
    """Many tensors of a deep network are a few percent of the bytes."""
    digits = coexec.load(zoo.build("digits_cnn", batch=16))
    arrays = {"x": np.zeros((16, 1, 8, 8), np.float32)}
    masked, small = (step_graph(digits, arrays, how) for how in ("mask", "int8"))
    total = kept_bytes(masked)
    left = [kept for kept in kept_tensors(small) if type_of(kept.value).dtype == np.float32]
    whole = [
        kept
        for kept in left
        if (node := kept.value.producer()) is not None and node.op_type != "CompressBlocks"
    ]
    assert 0 < sum(kept.nbytes for kept in whole) < 0.04 * total


def test_gradients_on_opencl_are_those_of_the_reference() -> None:
    for how, error in (("mask", 1e-5), ("int8", 1e-3)):
        found, expected = gradients(how, THOROUGH[0]), gradients(how)  # type: ignore[arg-type]
        assert distance(found, expected) < error


@pytest.mark.parametrize("how", ["int8", "int4"])
def test_kernels_that_write_and_read_codes_train_as_the_reference(how: Activations) -> None:
    """Normalisations and gradients of a whole network, of which little is expanded in full."""
    rng = np.random.default_rng(4)
    x = {"x": rng.standard_normal((16, 1, 8, 8)).astype(np.float32)}

    def trained(processor: str) -> dict[str, Array]:
        model = coexec.load(zoo.build("digits_cnn", batch=16))
        optimizer = SGD(1e-2, momentum=0.9)
        trainer = coexec.Trainer(
            model, SoftmaxCrossEntropy(), optimizer, [processor], activations=how
        )
        for _ in range(2):
            trainer.step(x, np.arange(16) % 10)
        return {name: value for name, value in trainer.state().items() if "#" in name}

    assert distance(trained(THOROUGH[0]), trained("reference")) < 1e-2


def test_tensors_of_residual_networks_are_made_again_for_readers_far_apart() -> None:
    """Held for both, a tensor would be there in full for half of the backward pass."""
    arrays = {"x": np.zeros((2, 3, 32, 32), np.float32)}
    graph = step_graph(coexec.load(zoo.build("resnet18", batch=2)), arrays, "int8")
    for node in graph:
        if node.op_type == "DecompressBlocks":
            order = {each: number for number, each in enumerate(graph)}
            readers = [order[reader] for reader, _ in node.outputs[0].uses()]
            assert max(readers) - order[node] <= 40


def test_what_depends_on_labels_stays_as_it_is() -> None:
    """The gradient of a regression is its error: no rounding belongs there."""
    model = coexec.load(zoo.build("mlp", batch=128))
    recipe = Recipe(MeanSquaredError(), SGD(0.1), activations="int8")
    arrays = {"x": np.zeros((128, 784), np.float32)}
    graph = StepBuilder(model, recipe).build("step", arrays).model.graph
    compressed = [node.inputs[0] for node in graph if node.op_type == "CompressBlocks"]
    assert compressed
    producers = [value.producer() for value in compressed if value is not None]
    assert all(node is not None and node.op_type == "Relu" for node in producers)


@pytest.mark.parametrize("bits", [4, 8])
def test_ends_of_blocks_stay_apart_from_what_lies_between(bits: int) -> None:
    """Gradients of Relu and Clip pass by the compressed tensor as by the tensor itself."""
    rng = np.random.default_rng(0)
    x = np.clip(rng.standard_normal((50, 64)), 0, 6).astype(np.float32)
    x[0], x[1, 3], x[2, 5] = 0, 1e-20, 1e4
    example = Example((Sample(x.shape),), {"bits": bits}, 2)
    small = COMPRESS.reference(example.call(COMPRESS, [x]), [x])
    attributes = {"bits": bits, "shape": x.shape}
    back = Example((None, None), attributes).call(DECOMPRESS, list(small))
    (again,) = DECOMPRESS.reference(back, small)
    np.testing.assert_array_equal(again > 0, x > 0)
    spans = np.ptp(x, axis=1, keepdims=True)
    assert np.all(np.abs(again - x) <= spans / (2**bits - 1) * 1.0001)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(UsageError, match="activations 'int2' are unknown; known: full, mask, bits"):
        gradients("int2")  # type: ignore[arg-type]
