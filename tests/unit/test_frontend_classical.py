"""Scalers, linear models and labels of ``ai.onnx.ml`` are read as standard operators."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import coexec
from coexec.base.errors import ModelError
from tests.graphs import parse

DOMAIN = '"ai.onnx.ml": 3'
COEFFICIENTS = "coefficients = [0.5, -1.0, 2.0, 1.0, 0.25, -0.5, -1.5, 1.0, 0.125]"
INTERCEPTS = "intercepts = [0.5, -0.25, 0.0]"
CLASSIFIER = f"LinearClassifier<classlabels_ints = [0, 1, 2], {COEFFICIENTS}, {INTERCEPTS}"

CASES = {
    "scaler": ("float[4,3] x", "Scaler<offset = [1.0, 0.5, 0.0], scale = [2.0, 1.0, 0.25]>(x)", ""),
    "scaler of one number": ("float[4,3] x", "Scaler<offset = [1.0], scale = [2.0]>(x)", ""),
    "scaler of whole numbers": ("int64[4,3] x", "Scaler<offset = [1.0], scale = [0.5]>(x)", ""),
    "threshold": ("float[4,3] x", "Binarizer<threshold = 0.25>(x)", ""),
    "largest": ("float[4,3] x", 'Normalizer<norm = "MAX">(x)', ""),
    "sums": ("float[4,3] x", 'Normalizer<norm = "L1">(x)', ""),
    "lengths": ("float[4,3] x", 'Normalizer<norm = "L2">(x)', ""),
    "regression": (
        "float[4,3] x",
        f"LinearRegressor<targets = 3, {COEFFICIENTS}, {INTERCEPTS}>(x)",
        "",
    ),
    "classes": (
        "float[4,3] x",
        f"LinearClassifier<classlabels_ints = [7, 3, 5], {COEFFICIENTS}, {INTERCEPTS}>(x)",
        "label, ",
    ),
    "classes by logistic scores": (
        "float[4,3] x",
        f'{CLASSIFIER}, post_transform = "LOGISTIC">(x)',
        "label, ",
    ),
    "classes by softmax": (
        "float[4,3] x",
        f'{CLASSIFIER}, post_transform = "SOFTMAX">(x)',
        "label, ",
    ),
    "columns": ("float[4,3] x, int64[2] places", "ArrayFeatureExtractor(x, places)", ""),
    "elements": ("float[3] x, int64[2] places", "ArrayFeatureExtractor(x, places)", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_computes_what_onnxruntime_does(case: str, rng: np.random.Generator) -> None:
    inputs, call, label = CASES[case]
    outputs = "float[A,B] y" + (", int64[C] label" if label else "")
    model = parse(
        f"g ({inputs}) => ({outputs}) {{ {label}y = ai.onnx.ml.{call} }}", 18, domains=DOMAIN
    )
    x = rng.standard_normal((4, 3), np.float32)
    x[2] = 0
    kinds = {"scaler of whole numbers": (x * 10).astype(np.int64), "elements": x[0]}
    feeds = {"x": kinds.get(case, x), "places": np.array([2, 0])}
    feeds = {name: array for name, array in feeds.items() if f" {name}" in inputs}
    theirs = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = coexec.compile(coexec.load(model), ["reference"]).run(feeds)
    for ours, expected in zip(found.values(), theirs.run(None, feeds), strict=True):
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_maps_of_classes_are_refused_with_advice() -> None:
    model = parse(
        "g (float[4,3] x) => (seq(map(int64, float)) y) "
        "{ y = ai.onnx.ml.ZipMap<classlabels_int64s = [0, 1, 2]>(x) }",
        domains=DOMAIN,
    )
    with pytest.raises(ModelError, match=r"'y' is a map.*'zipmap': False"):
        coexec.load(model)
