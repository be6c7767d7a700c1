"""Operators on quantised tensors become standard ones that give what ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from coexec.base.errors import ModelError, UnsupportedOperators
from coexec.core.types import Array
from coexec.frontend import load
from tests.graphs import evaluate, parse

RUNTIME = '"com.microsoft": 1'
SCALES = "float a, float b, float c"
ZEROS = "uint8 p, uint8 q, uint8 r"
PAIR = f"uint8[2,3] x, uint8[2,3] w, {SCALES}, {ZEROS}"

STATIC = {
    "convolution": (
        (
            "uint8[1,3,6,6] x, int8[4,3,3,3] w, int32[4] v, float a, float[4] b, float c, uint8 p,"
            " int8[4] q, uint8 r"
        ),
        "uint8[1,4,4,4]",
        "QLinearConv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, a, p, w, b, q, c, r, v)",
    ),
    "convolution in groups": (
        "uint8[1,4,5,5] x, uint8[4,1,3,3] w, float a, float b, float c, uint8 p, uint8 q, uint8 r",
        "uint8[1,4,3,3]",
        "QLinearConv<group = 4>(x, a, p, w, b, q, c, r)",
    ),
    "product": (
        f"uint8[2,5] x, uint8[5,3] w, {SCALES}, {ZEROS}",
        "uint8[2,3]",
        "QLinearMatMul(x, a, p, w, b, q, c, r)",
    ),
    "product, a scale a column": (
        (
            "uint8[2,5] x, int8[5,3] w, float[1] a, float[3] b, float[1] c, uint8[1] p, int8[3] q,"
            " uint8[1] r"
        ),
        "uint8[2,3]",
        "QLinearMatMul(x, a, p, w, b, q, c, r)",
    ),
    "Gemm": (
        (
            "uint8[2,5] x, int8[3,5] w, int32[3] v, float a, float[3] b, float c, uint8 p,"
            " int8[3] q, uint8 r"
        ),
        "uint8[2,3]",
        "com.microsoft.QGemm<transB = 1, alpha = 0.5>(x, a, p, w, b, q, v, c, r)",
    ),
    "Gemm to floats": (
        "uint8[2,5] x, int8[5,3] w, int32[3] v, float a, float b, uint8 p, int8 q",
        "float[2,3]",
        "com.microsoft.QGemm(x, a, p, w, b, q, v)",
    ),
    "sum": (PAIR, "uint8[2,3]", "com.microsoft.QLinearAdd(x, a, p, w, b, q, c, r)"),
    "product of elements": (PAIR, "uint8[2,3]", "com.microsoft.QLinearMul(x, a, p, w, b, q, c, r)"),
    "average pooling": (
        "uint8[1,2,6,6] x, float a, float c, uint8 p, uint8 r",
        "uint8[1,2,3,3]",
        "com.microsoft.QLinearAveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x, a, p, c, r)",
    ),
    "global average pooling": (
        "uint8[1,2,6,6] x, float a, float c, uint8 p, uint8 r",
        "uint8[1,2,1,1]",
        "com.microsoft.QLinearGlobalAveragePool(x, a, p, c, r)",
    ),
    "leaky rectifier": (
        "int8[2,3] x, float a, float c, int8 p, int8 r",
        "int8[2,3]",
        "com.microsoft.QLinearLeakyRelu<alpha = 0.2>(x, a, p, c, r)",
    ),
    "sigmoid": (
        "uint8[2,3] x, float a, float c, uint8 p, uint8 r",
        "uint8[2,3]",
        "com.microsoft.QLinearSigmoid(x, a, p, c, r)",
    ),
    "softmax": (
        "uint8[2,3] x, float a, float c, uint8 p, uint8 r",
        "uint8[2,3]",
        "com.microsoft.QLinearSoftmax<axis = -1, opset = 13>(x, a, p, c, r)",
    ),
    "softmax over several axes": (
        "uint8[2,3,2] x, float a, float c, uint8 p, uint8 r",
        "uint8[2,3,2]",
        "com.microsoft.QLinearSoftmax<axis = 1, opset = 11>(x, a, p, c, r)",
    ),
    "selection": (
        f"bool[2,3] m, {PAIR}",
        "uint8[2,3]",
        "com.microsoft.QLinearWhere(m, x, a, p, w, b, q, c, r)",
    ),
    "concatenation": (
        PAIR,
        "uint8[2,6]",
        "com.microsoft.QLinearConcat<axis = 1>(c, r, x, a, p, w, b, q)",
    ),
    "quantisation": (
        "float[2,3] x, float c, uint8 r",
        "uint8[2,3]",
        "com.microsoft.QuantizeLinear(x, c, r)",
    ),
    "dequantisation of columns": (
        "uint8[2,3] x, float[3] b, uint8[3] q",
        "float[2,3]",
        "com.microsoft.DequantizeLinear<axis = 1>(x, b, q)",
    ),
    "product of integers to floats": (
        "uint8[2,5] x, int8[5,3] w, float a, float[3] b, uint8 p, float[3] v",
        "float[2,3]",
        "com.microsoft.MatMulIntegerToFloat(x, w, a, b, p, , v)",
    ),
    "dynamic product": (
        "float[2,5] x, int8[5,3] w, float[3] b, float[3] v",
        "float[2,3]",
        "com.microsoft.DynamicQuantizeMatMul(x, w, b, , v)",
    ),
}
"""Inputs, type of the result, call. Scales are a, b and c, zero points p, q, r."""

CONSTANT = {"a": 0.02, "b": 0.03, "c": 0.05, "p": 99, "q": 119, "r": 77}


def proto(case: str) -> onnx.ModelProto:
    """The model; ONNX Runtime wants scales and zero points, and weights beside them, known."""
    inputs, result, call = STATIC[case]
    return parse(f"g ({inputs}) => ({result} y) {{ y = {call} }}", domains=RUNTIME)


def feeds_of(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, Array]:
    """Random data; scales and zero points as ``CONSTANT`` has them, symmetric if signed."""
    feeds = {}
    for info in model.graph.input:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        if info.name in CONSTANT:
            value = 0 if dtype == np.int8 and info.name == "q" else CONSTANT[info.name]
            drawn = np.full(shape, value) * (1 + np.arange(np.prod(shape)).reshape(shape) / 8)
        elif dtype.kind == "f":
            drawn = rng.uniform(-2, 2, shape)
        else:
            low, high = (
                (0, 2) if dtype.kind == "b" else (-99, 100) if dtype.kind == "i" else (0, 256)
            )
            drawn = rng.integers(low, high, shape).astype(np.float64)
        feeds[info.name] = np.asarray(drawn).astype(dtype)
    return feeds


def with_constants(model: onnx.ModelProto, feeds: dict[str, Array]) -> onnx.ModelProto:
    """The model in which all but x are known, as files have it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for info in list(result.graph.input):
        if info.name not in ("x", "m"):
            result.graph.initializer.append(
                onnx.numpy_helper.from_array(feeds[info.name], info.name)
            )
            result.graph.input.remove(info)
    return result


@pytest.mark.parametrize("case", STATIC)
def test_results_are_within_one_step_of_onnx_runtime(case: str, rng: np.random.Generator) -> None:
    feeds = feeds_of(proto(case), rng)
    model = with_constants(proto(case), feeds)
    loaded = load(model)
    assert not any(node.domain or node.op_type.startswith("QLinear") for node in loaded.graph)
    given = {info.name: feeds[info.name] for info in model.graph.input}
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, given)
    y = evaluate(loaded, given)["y"]
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    if y.dtype.kind == "f":
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    else:
        assert np.abs(y.astype(int) - expected.astype(int)).max() <= 1
        assert np.unique(expected).size > 1


def test_scales_of_rows_of_batches_are_broadcast(rng: np.random.Generator) -> None:
    """ONNX lets scales of products have as many dimensions as the matrices."""
    model = load(
        parse(
            "g (uint8[2,3,4] x, uint8[2,4,5] w, float[2,3,1] a, uint8[2,3,1] p, float[2,1,5] b,"
            " uint8[2,1,5] q, float c, uint8 r) => (uint8[2,3,5] y)"
            " { y = QLinearMatMul(x, a, p, w, b, q, c, r) }"
        )
    )
    f: dict[str, Array] = {
        "x": rng.integers(0, 256, (2, 3, 4)).astype(np.uint8),
        "w": rng.integers(0, 256, (2, 4, 5)).astype(np.uint8),
        "a": rng.uniform(0.01, 0.1, (2, 3, 1)).astype(np.float32),
        "b": rng.uniform(0.01, 0.1, (2, 1, 5)).astype(np.float32),
        "p": rng.integers(0, 9, (2, 3, 1)).astype(np.uint8),
        "q": rng.integers(0, 9, (2, 1, 5)).astype(np.uint8),
        "c": np.asarray(1.5, np.float32),
        "r": np.asarray(3, np.uint8),
    }
    a = (f["x"].astype(float) - f["p"]) * f["a"]
    b = (f["w"].astype(float) - f["q"]) * f["b"]
    expected = np.clip(np.rint(a @ b / 1.5) + 3, 0, 255)
    y = evaluate(model, f)["y"]
    assert np.abs(y - expected).max() <= 1


def test_without_a_zero_point_results_are_integers_like_the_operands() -> None:
    call = "com.microsoft.QLinearSigmoid(x, a, , a)"
    model = load(parse(f"g (int8[3] x, float a) => (int8[3] y) {{ y = {call} }}", domains=RUNTIME))
    y = evaluate(model, {"x": np.array([-99, 0, 99], np.int8), "a": np.asarray(0.01, np.float32)})
    np.testing.assert_array_equal(y["y"], np.array([27, 50, 73], np.int8))


def test_other_layouts_are_refused() -> None:
    call = "com.microsoft.QLinearGlobalAveragePool<channels_last = 1>(x, c, r, c, r)"
    text = f"g (uint8[1,4,4,2] x, float c, uint8 r) => (uint8[1,1,1,2] y) {{ y = {call} }}"
    with pytest.raises(UnsupportedOperators, match="QLinearGlobalAveragePool"):
        load(parse(text, domains=RUNTIME))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("com.microsoft.QLinearAdd(x, c, r)", "input 3 is missing"),
        ("com.microsoft.QLinearConcat<axis = 0>(c, r, x, c)", "4 inputs"),
        ("com.microsoft.QLinearSoftmax(x, c, r, c, r)", "'opset' is missing"),
    ],
)
def test_a_damaged_node_is_named(call: str, reason: str) -> None:
    text = f"g (uint8[2,2] x, float c, uint8 r) => (uint8[2,2] y) {{ y = {call} }}"
    with pytest.raises(ModelError, match=reason):
        load(parse(text, domains=RUNTIME))
