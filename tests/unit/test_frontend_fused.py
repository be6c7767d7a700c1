"""What ONNX Runtime's optimiser makes is read as the standard operators it was made of."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from coexec.base.errors import UnsupportedOperators
from coexec.core.types import Array
from coexec.frontend import load
from tests.graphs import evaluate, parse

RUNTIME = '"com.microsoft": 1'
ROWS = "float[2,3,4] x, float[2,3,4] s, float[4] g, float[4] b, float[4] c"

CASES = {
    "convolution": (
        "float[1,2,5,5] x, float[3,2,3,3] w, float[3] b, float[1,3,3,3] z",
        'com.microsoft.FusedConv<activation = "Relu">(x, w, b, z)',
    ),
    "convolution with a parameter": (
        "float[1,2,5,5] x, float[3,2,3,3] w",
        'com.microsoft.FusedConv<activation = "LeakyRelu", activation_params = [0.25]>(x, w)',
    ),
    "convolution cut off": (
        "float[1,2,5,5] x, float[3,2,3,3] w",
        'com.microsoft.FusedConv<activation = "Clip", activation_params = [-0.5, 0.5]>(x, w)',
    ),
    "Gemm": (
        "float[2,3] x, float[4,3] w, float[4] b",
        'com.microsoft.FusedGemm<transB = 1, alpha = 0.5, activation = "Sigmoid">(x, w, b)',
    ),
    "product": (
        "float[2,3,4] x, float[2,5,4] w",
        "com.microsoft.FusedMatMul<transB = 1, alpha = 0.125>(x, w)",
    ),
    "product of a transposed": (
        "float[2,4,3] x, float[2,4,5] w",
        "com.microsoft.FusedMatMul<transA = 1>(x, w)",
    ),
    "product under its old name": (
        "float[2,4,3] x, float[2,4,5] w",
        "com.microsoft.TransposeMatMul<transA = 1>(x, w)",
    ),
    "samples": (
        "float[1,2,5,5] x, float[1,3,4,2] p",
        'com.microsoft.GridSample<mode = "bilinear", align_corners = 1>(x, p)',
    ),
    "triangle": ("float[2,3,4] x", "com.microsoft.Trilu<upper = 0>(x)"),
    "Gelu": ("float[2,3] x", "com.microsoft.Gelu(x)"),
    "Gelu of a sum": ("float[2,3] x, float[3] b", "com.microsoft.BiasGelu(x, b)"),
    "Gelu by tanh": ("float[2,3] x, float[3] b", "com.microsoft.FastGelu(x, b)"),
    "Gelu by a sigmoid": ("float[2,3] x", "com.microsoft.QuickGelu<alpha = 1.5>(x)"),
    "normalised sum": (ROWS, "com.microsoft.SkipLayerNormalization<epsilon = 0.01>(x, s, g, b, c)"),
    "normalised sum, scale only": (ROWS, "com.microsoft.SkipLayerNormalization(x, s, g)"),
    "root mean square of a sum": (
        ROWS,
        "com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.01>(x, s, g, c)",
    ),
    "root mean square": (ROWS, "SimplifiedLayerNormalization<epsilon = 0.01>(x, g)"),
}


def random_feeds(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, Array]:
    return {
        info.name: rng.normal(size=[d.dim_value for d in info.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for info in model.graph.input
    }


def check(text: str, names: list[str], rng: np.random.Generator) -> None:
    """Same results as ONNX Runtime's."""
    model = parse(text, opset=17, domains=RUNTIME)
    feeds = random_feeds(model, rng)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    loaded = load(model)
    onnx.checker.check_model(ir.to_proto(loaded), full_check=True)
    assert not any(node.domain for node in loaded.graph)
    results = evaluate(loaded, feeds)
    for name, expected in zip(names, session.run(names, feeds), strict=True):
        np.testing.assert_allclose(results[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_onnx_runtime(case: str, rng: np.random.Generator) -> None:
    inputs, call = CASES[case]
    rank = {"convolution": 4, "samples": 4, "Gemm": 2, "Gelu": 2}.get(
        case.split(maxsplit=1)[0].strip(","), 3
    )
    result = ",".join(f"d{i}" for i in range(rank))
    check(f"g ({inputs}) => (float[{result}] y) {{ y = {call} }}", ["y"], rng)


def test_the_sum_that_is_normalised_is_a_result_too(rng: np.random.Generator) -> None:
    call = "com.microsoft.SkipLayerNormalization(x, s, g, b, c)"
    check(
        f"g ({ROWS}) => (float[2,3,4] y, float[2,3,4] t) {{ y, m, v, t = {call} }}", ["y", "t"], rng
    )


def test_padding_is_that_of_onnx(rng: np.random.Generator) -> None:
    sizes = "p = Constant<value = int64[6] {0, 1, 2, 0, 0, 1}>()"
    call = 'y = com.microsoft.Pad<mode = "edge">(x, p)'
    check(f"g (float[2,3,4] x) => (float[a,b,c] y) {{ {sizes} {call} }}", ["y"], rng)


def test_an_activation_that_is_not_known_is_refused() -> None:
    call = 'com.microsoft.FusedConv<activation = "Wobble">(x, w)'
    text = f"g (float[1,2,5,5] x, float[3,2,3,3] w) => (float[1,3,3,3] y) {{ y = {call} }}"
    with pytest.raises(UnsupportedOperators, match="FusedConv"):
        load(parse(text, opset=17, domains=RUNTIME))
