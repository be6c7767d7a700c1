"""Old operator forms give what ONNX Runtime gives for them, in a modern and valid model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from coexec.base.errors import ModelError
from coexec.core.types import Array
from coexec.frontend import load, specialise
from coexec.frontend.modernise import RULES, TARGET_OPSET
from tests.graphs import evaluate, parse

ROW = "g (float[2,3,4] x) => (float[N,M,K] y)"
MAP = "g (float[1,2,5,7] x) => (float[N,C,H,W] y)"

OLD_FORMS = {
    "clip-9": (9, f"{ROW} {{ y = Clip<min = -0.25, max = 0.5>(x) }}"),
    "clip-9-one-bound": (9, f"{ROW} {{ y = Clip<max = 0.5>(x) }}"),
    "slice-9": (9, f"{ROW} {{ y = Slice<axes = [0, 2], starts = [0, -3], ends = [1, 9]>(x) }}"),
    "slice-9-no-axes": (9, f"{ROW} {{ y = Slice<starts = [1, 0], ends = [2, 2]>(x) }}"),
    "pad-9": (9, f"{ROW} {{ y = Pad<pads = [0, 1, 2, 1, 0, 0], value = 1.5>(x) }}"),
    "pad-9-reflect": (9, f'{ROW} {{ y = Pad<mode = "reflect", pads = [0, 1, 2, 0, 0, 1]>(x) }}'),
    "squeeze-11": (
        11,
        f"{ROW} {{ a = Unsqueeze<axes = [0, 4]>(x) y = Squeeze<axes = [0, 4]>(a) }}",
    ),
    "reduce-sum-11": (11, f"{ROW} {{ y = ReduceSum<axes = [1]>(x) }}"),
    "reduce-mean-13": (13, f"{ROW} {{ y = ReduceMean<axes = [0, -1]>(x) }}"),
    "reduce-max-17-all": (17, f"{ROW} {{ y = ReduceMax(x) }}"),
    "softmax-9": (9, f"{ROW} {{ y = Softmax<axis = 1>(x) }}"),
    "softmax-9-default": (9, f"{ROW} {{ y = Softmax(x) }}"),
    "softmax-11-negative": (11, f"{ROW} {{ y = Softmax<axis = -2>(x) }}"),
    "softmax-9-last": (9, f"{ROW} {{ y = Softmax<axis = 2>(x) }}"),
    "log-softmax-11": (11, f"{ROW} {{ y = LogSoftmax<axis = 0>(x) }}"),
    "softmax-13": (13, f"{ROW} {{ y = Softmax<axis = 1>(x) }}"),
    "split-9-even": (9, f"{ROW} {{ a, b = Split<axis = 2>(x) y = Sub(a, b) }}"),
    "split-9-sizes": (9, f"{ROW} {{ a, y = Split<axis = 2, split = [1, 3]>(x) }}"),
    "split-13-even": (13, f"{ROW} {{ a, b = Split<axis = 2>(x) y = Sub(a, b) }}"),
    "top-k-9": (9, f"{ROW} {{ y, i = TopK<axis = 1, k = 2>(x) }}"),
    "dropout-9": (9, f"{ROW} {{ y = Dropout<ratio = 0.3>(x) }}"),
    "scatter-9": (
        9,
        (
            f"{ROW} <int64[1,2,1] i = {{0, 1}}, float[1,2,1] u = {{7, 8}}> "
            "{ y = Scatter<axis = 1>(x, i, u) }"
        ),
    ),
    "upsample-9-nearest": (
        9,
        f'{MAP} <float[4] s = {{1, 1, 2, 3}}> {{ y = Upsample<mode = "nearest">(x, s) }}',
    ),
    "upsample-9-linear": (
        9,
        f'{MAP} <float[4] s = {{1, 1, 2, 3}}> {{ y = Upsample<mode = "linear">(x, s) }}',
    ),
    "resize-10-nearest-down": (
        10,
        f'{MAP} <float[4] s = {{1, 1, 0.6, 0.5}}> {{ y = Resize<mode = "nearest">(x, s) }}',
    ),
    "resize-10-nearest-both": (
        10,
        f'{MAP} <float[4] s = {{1, 1, 0.6, 2.5}}> {{ y = Resize<mode = "nearest">(x, s) }}',
    ),
    "resize-10-nearest-computed": (
        10,
        (
            f"{MAP} <float[4] s = {{1, 1, 0.3, 1.25}}> "
            "{ t = Add(s, s) o = Constant<value = float[4] {1, 1, 0, 0}>() r = Sub(t, o) "
            'y = Resize<mode = "nearest">(x, r) }'
        ),
    ),
    "resize-10-linear": (
        10,
        f'{MAP} <float[4] s = {{1, 1, 2, 1.5}}> {{ y = Resize<mode = "linear">(x, s) }}',
    ),
    "resize-11-empty-scales": (
        11,
        (
            f"{MAP} <float[0] roi = {{}}, float[0] s = {{}}, int64[4] n = {{1, 2, 10, 7}}> "
            '{ y = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">'
            "(x, roi, s, n) }"
        ),
    ),
    "batch-norm-9": (
        9,
        (
            f"{MAP} <float[2] a = {{1, 2}}, float[2] b = {{3, 4}}, float[2] m = {{0.5, -0.5}}, "
            "float[2] v = {1, 2}> { y = BatchNormalization<epsilon = 0.01>(x, a, b, m, v) }"
        ),
    ),
}


def _feed(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, Array]:
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": rng.uniform(-1, 1, dims).astype(np.float32)}


@pytest.mark.parametrize("name", OLD_FORMS)
def test_old_form_computes_what_onnx_runtime_computes(name: str, rng: np.random.Generator) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the oracle for old opsets")
    opset, graph = OLD_FORMS[name]
    proto = parse(graph, opset)
    feeds = _feed(proto, rng)
    expected = runtime.InferenceSession(proto.SerializeToString()).run(None, feeds)[0]
    result = evaluate(load(proto), feeds)["y"]
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OLD_FORMS)
def test_modernised_model_is_valid_onnx_of_the_target_opset(name: str) -> None:
    opset, graph = OLD_FORMS[name]
    model = load(parse(graph, opset))
    assert model.opset_imports[""] == TARGET_OPSET
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21, onnx.defs.onnx_opset_version()])
def test_one_network_in_every_opset(opset: int, rng: np.random.Generator) -> None:
    """The same small CNN loads from each opset and computes the same."""
    squeeze = "Squeeze(p, axes)" if opset >= 13 else "Squeeze<axes = [2, 3]>(p)"
    weights = ", ".join(f"{v:.4f}" for v in np.random.default_rng(0).normal(size=108))
    graph = (
        "g (float[N,3,8,8] x) => (float[N,4] y) "
        f"<float[4,3,3,3] w = {{{weights}}}, int64[2] axes = {{2, 3}}> "
        "{ a = Conv<pads = [1, 1, 1, 1]>(x, w) b = Relu(a) p = GlobalAveragePool(b) "
        f"q = {squeeze} y = Softmax<axis = 1>(q) }}"
    )
    model = specialise(load(parse(graph, opset)), {"x": (2, 3, 8, 8)})
    newest = specialise(
        load(parse(graph.replace(squeeze, "Squeeze(p, axes)"), 21)), {"x": (2, 3, 8, 8)}
    )
    feeds = {"x": rng.normal(size=(2, 3, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(evaluate(model, feeds)["y"], evaluate(newest, feeds)["y"], rtol=1e-6)
    assert model.opset_imports[""] == max(opset, TARGET_OPSET)


def test_group_normalization_18_scales_per_group(rng: np.random.Generator) -> None:
    graph = (
        "g (float[N,4,5] x) => (float[N,4,5] y) <float[2] s = {2, 3}, float[2] b = {0.5, -1}> "
        "{ y = GroupNormalization<num_groups = 2>(x, s, b) }"
    )
    x = rng.normal(size=(3, 4, 5)).astype(np.float32)
    model = specialise(load(parse(graph, 18)), {"x": x.shape})
    groups = x.reshape(3, 2, 10)
    deviation = np.sqrt(groups.var(axis=2, keepdims=True) + 1e-5)
    normal = (groups - groups.mean(axis=2, keepdims=True)) / deviation
    expected = (normal * np.array([[[2], [3]]]) + np.array([[[0.5], [-1]]])).reshape(x.shape)
    np.testing.assert_allclose(evaluate(model, {"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


BATCH_NORM = (
    "g (float[4,2,3] x) => (float[4,2,3] y, float[2] mean) "
    "<float[2] a = {1, 2}, float[2] b = {3, 4}, float[2] m = {0.5, -0.5}, float[2] v = {1, 2}> "
    "{ y, mean, var, saved_mean, saved_var = BatchNormalization<momentum = 0.8>(x, a, b, m, v) }"
)


def test_batch_normalization_9_with_statistics_trains(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 2, 3)).astype(np.float32)
    result = evaluate(load(parse(BATCH_NORM, 9)), {"x": x})
    mean = x.mean(axis=(0, 2))
    np.testing.assert_allclose(result["mean"], 0.8 * np.array([0.5, -0.5]) + 0.2 * mean, rtol=1e-5)
    deviation = np.sqrt(x.var(axis=(0, 2)) + 1e-5)[:, None]
    normal = (x - mean[:, None]) / deviation * np.array([[1], [2]]) + np.array([[3], [4]])
    np.testing.assert_allclose(result["y"], normal, rtol=1e-4, atol=1e-5)


def test_dropout_9_mask_has_the_type_of_the_data(rng: np.random.Generator) -> None:
    """Until opset 9 it was a tensor to multiply with (ONNX Runtime leaves it zero: no oracle)."""
    graph = "g (float[3] x) => (float[3] y, float[3] m) { a, m = Dropout(x) y = Mul(a, m) }"
    x = rng.normal(size=3).astype(np.float32)
    result = evaluate(load(parse(graph, 9)), {"x": x})
    np.testing.assert_array_equal(result["m"], np.ones(3, np.float32))
    np.testing.assert_array_equal(result["y"], x)


def test_saved_statistics_of_batch_normalization_9_are_refused() -> None:
    graph = BATCH_NORM.replace("float[2] mean)", "float[2] saved_mean)")
    with pytest.raises(ModelError, match=r"reads 'saved_mean', a saved statistic of opset 9"):
        load(parse(graph, 9))


@pytest.mark.parametrize(
    "operator", ["Clip<min = -0.25, max = 0.5>", "Pad<pads = [0, 1, 0, 1], value = 2.0>"]
)
def test_operands_get_the_element_type_of_the_data(operator: str) -> None:
    """The input's type reaches the operator through a value that the file gives no type for."""
    graph = f"g (float16[2,3] x) => (float16[2,N] y) {{ a = Relu(x) y = {operator}(a) }}"
    model = load(parse(graph, 9))
    x = np.array([[-1, 0, 0.25], [1, 2, 3]], np.float16)
    assert evaluate(model, {"x": x})["y"].dtype == np.float16
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_every_rule_is_for_an_operator_onnx_knows() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert set(RULES) <= known


def test_modes_of_grid_sample_are_named_for_any_number_of_axes() -> None:
    call = 'GridSample<mode = "bicubic", padding_mode = "border">(x, g)'
    text = f"m (float[1,1,4,4] x, float[1,2,3,2] g) => (float[1,1,2,3] y) {{ y = {call} }}"
    (node,) = load(parse(text, opset=16)).graph
    assert node.attributes["mode"].as_string() == "cubic"
