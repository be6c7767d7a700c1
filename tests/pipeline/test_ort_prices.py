"""Plans price quantised layers on ONNX Runtime's CPU as what a session computes on bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_static

import coexec
from coexec.core.types import Array, OpCall, Region
from coexec.cost.key import call_key
from coexec.cost.measured import measure_call
from coexec.ops.region import region_of
from coexec.ops.split import share_call
from coexec.ops.split_rules import way
from coexec.planning.static_model import static_model
from coexec.processors.find import open_processor
from coexec.processors.ort import compile as compiling
from coexec.processors.ort.compile import session_options
from coexec.processors.ort.model import OnnxModel
from tests.quantised import Batches, save_in_floats

NETWORK = (
    "g (float[1,16,10,10] x, float[16,16,3,3] a, float[16] b, float[16,16,3,3] c, float[16,8] d)"
    " => (float[1,8] y) { [one] i = Conv<pads = [1, 1, 1, 1]>(x, a, b) [act] j = Relu(i)"
    " [two] k = Conv<pads = [1, 1, 1, 1]>(j, c) [sum] l = Add(k, j)"
    " [mean] m = GlobalAveragePool(l) [flat] n = Flatten(m) [last] y = MatMul(n, d) }"
)


def image(rng: np.random.Generator) -> Array:
    return rng.uniform(-1, 1, (1, 16, 10, 10)).astype(np.float32)


def quantised_as(tmp_path: Path, activations: QuantType) -> Path:
    rng = np.random.default_rng(3)
    save_in_floats(NETWORK, rng, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        Batches([image(rng) for _ in range(3)]),
        per_channel=True,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        # One scale for a matrix, as `coexec compress -t int8` writes it.
        extra_options={"TensorQuantOverrides": {"d": [{"symmetric": True}]}},
    )
    return tmp_path / "int8.onnx"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return quantised_as(tmp_path, QuantType.QUInt8)


def region(path: Path) -> Region:
    x = np.zeros((1, 16, 10, 10), np.float32)
    return region_of(static_model(coexec.load(path), {"x": x}).graph)


def made(path: Path) -> dict[str, OpCall]:
    """The calls on bytes by the names of their nodes."""
    found = open_processor("ort:cpu").fused(region(path))
    return {name: call for name, call in found.items() if call is not None}


def kept(calls: Sequence[str], wanted: str) -> str:
    return next(name for name in calls if wanted in name)


def test_layers_and_what_follows_them_are_one_call_each(path: Path) -> None:
    own = region(path)
    fused = open_processor("ort:cpu").fused(own)
    kinds = sorted(call.identifier for call in fused.values() if call is not None)
    names = ("Add", "Conv", "Conv", "GlobalAveragePool", "MatMul")
    assert kinds == [f"coexec.ort::{name}" for name in names]
    # What stays is a view, and to quantise what enters and to dequantise what leaves.
    apart = sorted(node.call.op_type for node in own.nodes if node.call.name not in fused)
    assert apart in (
        sorted(["DequantizeLinear", each, "QuantizeLinear"]) for each in ("Flatten", "Reshape")
    )


def test_layers_of_one_geometry_are_measured_once(path: Path) -> None:
    calls = made(path)
    first, second = (calls[kept([*calls], name)] for name in ("one", "two"))
    assert call_key(first) != call_key(second)  # one has a bias and the other has none
    again = made(path)
    assert [call_key(call) for call in again.values()] == [call_key(c) for c in calls.values()]


def test_a_priced_call_is_computed_on_bytes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keeping(threads: int, model: OnnxModel) -> object:
        options = session_options(threads, model)
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        return options

    monkeypatch.setattr(compiling, "session_options", keeping)
    processor = open_processor("ort:cpu")
    for call in made(path).values():
        assert processor.supports(call).yes
        processor.compile(Region.alone(call))
        graph = onnx.load(tmp_path / "optimised.onnx").graph
        # Nothing but the one operator on bytes: nobody turns an image to put its channels last.
        found = [node.op_type for node in graph.node]
        if call.op_type == "GlobalAveragePool":  # of one position only: that is no copy
            found = [name for name in found if name != "Transpose"]
        assert found == [f"QLinear{call.op_type}"]


def test_a_priced_call_can_be_timed(path: Path) -> None:
    for call in made(path).values():
        assert measure_call(open_processor("ort:cpu"), call).median_us > 0


def test_a_share_of_a_layer_is_priced_on_bytes(path: Path) -> None:
    own = region(path)
    calls = made(path)
    name = kept([*calls], "one")
    conv = next(node.call for node in own.nodes if node.call.name == name)
    for axis in (1, 2):
        part = share_call(conv, way(conv, axis), 0, 4)
        share = open_processor("ort:cpu").fused_share(calls[name], part)
        assert share is not None
        batch, *planes, channels = share.output(0).shape
        assert (batch, channels, *planes) == part.output(0).shape
        assert share.input(0).dtype == np.uint8
        assert measure_call(open_processor("ort:cpu"), share).median_us > 0


def test_a_result_that_is_read_in_floats_is_priced_in_floats(path: Path) -> None:
    own = region(path)
    conv = next(node for node in own.nodes if "two" in node.call.name)
    watched = Region(
        own.nodes, own.inputs, (*own.outputs, conv.outputs[0]), own.types, own.constants
    )
    assert conv.call.name not in open_processor("ort:cpu").fused(watched)


def test_signed_results_are_priced_in_floats(tmp_path: Path) -> None:
    """As ONNX Runtime computes them on x86 CPUs."""
    assert not made(quantised_as(tmp_path, QuantType.QInt8))
