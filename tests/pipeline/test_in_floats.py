"""Plans of quantised models say which layers fall back to floats, where and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_static

import coexec
from coexec.core.plan import Plan, Split
from coexec.core.types import Array, Region
from coexec.ops.quantised_layers import NOT_QUANTISED, quantised_layers
from coexec.ops.region import region_of
from coexec.placement.in_floats import layers_of
from coexec.planning.static_model import static_model
from coexec.processors.find import open_processors
from tests.known_costs import know, numpy_last
from tests.pipeline.command import coexec as command
from tests.quantised import Batches, save_in_floats

NETWORK = (
    "g (float[1,8,6,6] x, float[16,8,3,3] a, float[16,4,1,1] b, float[16,12] c) => (float[1,12] y)"
    " { [whole] i = Conv(x, a) [grouped] j = Conv<group = 4>(i, b)"
    " k = GlobalAveragePool(j) l = Flatten(k) [last] y = MatMul(l, c) }"
)


def image(rng: np.random.Generator) -> Array:
    return rng.uniform(-1, 1, (1, 8, 6, 6)).astype(np.float32)


@pytest.fixture
def model(rng: np.random.Generator, tmp_path: Path) -> Path:
    save_in_floats(NETWORK, rng, tmp_path / "float.onnx")
    how = {"per_channel": True, "weight_type": QuantType.QInt8}
    batches = Batches([image(rng) for _ in range(3)])
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", batches, **how)
    return tmp_path / "int8.onnx"


def region(model: Path) -> Region:
    x = np.zeros((1, 8, 6, 6), np.float32)
    return region_of(static_model(coexec.load(model), {"x": x}).graph)


def test_layers_are_what_multiplies_dequantised_values(model: Path) -> None:
    assert set(quantised_layers(region(model)).values()) == {""}
    assert len(quantised_layers(region(model))) == 3


def test_a_layer_whose_result_is_read_in_floats_is_told(model: Path) -> None:
    proto = onnx.load(model)
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    proto.graph.output.append(onnx.helper.make_tensor_value_info(conv.output[0], 1, None))
    onnx.save(proto, model)
    assert [*quantised_layers(region(model)).values()].count(NOT_QUANTISED) == 1


def test_each_processor_says_what_it_computes_in_floats(model: Path) -> None:
    own = region(model)
    layers = quantised_layers(own)
    every = open_processors(["opencl", "ort:cpu", "reference"])
    found = [each.in_floats(own, layers) for each in every]
    ours, theirs, none = ([*names] for names in found)
    # Kernels on bytes have no groups; ONNX Runtime's quantised products one scale.
    floats = {name for name in layers if "grouped" in name or "last" in name}
    assert none == [*layers]
    assert all("last" in name for name in theirs)
    assert len(theirs) == 1
    assert set(ours) >= {name for name in floats if "grouped" in name}
    assert all(reason for each in found for reason in each.values())


def test_a_plan_counts_and_names_layers_in_floats(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, tmp_path / "costs", numpy_last)
    flags = ("plan", model, "--processors", "ort:cpu", "--budget", "0")
    quantised = command(*flags, "--json").record["quantised"]
    assert (quantised["layers"], quantised["on_bytes"]) == (3, 2)
    (left,) = quantised["in_floats"]
    assert (left["operator"], left["processor"]) == ("MatMul", "ort:cpu")
    assert "scales" in left["reason"]
    shown = command(*flags, "--explain")
    assert "quantised layers: 2 on bytes, 1 in floats" in shown.out
    assert "in floats: MatMul" in shown.err
    assert "quantised layers" not in command(*flags[:1], tmp_path / "float.onnx", *flags[2:]).out


def test_a_run_counts_and_names_layers_in_floats(model: Path, tmp_path: Path) -> None:
    quantised = command("run", model, "-p", "ort:cpu", "--json").record["quantised"]
    assert (quantised["layers"], quantised["on_bytes"]) == (3, 2)
    (left,) = quantised["in_floats"]
    assert (left["operator"], left["processor"]) == ("MatMul", "ort:cpu")
    shown = command("run", model, "-p", "ort:cpu")
    assert "2 on bytes, 1 in floats" in shown.out
    assert "in floats: MatMul x1 on ort:cpu" in shown.err
    assert command("run", tmp_path / "float.onnx", "--json").record["quantised"] is None


def test_a_divided_layer_counts_once_and_names_each_processor(model: Path) -> None:
    own = region(model)
    layers = quantised_layers(own)
    names = first, second = ("ort:cpu", "reference")
    (last,) = (name for name in layers if "last" in name)
    split = Split(1, {first: 8, second: 4})
    plan = Plan(dict.fromkeys(layers, first), splits={last: split})
    found = layers_of(own, plan, dict(zip(names, open_processors(names), strict=True)))
    assert (found.layers, found.on_bytes) == (3, 2)
    assert [(each.node, each.processor) for each in found.in_floats] == [
        (last, first),
        (last, second),
    ]


def test_a_profile_names_layers_in_floats(model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = command("profile", model, "-p", "ort:cpu", "--steps", "1", "--html", page)
    assert "in floats: MatMul x1 on ort:cpu" in shown.err
    assert "in floats" not in command("profile", tmp_path / "float.onnx", "--steps", "1").err
    assert "MatMul x1 on ort:cpu" in page.read_text()


def test_how_phones_that_are_not_here_compute_is_not_said(model: Path) -> None:
    (phone,) = open_processors(["sim:snapdragon-865/cpu"])
    assert not phone.in_floats(region(model), quantised_layers(region(model)))
