"""What is trained, from what a user writes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import coexec
from coexec import zoo
from coexec.autodiff.selection import Channels, select, shared
from coexec.base.errors import GradientError
from tests.graphs import parse
from tests.pipeline.small import network


@pytest.fixture(scope="module")
def digits() -> ir.Model:
    return coexec.load(zoo.build("digits_cnn", width=8))


def names(model: ir.Model, *trainable: str) -> list[str]:
    return [each.name for each in select(model, trainable)]


def test_nothing_asked_for_is_everything_but_statistics(digits: ir.Model) -> None:
    found = names(digits)
    assert {"conv1.weight", "bn1.weight", "bn1.bias", "fc2.bias"} <= set(found)
    assert not any("running" in name for name in found)


@pytest.mark.parametrize("model", ["digits_cnn", "vit_tiny", "mobilenetv2"])
def test_biases_are_those_of_products_and_normalisations(model: str) -> None:
    loaded = coexec.load(zoo.build(model))
    expected = [name for name in names(loaded) if name.endswith(".bias")]
    assert names(loaded, "bias") == expected != []


def test_a_vector_that_is_added_is_a_bias() -> None:
    weights = {"w": np.ones((3, 2), np.float32), "offset": np.ones(2, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Add", ["h", "offset"], ["y"], name="sum"),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", 1, (4, 3))],
        [helper.make_tensor_value_info("y", 1, (4, 2))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    model = coexec.load(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    assert names(model, "bias") == ["offset"]
    # Names without a dot: the layer is the node.
    assert names(model, "layers:product") == ["w"]


def test_parameters_of_several_nodes_are_found_among_what_is_trained() -> None:
    model = network()
    assert shared(coexec.load(model), ()) == []
    # As exporters do that make one parameter of two that are equal.
    model.graph.node[1].input[2] = "fc1.bias"
    loaded = coexec.load(model)
    assert shared(loaded, ()) == ["fc1.bias"]
    assert shared(loaded, ("fc2.*",)) == []


def test_the_last_layers_are_those_read_last() -> None:
    model = coexec.load(network())
    assert names(model, "last:1") == ["fc2.weight", "fc2.bias"]
    assert names(model, "last:2") == ["bn.scale", "bn.bias", "fc2.weight", "fc2.bias"]
    assert names(model, "last:9") == names(model)


def test_items_add_up(digits: ir.Model) -> None:
    found = names(digits, "layers:conv1,bn*", "fc2.bias")
    assert found == [n for n in names(digits) if n.startswith(("conv1.", "bn")) or n == "fc2.bias"]


def test_channels_lie_along_the_axis_of_outputs(digits: ir.Model) -> None:
    chosen = {each.name: each.channels for each in select(digits, ("conv?.weight[2:5]", "fc*"))}
    assert chosen["conv1.weight"] == Channels(0, 2, 5)
    assert chosen["fc1.weight"] is None
    small = coexec.load(network())
    assert select(small, ("fc1.weight[3:9]",))[0].channels == Channels(1, 3, 9)  # (in, out)
    # All of a parameter wins over some of its channels.
    assert select(small, ("fc1.weight[3:9]", "fc1.*"))[0].channels is None


PRODUCTS = {
    "Gemm(x, w)": (1, "4,3", "3,2"),
    "Gemm<transB = 1>(x, w)": (0, "4,3", "2,3"),
    "MatMul(x, w)": (1, "4,3", "3,2"),
    "Conv(x, w)": (0, "1,3,5,5", "2,3,3,3"),
    "ConvTranspose(x, w)": (1, "1,3,5,5", "3,2,3,3"),
}
"""By product: the axis of output channels, and the shapes of its operands."""


@pytest.mark.parametrize("product", PRODUCTS)
def test_output_channels_of_weights_are_where_their_operator_has_them(product: str) -> None:
    axis, x, w = PRODUCTS[product]
    proto = parse(f"g (float[{x}] x, float[{w}] w) => (float y) {{ y = {product} }}")
    shape = [int(size) for size in w.split(",")]
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), "w"))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    (chosen,) = select(coexec.load(proto), ["w[0:1]"])
    assert chosen.channels == Channels(axis, 0, 1)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("head.*", "--trainable 'head.*' matches no parameter; known: conv1.weight"),
        ("last:0", "last:K wants a number of layers above 0"),
        ("last:two", "last:K wants a number of layers above 0"),
        ("layers:conv1,head", "no layer 'head'; known: conv1, bn1"),
        ("layers:", "matches no parameter"),
        ("conv1.weight[4:99]", "'conv1.weight' has output channels 0 to 8 (not included)"),
        ("conv1.weight[4:4]", "has output channels 0 to 8"),
    ],
)
def test_what_selects_nothing_is_refused(digits: ir.Model, item: str, reason: str) -> None:
    with pytest.raises(GradientError) as caught:
        select(digits, (item,))
    assert reason in str(caught.value)


def test_two_ranges_of_one_parameter_are_refused(digits: ir.Model) -> None:
    with pytest.raises(GradientError, match=r"two ranges of channels for 'conv1\.weight'"):
        select(digits, ("conv1.weight[0:2]", "conv1.weight[4:6]"))
