"""ONNX Runtime's CPU computes quantised layers in 8 bits within coexec, as it does by itself."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

import coexec
from coexec.base.errors import FallbackWarning
from coexec.core.plan import Plan
from coexec.core.types import Array
from coexec.ops.node import call_of
from coexec.planning.static_model import static_model
from coexec.processors.ort import compile as compiling
from coexec.processors.ort.compile import session_options
from coexec.processors.ort.model import OnnxModel
from tests.quantised import Batches, of_onnx_runtime, save_in_floats
from tests.runtimes import THOROUGH

NETWORK = (
    "g (float[2,3,12,12] x, float[24,3,3,3] a, float[24] b, float[24,1,3,3] c, float[24] d,"
    " float[24,24,1,1] e, float[24,16] f, float[16] g) => (float[2,16] y)"
    " { i = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, a, b) j = Relu(i)"
    " k = Conv<group = 24, pads = [1, 1, 1, 1]>(j, c, d) l = Conv(k, e) m = Add(l, j)"
    " n = GlobalAveragePool(m) o = Flatten(n) y = Gemm(o, f, g) }"
)


def image(rng: np.random.Generator) -> Array:
    return rng.uniform(-1, 1, (2, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in 8 bits: with one scale a channel or for all, in both of the formats."""
    folder, rng = tmp_path_factory.mktemp("integers"), np.random.default_rng(3)
    save_in_floats(NETWORK, rng, folder / "float.onnx")
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        for by_channel in (False, True):
            quantize_static(
                folder / "float.onnx",
                folder / f"{form.name}-{by_channel}.onnx",
                Batches([image(rng) for _ in range(4)]),
                quant_format=form,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=by_channel,
                # One scale for a matrix, as `coexec compress -t int8` writes it.
                extra_options={"TensorQuantOverrides": {"f": [{"symmetric": True}]}}
                if form is QuantFormat.QDQ
                else {},
            )
    return folder


def optimised(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """Let sessions write what ONNX Runtime makes of their models."""

    def keeping(threads: int, model: OnnxModel) -> object:
        options = session_options(threads, model)
        options.optimized_model_filepath = str(out)
        return options

    monkeypatch.setattr(compiling, "session_options", keeping)


@pytest.mark.parametrize("by_channel", [False, True])
def test_quantised_layers_are_computed_on_bytes(
    folder: Path, tmp_path: Path, by_channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very numbers of ONNX Runtime itself, by the same operators."""
    optimised(monkeypatch, tmp_path / "made.onnx")
    model, x = folder / f"QDQ-{by_channel}.onnx", image(np.random.default_rng(7))
    (y,) = coexec.compile(coexec.load(model), ["ort:cpu"]).run({"x": x}).values()
    np.testing.assert_array_equal(y, of_onnx_runtime(model, x))
    kinds = [node.op_type for node in onnx.load(tmp_path / "made.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3
    assert not {"Conv", "FusedConv", "Gemm"} & set(kinds)


@pytest.mark.parametrize("by_channel", [False, True])
def test_operators_on_bytes_are_computed_on_bytes(
    folder: Path, tmp_path: Path, by_channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimised(monkeypatch, tmp_path / "made.onnx")
    model, x = folder / f"QOperator-{by_channel}.onnx", image(np.random.default_rng(7))
    (y,) = coexec.compile(coexec.load(model), ["ort:cpu"]).run({"x": x}).values()
    expected = of_onnx_runtime(model, x)
    assert np.abs(y - expected).max() < 0.02 * np.abs(expected).max()
    kinds = [node.op_type for node in onnx.load(tmp_path / "made.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3


def test_a_plan_on_two_processors_hands_bytes_to_onnx_runtime(folder: Path) -> None:
    """Every second layer on another processor: within three steps of the whole on one."""
    model = coexec.load(folder / "QDQ-True.onnx")
    x, rest = image(np.random.default_rng(7)), THOROUGH[0]
    static = static_model(model, {"x": x})
    places, place = {}, "ort:cpu"
    for node in static.graph:
        if call_of(node).op_type == "DequantizeLinear":
            place = rest if place == "ort:cpu" else "ort:cpu"
        places[str(node.name)] = place
    assert {*places.values()} == {"ort:cpu", rest}
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        session = coexec.compile(model, ["ort:cpu", rest], plan=Plan(places))
        (y,) = session.run({"x": x}).values()
    expected = of_onnx_runtime(folder / "QDQ-True.onnx", x)
    assert np.abs(y - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("flags", "slow"),
    [({"avx2"}, True), (set(), True), ({"avx512_vnni"}, False), ({"avx_vnni"}, False)],
)
def test_sums_are_widened_only_where_they_would_saturate(
    flags: set[str], slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "cpu_flags", lambda: frozenset(flags))
    options = session_options(1, OnnxModel(b"", {}))
    if slow:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")
