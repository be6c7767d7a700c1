"""Qualcomm's NPU behind ONNX Runtime, where ``coexec[npu]`` is installed (simulated on x86-64)."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

import coexec
from coexec.api import open_all
from coexec.base.errors import FallbackWarning
from coexec.compression.techniques import Settings, compress
from coexec.core.types import Array
from coexec.zoo.mobilenet import mobilenetv2
from tests.graphs import parse

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None,
    reason="onnxruntime-qnn is not installed: pip install 'coexec[npu]'",
)

SCALE = 0.02
HEAD = """g (float[1,3,8,8] x) => (float[1,3,8,8] y) <float s = {0.02}, uint8 z = {128}> {
    q = QuantizeLinear(x, s, z)
    a = DequantizeLinear(q, s, z)"""
POOLED = f"""{HEAD}
    b = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)
    c = Relu(b)
    p = QuantizeLinear(c, s, z)
    y = DequantizeLinear(p, s, z)
}}"""
WITH_ERF = f"{HEAD} b = Erf(a) y = Relu(b) }}"


def run(text: str, *processors: str) -> tuple[Array, str]:
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
    session = coexec.compile(coexec.load(parse(text)), processors)
    return session.run({"x": x})["y"], session.fallbacks


def test_a_quantised_model_runs_there_as_a_whole() -> None:
    found, fallbacks = run(POOLED, "ort:qnn")
    assert not fallbacks
    expected, _ = run(POOLED, "reference")
    # Rounding may fall to the other side once.
    assert np.abs(found - expected).max() < 1.01 * SCALE
    assert np.abs(found - expected).mean() < 0.1 * SCALE


def test_what_it_refuses_runs_elsewhere_with_the_reason() -> None:
    with pytest.warns(FallbackWarning) as warned:
        found, fallbacks = run(WITH_ERF, "ort:qnn", "ort:cpu")
    assert "Erf" in fallbacks
    assert "Hexagon NPU" in fallbacks
    texts = [str(warning.message) for warning in warned]
    assert any("does not execute it" in text for text in texts)
    expected, _ = run(WITH_ERF, "reference")
    np.testing.assert_allclose(found, expected, atol=1e-3)


THREE_WAYS = f"""{HEAD}
    [conv] b = Conv<kernel_shape=[1,1]>(a, w)
    r = QuantizeLinear(b, s, z)
    c = DequantizeLinear(r, s, z)
    [erf] d = Erf(c)
    [relu] e = Relu(d)
    p = QuantizeLinear(e, s, z)
    y = DequantizeLinear(p, s, z)
}}""".replace("z = {128}", "z = {128}, float[3,3,1,1] w = {1, 0, 0.5, 0, 1, 0, -0.5, 0, 1}")


def test_three_processors_run_a_quantised_model_and_what_the_npu_refuses_is_said() -> None:
    names = ("ort:qnn", "opencl", "ort:cpu")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
    with pytest.warns(FallbackWarning):
        preferred = coexec.compile(coexec.load(parse(THREE_WAYS)), names).plan
    assert preferred.processors["conv"] == "ort:qnn"
    assert preferred.processors["erf"].startswith("opencl")
    refused = {(r.node, r.processor): r.reason for r in preferred.refusals}
    assert "Hexagon NPU" in refused["erf", "ort:qnn"]
    plan = replace(preferred, processors={**preferred.processors, "relu": "ort:cpu"})
    session = coexec.compile(coexec.load(parse(THREE_WAYS)), names, plan=plan)
    found = session.run({"x": x})["y"]
    assert len(set(session.plan.processors.values())) == 3
    expected, _ = run(THREE_WAYS, "reference")
    assert np.abs(found - expected).max() < 2.01 * SCALE
    assert np.abs(found - expected).mean() < 0.1 * SCALE


def test_a_mobilenet_that_compress_quantised_runs_on_three_processors() -> None:
    shape = (1, 3, 32, 32)
    rng = np.random.default_rng(0)
    typical = rng.standard_normal((8, *shape[1:])).astype(np.float32)
    built = coexec.load(mobilenetv2(width=0.1, image_size=32, classes=10), {"x": shape})
    smaller, _ = compress(built, ["int8"], Settings(calibration={"x": typical}))
    model = coexec.load(smaller, {"x": shape})
    names = ("ort:qnn", "opencl", "ort:cpu")
    preferred = coexec.compile(model, names).plan
    refused = {refusal.node for refusal in preferred.refusals}
    assert all(refusal.reason for refusal in preferred.refusals)
    assert {n for n, p in preferred.processors.items() if p != "ort:qnn"} == refused
    opencl = next(iter(open_all(["opencl"])))
    order = list(preferred.processors)
    moved = dict.fromkeys(order[: len(order) // 4], opencl) | {order[-1]: "ort:cpu"}
    plan = replace(preferred, processors={**preferred.processors, **moved})
    session = coexec.compile(model, names, plan=plan)
    assert len(set(session.plan.processors.values())) == 3
    x = typical[:1]
    found, floats, integers = (
        s.run({"x": x})["y"]
        for s in (session, *(coexec.compile(m, ["reference"]) for m in (built, model)))
    )
    # Each of some fifty layers rounds to 8 bits.
    for expected in (floats, integers):
        assert np.linalg.norm(found - expected) < 0.3 * np.linalg.norm(expected)
