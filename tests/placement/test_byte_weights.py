"""Files of plans hold the 8-bit weights of quantised models, and give back their very floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.quantization import QuantType, quantize_static

import coexec
from coexec.base.errors import ModelError
from coexec.core.plan import Plan
from coexec.core.types import Array
from coexec.ops.node import constant_of
from coexec.ops.whole_weights import exactly
from coexec.placement.byte_weights import PACKED, pack_weights, unpack_weights
from coexec.placement.save import load_plan, save_plan
from coexec.planning.static_model import static_model
from tests.quantised import Batches, of_onnx_runtime, save_in_floats

NETWORK = (
    "g (float[1,3,8,8] x, float[48,3,3,3] a, float[48] b, float[48,48,1,1] c, float[48,64] d)"
    " => (float[1,64] y) { i = Conv(x, a, b) j = Relu(i) k = Conv(j, c)"
    " l = GlobalAveragePool(k) m = Flatten(l) y = MatMul(m, d) }"
)
FLOATS = 4 * (48 * 27 + 48 * 48 + 48 * 64)
"""Bytes of the weights as floats."""


@pytest.mark.parametrize("largest", [127, 128, 64, 63])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_bytes_give_the_very_floats_that_they_made(
    rng: np.random.Generator, largest: int, axis: int | None
) -> None:
    values = rng.integers(-min(largest, 127), min(largest, 127), (40, 40)).astype(np.int8)
    values[:, 0] = values[0] = -largest
    scale = rng.uniform(1e-4, 0.1, {None: (1, 1), 0: (40, 1), 1: (1, 40)}[axis])
    weights = values * scale.astype(np.float32)
    found = exactly(weights)
    assert found is not None
    assert found.axis == axis
    spread = found.scale.reshape(scale.shape)
    assert (found.values * spread).tobytes() == weights.tobytes()


def test_floats_next_to_multiples_are_no_multiples(rng: np.random.Generator) -> None:
    weights = rng.integers(-127, 128, (40, 40)).astype(np.int8) * np.float32(0.013)
    weights[0, 0] = np.float32(127 * 0.013)
    assert exactly(weights) is not None
    weights[7, 9] = np.nextafter(weights[7, 9], np.float32(9))
    assert exactly(weights) is None


@pytest.mark.parametrize("odd", [np.nan, np.inf, -0.0])
def test_what_bytes_cannot_say_stays_floats(odd: float) -> None:
    weights = np.full((40, 40), 127, np.float32)
    weights[3, 3] = odd
    assert exactly(weights) is None


@pytest.fixture
def model(rng: np.random.Generator, tmp_path: Path) -> Path:
    save_in_floats(NETWORK, rng, tmp_path / "float.onnx")
    batches = [image(rng) for _ in range(3)]
    how = {"per_channel": True, "weight_type": QuantType.QInt8}
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Batches(batches), **how)
    return tmp_path / "int8.onnx"


def image(rng: np.random.Generator) -> Array:
    return rng.uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)


def saved(model: Path, out: Path) -> ir.Model:
    """The planned model, whose plan, all on the reference, was saved."""
    static = static_model(coexec.load(model), {"x": np.zeros((1, 3, 8, 8), np.float32)})
    names = [str(node.name) for node in static.graph]
    save_plan(static, Plan(dict.fromkeys(names, "reference"), order=tuple(names)), out)
    return static


def test_the_file_of_a_plan_holds_bytes_and_gives_the_same_results(
    model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    out = tmp_path / "plan.onnx"
    static, x = saved(model, out), image(rng)
    in_floats = len(ir.to_proto(static).SerializeToString())
    assert out.stat().st_size < in_floats - 0.6 * FLOATS
    onnx.checker.check_model(onnx.load(out), full_check=True)
    again, plan = load_plan(out)
    assert set(plan.processors) == {str(node.name) for node in again.graph}
    for name, value in static.graph.initializers.items():
        array, other = constant_of(value), constant_of(again.graph.initializers[name])
        assert array is not None
        assert other is not None
        assert array.tobytes() == other.tobytes()
    assert again.graph.initializers.keys() == static.graph.initializers.keys()
    expected = coexec.compile(coexec.load(model), ["reference"]).run({"x": x})["y"]
    loaded = coexec.load(out)
    for each in (loaded, coexec.load(model), again):
        found = coexec.compile(each, ["reference"], plan=out).run({"x": x})["y"]
        np.testing.assert_array_equal(found, expected)
    # The file is a model in 8 bits for others, too.
    theirs = of_onnx_runtime(out, x)
    assert np.abs(theirs - expected).max() < 0.03 * np.abs(expected).max()


def test_weights_that_training_changes_stay_as_they_are() -> None:
    graph = coexec.load(parsed_weights()).graph
    assert pack_weights(graph) == 0
    assert PACKED not in {key for node in graph for key in node.metadata_props}


def parsed_weights() -> onnx.ModelProto:
    """A product whose weights, parameters of a training, happen to be whole."""
    weights = onnx.numpy_helper.from_array(np.full((40, 40), 127, np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(n, 1, (1, 40)) for n in "xy")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    return onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [x], [y], [weights]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
    )


def test_damaged_weights_are_refused(model: Path, tmp_path: Path) -> None:
    saved(model, tmp_path / "plan.onnx")
    proto = onnx.load(tmp_path / "plan.onnx")
    scale = next(i for i in proto.graph.initializer if i.name.endswith("/scale"))
    scale.CopyFrom(onnx.numpy_helper.from_array(np.ones(5, np.float32), scale.name))
    with pytest.raises(ModelError, match="are damaged"):
        unpack_weights(ir.from_proto(proto).graph)
