"""Batch normalisation disappears into what stands in front of it, and only where that is right."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coexec import zoo
from coexec.frontend import load
from coexec.passes.fold_batch_norm import fold_batch_norm
from tests.graphs import evaluate, parse

NORM = "float[4] s, float[4] b, float[4] m, float[4] v"
CASES = {
    "conv": (
        "float[2,6,5,5] x",
        "float[2,4,5,5] y",
        "float[4,6,3,3] w",
        "Conv<pads = [1, 1, 1, 1]>(x, w)",
    ),
    "conv with bias and groups": (
        "float[2,6,5] x",
        "float[2,4,3] y",
        "float[4,3,3] w, float[4] c",
        "Conv<group = 2>(x, w, c)",
    ),
    "transposed conv with groups": (
        "float[2,6,3,3] x",
        "float[2,4,5,5] y",
        "float[6,2,3,3] w",
        "ConvTranspose<group = 2>(x, w)",
    ),
    "product": ("float[3,6] x", "float[3,4] y", "float[6,4] w", "Gemm(x, w)"),
    "scaled product": (
        "float[3,6] x",
        "float[3,4] y",
        "float[4,6] w, float[1,4] c",
        "Gemm<alpha = 2.0, beta = 0.5, transB = 1>(x, w, c)",
    ),
}


def network(case: str, tail: str = "BatchNormalization(h, s, b, m, v)") -> ir.Model:
    x, y, weights, node = CASES[case]
    return with_weights(f"g ({x}, {weights}, {NORM}) => ({y}) {{ h = {node} y = {tail} }}")


def with_weights(text: str) -> ir.Model:
    """A model whose inputs but the first are initializers of seeded random values."""
    model = load(parse(text))
    rng = np.random.default_rng(0)
    for value in list(model.graph.inputs)[1:]:
        assert value.shape is not None
        array = rng.standard_normal(value.shape.numpy()).astype(np.float32)
        # Variances are positive.
        positive = value.name == "v"
        value.const_value = ir.tensor(np.abs(array) + 0.1 if positive else array, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def feed(model: ir.Model) -> dict[str, np.ndarray]:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    return {"x": np.random.default_rng(1).standard_normal(shape.numpy()).astype(np.float32)}


def types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_the_same_without_the_norm(case: str) -> None:
    model = network(case)
    x = feed(model)
    expected = evaluate(model, x)["y"]
    name = next(iter(model.graph)).name
    assert fold_batch_norm(model) == 1
    (node,) = list(model.graph)
    assert node.name == name
    np.testing.assert_allclose(evaluate(model, x)["y"], expected, rtol=1e-4, atol=1e-5)


def test_a_norm_by_the_batch_is_left_alone() -> None:
    tail = "BatchNormalization<training_mode = 1>(h, s, b, m, v)"
    model = network("conv", tail)
    assert fold_batch_norm(model) == 0
    assert types(model) == ["Conv", "BatchNormalization"]


def test_a_value_that_others_read_stays() -> None:
    model = with_weights(
        f"g (float[3,6] x, float[6,4] w, {NORM}) => (float[3,4] y) "
        "{ h = Gemm(x, w) k = BatchNormalization(h, s, b, m, v) y = Add(k, h) }"
    )
    assert fold_batch_norm(model) == 0


def test_a_value_that_is_an_output_stays() -> None:
    model = network("conv")
    model.graph.outputs.append(next(iter(model.graph)).outputs[0])
    assert fold_batch_norm(model) == 0


def test_weights_that_a_run_may_change_are_left_alone() -> None:
    model = network("conv")
    model.graph.inputs.append(model.graph.initializers["w"])
    assert fold_batch_norm(model) == 0


def test_a_bias_for_each_row_of_a_product_is_left_alone() -> None:
    text = f"g (float[3,6] x, float[6,4] w, float[3,4] c, {NORM}) => (float[3,4] y) "
    model = with_weights(text + "{ h = Gemm(x, w, c) y = BatchNormalization(h, s, b, m, v) }")
    assert fold_batch_norm(model) == 0


def test_a_model_of_open_shapes_is_folded() -> None:
    model = load(zoo.build("digits_cnn"))
    assert fold_batch_norm(model) == 3
    assert "BatchNormalization" not in [node.op_type for node in model.graph]
