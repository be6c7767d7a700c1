"""Models as ONNX Runtime's quantiser writes them, on every processor, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import (
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import coexec
from coexec.core.types import Array
from tests.quantised import Batches, of_onnx_runtime, save_in_floats
from tests.runtimes import DRIVERS

PROCESSORS = ("reference", "ort:cpu", *DRIVERS)
NETWORK = (
    "g (float[1,3,12,12] x, float[8,3,3,3] a, float[8] b, float[8,1,3,3] c, float[8] d,"
    " float[8,8,1,1] e, float[16,8] f, float[8] g, float[8,10] h) => (float[1,10] y)"
    " { i = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, a, b) j = Relu(i)"
    " k = Conv<group = 8, pads = [1, 1, 1, 1]>(j, c, d) l = Conv(k, e) m = Add(l, j)"
    " n = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(m) o = Sigmoid(n)"
    " p = Concat<axis = 1>(n, o) q = GlobalAveragePool(p) r = Flatten(q) s = Gemm(r, f, g)"
    " y = MatMul(s, h) }"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in floats, as operators on bytes, and with scales found while it runs."""
    folder, rng = tmp_path_factory.mktemp("quantised"), np.random.default_rng(3)
    save_in_floats(NETWORK, rng, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "static.onnx",
        Batches([image(rng) for _ in range(4)]),
        quant_format=QuantFormat.QOperator,
        activation_type=QuantType.QUInt8,
        per_channel=True,
    )
    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx")
    return folder


def image(rng: np.random.Generator) -> Array:
    return rng.uniform(-1, 1, (1, 3, 12, 12)).astype(np.float32)


def operators(model: Path) -> set[str]:
    return {node.op_type for node in onnx.load(model).graph.node}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_operators_on_bytes_give_what_onnx_runtime_gives(
    folder: Path, processor: str, rng: np.random.Generator
) -> None:
    """Up to two of the 255 steps of the result: each layer may round to the step beside."""
    model, x = folder / "static.onnx", image(rng)
    assert operators(model) >= {
        "QLinearConv", "QLinearAdd", "QLinearSigmoid", "QLinearConcat", "QGemm", "QLinearMatMul",
        "QLinearGlobalAveragePool",
    }  # fmt: skip
    expected = of_onnx_runtime(model, x)
    (y,) = coexec.compile(coexec.load(model), [processor]).run({"x": x}).values()
    steps = np.abs(y - expected) / step_of_result(model)
    assert steps.max() < 2.01


def step_of_result(model: Path) -> float:
    """Scale of the last quantisation."""
    graph = onnx.load(model).graph
    (last,) = [node for node in graph.node if node.output[0] == graph.output[0].name]
    (scale,) = [t for t in graph.initializer if t.name == last.input[1]]
    return float(onnx.numpy_helper.to_array(scale))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_dynamic_scales_give_what_onnx_runtime_gives(
    folder: Path, processor: str, rng: np.random.Generator
) -> None:
    """Integer sums are exact everywhere; scales are divided in float32."""
    model, x = folder / "dynamic.onnx", image(rng)
    assert operators(model) >= {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}
    expected = of_onnx_runtime(model, x)
    (y,) = coexec.compile(coexec.load(model), [processor]).run({"x": x}).values()
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
