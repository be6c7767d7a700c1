"""ONNX Runtime's operators of transformers are read as standard operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
X = "float[2,5,12] x, float[12,24] w, float[24] b"
ROWS = "float[2,5,12] q, float[2,7,12] k, float[2,7,12] v"
NEW = "float[2,3,12] q, float[2,3,12] k, float[2,3,12] v"
PAST = "float[2,4,6,3] a, float[2,4,6,3] c"
STATES = "float[2,5,8] y"
OF_ROWS = "float[2,5,12] y"
TABLES = "float[9,2] cos, float[9,2] sin"
WORDS = "int32[2,4] ids, int32[2,4] seg, float[9,6] words, float[5,6] at, float[2,6] segs"
NORM = "float[6] g, float[6] b"

ATTENTION = "com.microsoft.Attention<num_heads = 2"
MULTI = "com.microsoft.MultiHeadAttention<num_heads = 4"
ROTARY = "com.microsoft.RotaryEmbedding"
EMBED = "com.microsoft.EmbedLayerNormalization<epsilon = 0.001>"

CASES: Mapping[str, tuple[str, str, str]] = {
    "self": (X, STATES, f"y = {ATTENTION}>(x, w, b)"),
    "self without a bias": (X, STATES, f"y = {ATTENTION}, scale = 0.2>(x, w)"),
    "self, causal": (X, STATES, f"y = {ATTENTION}, unidirectional = 1>(x, w, b)"),
    "self, sizes": (
        "float[2,5,12] x, float[12,28] w, float[28] b",
        "float[2,5,12] y",
        f"y = {ATTENTION}, qkv_hidden_sizes = [8, 8, 12]>(x, w, b)",
    ),
    "self, mask": (f"{X}, int32[2,5] mask", STATES, f"y = {ATTENTION}>(x, w, b, mask)"),
    "self, mask that was cast": (
        f"{X}, int64[2,5] mask",
        STATES,
        f"m = Cast<to = 6>(mask) y = {ATTENTION}>(x, w, b, m)",
    ),
    "self, mask of rows": (
        f"{X}, int32[2,5,5] mask",
        STATES,
        f"y = {ATTENTION}, mask_filter_value = -3.0>(x, w, b, mask)",
    ),
    "self, lengths": (f"{X}, int32[2] ends", STATES, f"y = {ATTENTION}>(x, w, b, ends)"),
    "self, added to scores": (
        f"{X}, int32[2,5] mask, float[2,2,5,5] s",
        STATES,
        f"y = {ATTENTION}>(x, w, b, mask, , s)",
    ),
    "self, past": (
        f"{X}, float[2,2,2,3,4] past",
        f"{STATES}, float[2,2,2,8,4] p",
        f"y, p = {ATTENTION}, unidirectional = 1>(x, w, b, , past)",
    ),
    "cross": (ROWS, OF_ROWS, f"y = {MULTI}>(q, k, v)"),
    "cross, bias": (f"{ROWS}, float[36] b", OF_ROWS, f"y = {MULTI}>(q, k, v, b)"),
    "cross, keys by heads": (
        "float[2,5,12] q, float[2,4,7,3] k, float[2,4,7,3] v",
        OF_ROWS,
        f"y = {MULTI}, scale = 0.3>(q, k, v)",
    ),
    "cross, mask": (f"{ROWS}, int32[2,7] mask", OF_ROWS, f"y = {MULTI}>(q, k, v, , mask)"),
    "cross, lengths": (f"{ROWS}, int32[2] ends", OF_ROWS, f"y = {MULTI}>(q, k, v, , ends)"),
    "cross, added to scores": (
        f"{ROWS}, float[1,4,5,7] s",
        OF_ROWS,
        f"y = {MULTI}>(q, k, v, , , s)",
    ),
    "past": (
        f"{NEW}, {PAST}",
        "float[2,3,12] y, float[2,4,9,3] pk, float[2,4,9,3] pv",
        f"y, pk, pv = {MULTI}, unidirectional = 1>(q, k, v, , , , a, c)",
    ),
    "past, causal, and a mask of all keys": (
        f"{X}, int32[2,8] mask, float[2,2,2,3,4] past",
        f"{STATES}, float[2,2,2,8,4] p",
        f"y, p = {ATTENTION}, unidirectional = 1>(x, w, b, mask, past)",
    ),
    "cross, past and a mask of all keys": (
        f"{NEW}, {PAST}, int32[2,9] mask",
        "float[2,3,12] y, float[2,4,9,3] pk, float[2,4,9,3] pv",
        f"y, pk, pv = {MULTI}>(q, k, v, , mask, , a, c)",
    ),
    "rotary": (
        f"float[2,5,12] x, int64[2,5] p, {TABLES}",
        "float[2,5,12] y",
        f"y = {ROTARY}(x, p, cos, sin)",
    ),
    "rotary from a place on": (
        f"float[2,5,12] x, int64[1] p, {TABLES}",
        "float[2,5,12] y",
        f"y = {ROTARY}<interleaved = 1>(x, p, cos, sin)",
    ),
    "rotary of heads, in part": (
        f"float[2,3,5,6] x, int64[1] p, {TABLES}",
        "float[2,3,5,6] y",
        f"y = {ROTARY}<rotary_embedding_dim = 4, num_heads = 3>(x, p, cos, sin)",
    ),
    "embeddings": (
        f"{WORDS}, {NORM}, int32[2,4] mask",
        "float[2,4,6] y, int32[2] n, float[2,4,6] t",
        f"y, n, t = {EMBED}(ids, seg, words, at, segs, g, b, mask)",
    ),
    "embeddings without segments": (
        f"{WORDS}, {NORM}, int32[2,4] p",
        "float[2,4,6] y, int32[2] n",
        f"y, n = {EMBED}(ids, , words, at, , g, b, , p)",
    ),
    "embeddings and lengths for attention": (
        f"{WORDS}, {NORM}, int32[2,4] mask, float[6,24] w",
        "float[2,4,8] y",
        f"e, n = {EMBED}(ids, seg, words, at, segs, g, b, mask) y = {ATTENTION}>(e, w, , n)",
    ),
}

INTEGERS: Mapping[str, Any] = {
    "ends": [3, 4],
    "ids": [[0, 3, 8, 1], [5, 5, 2, 7]],
    "seg": [[0, 0, 1, 1], [0, 1, 1, 1]],
}


def feed(name: str, shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Array:
    """Lengths and ids that are in range, masks that end, random numbers."""
    if name in INTEGERS:
        return np.asarray(INTEGERS[name], dtype)
    if name == "mask":
        ends = np.array([3, shape[-1]]).reshape(2, *[1] * (len(shape) - 1))
        return np.broadcast_to(np.arange(shape[-1]) < ends, shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 4, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def feeds_of(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, Array]:
    feeds = {}
    for info in model.graph.input:
        kind = info.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = tuple(d.dim_value for d in kind.shape.dim)
        feeds[info.name] = feed(info.name, shape, dtype, rng)
    return feeds


def model_of(inputs: str, outputs: str, body: str) -> onnx.ModelProto:
    return parse(f"g ({inputs}) => ({outputs}) {{ {body} }}", opset=17, domains=RUNTIME)


@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_onnx_runtime(case: str, rng: np.random.Generator) -> None:
    model = model_of(*CASES[case])
    feeds = feeds_of(model, rng)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    loaded = load(model)
    onnx.checker.check_model(ir.to_proto(loaded), full_check=True)
    assert not any(node.domain for node in loaded.graph)
    results = evaluate(loaded, feeds)
    for name, expected in zip(names, session.run(names, feeds), strict=True):
        np.testing.assert_allclose(results[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [3, 2])
def test_operands_in_one_tensor_are_taken_apart(parts: int, rng: np.random.Generator) -> None:
    """ONNX Runtime has these forms for its GPU kernels only: they mean what single ones mean."""
    single = model_of(ROWS.replace("7", "5"), OF_ROWS, f"y = {MULTI}, scale = 0.3>(q, k, v)")
    feeds = feeds_of(single, rng)
    names = "qkv"[-parts:]
    whole = np.stack([feeds[name].reshape(2, 5, 4, 3) for name in names], axis=3)
    inputs = f"float[2,5,4,{parts},3] p" + ("" if parts == 3 else ", float[2,5,12] q")
    together = model_of(
        inputs, OF_ROWS, f"y = {MULTI}, scale = 0.3>({'p' if parts == 3 else 'q, p'})"
    )
    expected = evaluate(load(single), feeds)["y"]
    found = evaluate(load(together), {"p": whole, "q": feeds["q"]})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


REFUSED = {
    "mask of which nobody knows the form": (
        f"{X}, int32[4] ends",
        STATES,
        f"y = {ATTENTION}>(x, w, b, ends)",
    ),
    "rotary within": (X, STATES, f"y = {ATTENTION}, do_rotary = 1>(x, w, b)"),
    "packed, with a bias": (
        "float[2,5,4,3,3] q, float[36] b",
        OF_ROWS,
        f"y = {MULTI}>(q, , , b)",
    ),
    "past, and lengths": (
        f"{X}, int32[2] ends, float[2,2,2,3,4] past",
        STATES,
        f"y = {ATTENTION}>(x, w, b, ends, past)",
    ),
    "scaled": (
        f"float[2,5,12] x, int64[1] p, {TABLES}",
        "float[2,5,12] y",
        f"y = {ROTARY}<scale = 0.5>(x, p, cos, sin)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_forms_that_are_not_covered_are_refused(case: str) -> None:
    with pytest.raises(UnsupportedOperators, match=r"com\.microsoft"):
        load(model_of(*REFUSED[case]))
