"""Layers that are quantised while a model runs are one product of bytes where a device has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

import coexec
from coexec.core.types import Array, Region
from coexec.cost.key import call_key
from coexec.ops.region import region_of
from coexec.processors.opencl.byte_dots import byte_dots
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.dynamic_integers import dynamic_calls, fuse_dynamic
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.fusion.operators import title
from tests.graphs import parse
from tests.runtimes import DRIVERS, THOROUGH, open_opencl

NETWORK = (
    "g (float[2,5,24] x, float[24,70] a, float[70] b, float[24,70] c, float[70,24] d, float[24] e,"
    " float[24,33] f) => (float[2,5,24] y, float[2,5,33] z)"
    " { h = MatMul(x, a) i = Add(h, b) j = MatMul(x, c) k = Relu(j) l = Mul(i, k) m = MatMul(l, d)"
    " n = Add(e, m) y = Add(n, x) z = MatMul(y, f) }"
)
"""Layers with and without a bias, two of one operand, with a residual, and one at the end."""
LINEAR = "MatMulInteger+Cast+Mul"
FORMS = {
    "signed": {},
    "unsigned": {"weight_type": QuantType.QUInt8},
    "by channel": {"weight_type": QuantType.QUInt8, "per_channel": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network with weights in 8 bits, in each form that the quantiser writes."""
    folder, rng = tmp_path_factory.mktemp("dynamic"), np.random.default_rng(3)
    model = parse(NETWORK, opset=17)
    for info in list(model.graph.input)[1:]:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        weights = rng.normal(0.1, 1, size=shape).astype(np.float32) / 4
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, info.name))
        model.graph.input.remove(info)
    onnx.save(model, folder / "float.onnx")
    for name, options in FORMS.items():
        quantize_dynamic(folder / "float.onnx", folder / f"{name}.onnx", **options)
    return folder


def operand() -> Array:
    return np.random.default_rng(7).normal(0.3, 1, (2, 5, 24)).astype(np.float32)


def of_onnx_runtime(model: Path, x: Array) -> list[Array]:
    """Its 8-bit sums do not saturate, as coexec's do not."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, {"x": x})]


def region_in(folder: Path, name: str) -> Region:
    return region_of(coexec.load(folder / f"{name}.onnx").graph)


def facts(dots: str) -> DeviceFacts:
    return replace(open_opencl(THOROUGH[0]).facts, dots=dots)  # type: ignore[arg-type]


def kinds(region: Region) -> Counter[str]:
    return Counter(title(node.call) for node in region.nodes)


@pytest.mark.parametrize("runtime", DRIVERS)
@pytest.mark.parametrize("name", FORMS)
def test_a_network_gives_what_onnx_runtime_gives(folder: Path, runtime: str, name: str) -> None:
    """Later layers may quantise to the step beside: half a step of 255 of what they are given."""
    path, x = folder / f"{name}.onnx", operand()
    processor, model = open_opencl(runtime), coexec.load(path)
    given = processor.facts_for(region_of(model.graph))
    assert given.dots == byte_dots(processor.programs)
    results = coexec.compile(model, [runtime]).run({"x": x})
    for actual, expected in zip(results.values(), of_onnx_runtime(path, x), strict=True):
        assert np.abs(actual - expected).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("name", FORMS)
def test_every_layer_is_one_product_of_bytes(folder: Path, name: str) -> None:
    found = kinds(fuse(region_in(folder, name), facts("vnni")))
    assert found[f"{LINEAR}+Add"] == 1
    assert found[f"{LINEAR}+Add+Add"] == 1
    assert found[LINEAR] == found[f"{LINEAR}+Relu+Mul"] == 1
    assert set(found) == {"DynamicQuantizeLinear", *(k for k in found if k.startswith(LINEAR))}


def test_without_dot_products_the_region_stays(folder: Path) -> None:
    region = region_in(folder, "signed")
    assert fuse_dynamic(region, facts("none")) is region
    assert dynamic_calls(region, facts("none")) == {}


def test_sums_that_others_read_stay_integers(folder: Path) -> None:
    region = region_in(folder, "signed")
    sums = [n.outputs[0] for n in region.nodes if n.call.op_type == "MatMulInteger"]
    kept = replace(region, outputs=(*region.outputs, sums[0]))
    made = fuse_dynamic(kept, facts("vnni"))
    (node,) = [node for node in made.nodes if node.outputs[0] == sums[0]]
    assert node.call.output(0).dtype == np.int32
    assert kinds(made)["Cast"] == 1


def test_weights_that_are_computed_stay_operands_of_matmulinteger(folder: Path) -> None:
    region = region_in(folder, "signed")
    first = next(n for n in region.nodes if n.call.op_type == "MatMulInteger")
    known = {name: a for name, a in region.constants.items() if name != first.inputs[1]}
    changed = replace(region, constants=known, inputs=(*region.inputs, first.inputs[1]))
    assert kinds(fuse_dynamic(changed, facts("vnni")))["MatMulInteger"] == 1


def test_a_layer_is_one_call_for_those_who_price_it(folder: Path) -> None:
    """Its product's; the nodes behind it and the product of scales take no time of their own."""
    region = region_in(folder, "signed")
    own = dynamic_calls(region, facts("vnni"))
    made = {name for name, call in own.items() if call is not None}
    operators = {node.call.name: node.call.op_type for node in region.nodes}
    assert {operators[name] for name in made} == {"MatMulInteger"}
    assert len(made) == 4
    assert {operators[name] for name in set(own) - made} == {"Cast", "Mul", "Add"}
    assert len(own) == 4 * 4 + 2
    scaled = {
        name: a * np.float32(2) if a.dtype == np.float32 else a
        for name, a in region.constants.items()
    }
    again = dynamic_calls(replace(region, constants=scaled), facts("vnni"))
    assert {n: call_key(c) for n, c in again.items() if c} == {
        n: call_key(c) for n, c in own.items() if c
    }


def test_a_share_of_a_product_is_priced_by_itself(folder: Path) -> None:
    """What is behind it has the whole result: nothing of that is in a share."""
    region = region_in(folder, "signed")
    processor = open_opencl(THOROUGH[0])
    for node in region.nodes:
        made = dynamic_calls(region, facts("vnni")).get(node.call.name)
        assert made is None or processor.fused_share(made, node.call) is None
