"""Quantised networks run on bytes where a device has dot products, as ONNX Runtime runs them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import (
    QuantFormat,
    QuantType,
    quantize_static,
)

import coexec
from coexec.base.errors import ProcessorError
from coexec.base.knobs import BUILD_APART, CACHE_DIR
from coexec.core.types import Array, Region
from coexec.cost.key import call_key
from coexec.processors.find import open_tuner
from coexec.processors.opencl import byte_dots as probing
from coexec.processors.opencl import processor as opencl_processor
from coexec.processors.opencl import programs as program_cache
from coexec.processors.opencl.build_apart import build_apart
from coexec.processors.opencl.byte_dots import PROBE, byte_dots, check_dots
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.fusion.integer_prices import integer_calls
from coexec.processors.opencl.fusion.operators import ON_BYTES, title
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.programs import ProgramCache
from coexec.processors.opencl.sources import program_text
from coexec.session import Session
from tests.quantised import Batches, of_onnx_runtime, save_in_floats
from tests.runtimes import DRIVERS, THOROUGH, open_opencl

NETWORK = (
    "g (float[2,3,12,12] x, float[24,3,3,3] a, float[24] b, float[24,1,3,3] c, float[24] d,"
    " float[24,24,1,1] e, float[48,16] f, float[16] g, float[16,10] h) => (float[2,10] y)"
    " { i = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, a, b) j = Relu(i)"
    " k = Conv<group = 24, pads = [1, 1, 1, 1]>(j, c, d) l = Conv(k, e) m = Add(l, j)"
    " n = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(m) o = Sigmoid(n)"
    " p = Concat<axis = 1>(n, n) q = GlobalAveragePool(p) r = Flatten(q) s = Gemm(r, f, g)"
    " t = MatMul(s, h) u = GlobalAveragePool(o) v = ReduceSum<keepdims = 0>(u) y = Mul(t, v) }"
)
"""Every kind of layer that bytes are computed in, and operators that stay with floats."""


def image(rng: np.random.Generator) -> Array:
    return rng.uniform(-1, 1, (2, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in 8 bits: with unsigned and with signed results, in both of the formats."""
    folder, rng = tmp_path_factory.mktemp("integers"), np.random.default_rng(3)
    save_in_floats(NETWORK, rng, folder / "float.onnx")
    for kind, by_channel, form in (
        (QuantType.QUInt8, True, QuantFormat.QDQ),
        (QuantType.QInt8, False, QuantFormat.QDQ),
        (QuantType.QUInt8, False, QuantFormat.QOperator),
    ):
        quantize_static(
            folder / "float.onnx",
            folder / f"{kind.name}-{form.name}.onnx",
            Batches([image(rng) for _ in range(4)]),
            quant_format=form,
            activation_type=kind,
            weight_type=QuantType.QInt8,
            per_channel=by_channel,
        )
    return folder


def kinds(region: Region) -> Counter[str]:
    return Counter(title(node.call) for node in region.nodes)


@pytest.mark.parametrize("runtime", DRIVERS)
@pytest.mark.parametrize("name", ["QUInt8-QDQ", "QInt8-QDQ", "QUInt8-QOperator"])
def test_a_network_on_bytes_gives_what_onnx_runtime_gives(
    folder: Path, runtime: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to three of the steps of a result that passes through ten layers."""
    regions: list[Region] = []

    def kept(region: Region, facts: object, *more: object) -> object:
        regions.append(fuse(region, facts))  # type: ignore[arg-type]
        return compile_region(region, facts, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(opencl_processor, "compile_region", kept)
    path, x = folder / f"{name}.onnx", image(np.random.default_rng(7))
    processor = open_opencl(runtime)
    (y,) = coexec.compile(coexec.load(path), [runtime]).run({"x": x}).values()
    expected = of_onnx_runtime(path, x)
    assert np.abs(y - expected).max() < 0.03 * np.abs(expected).max()
    found = kinds(max(regions, key=lambda region: len(region.nodes)))
    on_bytes = byte_dots(processor.programs) != "none"
    in_floats = sum(found[kind] for kind in ("Conv", "MatMul", "Gemm"))
    if not on_bytes:
        assert in_floats > 0
        return
    # In the operator-oriented format, a pool and a Flatten read bytes as they are.
    assert in_floats == 0
    assert found["Conv+QuantizeLinear+Add+QuantizeLinear"] == 1


class Stopped(Exception):
    """Raised where a region would be compiled: what it looks like is enough."""


def quantised_region(folder: Path, name: str) -> Region:
    """The network's region as an OpenCL processor is given it."""
    regions: list[Region] = []

    def stop(region: Region, *_more: object) -> object:
        regions.append(region)
        raise Stopped

    with pytest.MonkeyPatch.context() as here:
        here.setattr(opencl_processor, "compile_region", stop)
        model = coexec.load(folder / f"{name}.onnx")
        with pytest.raises(Stopped):
            coexec.compile(model, THOROUGH[:1])
    return regions[0]


def test_without_dot_products_layers_stay_with_floats(folder: Path) -> None:
    region = quantised_region(folder, "QUInt8-QDQ")
    facts = replace(open_opencl(THOROUGH[0]).facts, dots="none")
    assert kinds(fuse(region, facts))["Conv"] == kinds(region)["Conv"] > 0


def test_all_layers_between_convolutions_are_on_bytes(folder: Path) -> None:
    region = quantised_region(folder, "QUInt8-QDQ")
    found = kinds(fuse(region, replace(open_opencl(THOROUGH[0]).facts, dots="vnni")))
    assert found["Conv+QuantizeLinear"] == 2
    assert found["Conv+QuantizeLinear+Add+QuantizeLinear"] == 1
    assert found["MaxPool+QuantizeLinear"] == found["Concat+QuantizeLinear"] == 1
    assert found["Gemm+QuantizeLinear"] == found["MatMul+QuantizeLinear"] == 1


def test_a_layer_on_bytes_is_one_call_for_those_who_price_it(folder: Path) -> None:
    """Its convolution's; layers of one geometry are one call, whatever their scales are."""
    region = quantised_region(folder, "QUInt8-QDQ")
    facts = replace(open_opencl(THOROUGH[0]).facts, dots="vnni")
    own = integer_calls(region, facts)
    made = {name: call for name, call in own.items() if call is not None}
    fused = [node.call for node in fuse(region, facts).nodes if node.call.identifier in ON_BYTES]
    assert Counter(map(title, made.values())) == Counter(map(title, fused))
    operators = {node.call.name: node.call.op_type for node in region.nodes}
    heavy = {"Conv", "Gemm", "MatMul"}
    assert {operators[name] for name in own if own[name] is None} <= {
        "QuantizeLinear", "DequantizeLinear", "Relu", "Add", "Flatten",
    }  # fmt: skip
    assert all(name in made for name, kind in operators.items() if kind in heavy)
    assert not integer_calls(region, replace(facts, dots="none"))
    scaled = {
        name: value * np.float32(2) if value.dtype == np.float32 else value
        for name, value in region.constants.items()
    }
    again = integer_calls(replace(region, constants=scaled), facts)
    assert {name: call_key(call) for name, call in again.items() if call} == {
        name: call_key(call) for name, call in made.items()
    }


def test_layers_on_bytes_are_tuned(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the dot products of the device; no variant is refused for what fills channels up."""
    monkeypatch.setenv(CACHE_DIR.name, str(tmp_path))
    tuner = open_tuner(THOROUGH[0])
    processor = tuner.processor
    assert isinstance(processor, OpenCLProcessor)
    if byte_dots(processor.programs) == "none":
        pytest.skip("no dot products of bytes")
    Session(coexec.load(folder / "QUInt8-QDQ.onnx"), {processor.name: processor}).run(
        {"x": image(np.random.default_rng(7))}
    )
    report = tuner.tune(6.0, lambda _seconds, _text: None, None)
    found = [call for call in report.calls if call.operator.endswith("IntegerConv") and call.tried]
    assert found
    assert all(not call.refused for call in found)
    assert "kernel=" in found[0].kind


def test_weights_that_were_no_integers_stay_floats(folder: Path) -> None:
    region = quantised_region(folder, "QUInt8-QDQ")
    changed = {
        name: value * np.linspace(1, 1.3, value.size).reshape(value.shape).astype(value.dtype)
        if value.ndim > 1
        else value
        for name, value in region.constants.items()
    }
    facts = replace(open_opencl(THOROUGH[0]).facts, dots="vnni")
    assert kinds(fuse(replace(region, constants=changed), facts))["Conv"] > 0
    assert not any(
        "Conv+" in kind for kind in kinds(fuse(replace(region, constants=changed), facts))
    )


def test_a_compiler_that_ends_its_process_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_DIR.name, str(tmp_path))
    monkeypatch.setenv(BUILD_APART.name, "2")
    device = open_opencl(THOROUGH[0])
    asked = []

    def counted(name: str, sources: list[ProgramSource]) -> bool:
        asked.append(name)
        return build_apart(name, sources)

    monkeypatch.setattr(program_cache, "build_apart", counted)
    good = ProgramSource("good", "__kernel void k(__global int *x) { x[0] = 1; }")
    bad = ProgramSource("bad", "__kernel void k(__global int *x) { x[0] = nothing; }")
    for _ in range(2):
        programs = ProgramCache(device.context, device.device)
        assert programs.survives(good)
        assert not programs.survives(bad)
    assert len(asked) == 2


def test_cpus_without_the_instruction_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are bundles built there that need it: a compiler might end the process."""
    monkeypatch.setattr(probing, "cpu_flags", frozenset)
    programs = open_opencl(THOROUGH[0]).programs
    assert byte_dots(programs) == "none"
    check_dots(programs, [ProgramSource("floats", "#define TILE 1\n")])
    with pytest.raises(ProcessorError, match="VNNI"):
        check_dots(programs, [ProgramSource(PROBE.family, program_text(PROBE))])


def test_a_cpu_laid_out_for_as_a_gpu_has_no_instructions_of_cpus(folder: Path) -> None:
    """A bundle that is made for a GPU on a desk would not build there."""
    region = quantised_region(folder, "QUInt8-QDQ")
    assert open_opencl(f"{THOROUGH[0]}?unit=gpu").facts_for(region).dots == "none"
