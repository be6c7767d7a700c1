"""Products with weights of few bits in bytes are those of ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from coexec.base.errors import ModelError, UnsupportedOperators
from coexec.core.types import Array
from coexec.frontend import load
from tests.graphs import evaluate

ROWS, BLOCK = 6, 16
X = (3, 40)


def model_of(operands: dict[str, Array], bits: int, depth: int = X[-1]) -> onnx.ModelProto:
    """A product with operands of the model's own; those of no elements are not there."""
    names = ["x", *(name if value.size else "" for name, value in operands.items())]
    node = helper.make_node(
        "MatMulNBits",
        names,
        ["y"],
        domain="com.microsoft",
        N=ROWS,
        K=depth,
        bits=bits,
        block_size=BLOCK,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (*X[:-1], depth))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (*X[:-1], ROWS))],
        [numpy_helper.from_array(v, name) for name, v in operands.items() if v.size],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def weights(rng: np.random.Generator, bits: int, depth: int = X[-1]) -> dict[str, Array]:
    blocks = -(-depth // BLOCK)
    packed = rng.integers(0, 256, (ROWS, blocks, BLOCK * bits // 8)).astype(np.uint8)
    return {"w": packed, "scales": rng.uniform(0.01, 0.1, ROWS * blocks).astype(np.float32)}


def check(model: onnx.ModelProto, rng: np.random.Generator) -> ir.Model:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": rng.normal(size=shape).astype(np.float32)}
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    loaded = load(model)
    onnx.checker.check_model(ir.to_proto(loaded), full_check=True)
    (expected,) = session.run(["y"], feeds)
    np.testing.assert_allclose(evaluate(loaded, feeds)["y"], expected, rtol=1e-4, atol=1e-4)
    return loaded


@pytest.mark.parametrize("bits", [4, 8])
def test_the_middle_is_zero_where_nothing_else_is_given(
    bits: int, rng: np.random.Generator
) -> None:
    loaded = check(model_of(weights(rng, bits), bits), rng)
    assert {node.op_type for node in loaded.graph}.isdisjoint(("BitShift", "BitwiseAnd", "Concat"))


def test_zero_points_are_packed_as_weights_are(rng: np.random.Generator) -> None:
    operands = weights(rng, 4)
    operands["zeros"] = rng.integers(0, 256, ROWS * 2).astype(np.uint8)  # three blocks, two bytes
    check(model_of(operands, 4), rng)


def test_zero_points_may_be_numbers_and_results_have_a_bias(rng: np.random.Generator) -> None:
    operands = weights(rng, 4, 48)
    operands["zeros"] = rng.uniform(4, 12, (ROWS, 3)).astype(np.float32)
    operands["order"] = np.zeros(0, np.int32)
    operands["bias"] = rng.normal(size=ROWS).astype(np.float32)
    check(model_of(operands, 4, 48), rng)


def test_another_order_of_weights_is_refused(rng: np.random.Generator) -> None:
    operands = weights(rng, 4)
    operands["zeros"] = np.zeros(0, np.uint8)
    operands["order"] = np.zeros(X[-1], np.int32)
    with pytest.raises(UnsupportedOperators, match="MatMulNBits"):
        load(model_of(operands, 4))


def test_a_product_without_its_sizes_is_refused(rng: np.random.Generator) -> None:
    model = model_of(weights(rng, 4), 4)
    node = model.graph.node[0]
    node.attribute.remove(next(each for each in node.attribute if each.name == "K"))
    with pytest.raises(ModelError, match="'K'"):
        load(model)


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_packed_embeddings(bits: int, points: bool, rng: np.random.Generator) -> None:
    blocks, indices = 3, np.array([[4, 0, 5], [1, 1, 2]])
    operands = {
        "w": rng.integers(0, 256, (ROWS, blocks * BLOCK * bits // 8)).astype(np.uint8),
        "i": indices,
        "s": rng.uniform(0.01, 0.1, (ROWS, blocks)).astype(np.float32),
        "z": rng.integers(0, 256, (ROWS, -(-blocks * bits // 8))).astype(np.uint8),
    }
    names = ["w", "i", "s", *(["z"] if points else [])]
    node = helper.make_node(
        "GatherBlockQuantized",
        names,
        ["y"],
        domain="com.microsoft",
        bits=bits,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT64, indices.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (*indices.shape, blocks * BLOCK))],
        [numpy_helper.from_array(operands[name], name) for name in names if name != "i"],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(["y"], {"i": indices})
    loaded = load(model)
    onnx.checker.check_model(ir.to_proto(loaded), full_check=True)
    np.testing.assert_allclose(evaluate(loaded, {"i": indices})["y"], expected, rtol=1e-5)
