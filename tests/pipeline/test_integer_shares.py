"""Quantised networks on two processors stay on bytes, and bytes are what moves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

import coexec
from coexec.api import open_all
from coexec.core.plan import Plan, Split
from coexec.core.types import Array, Region
from coexec.cost.key import call_key
from coexec.frontend.specialise import specialise
from coexec.ops.node import call_of
from coexec.ops.region import region_of
from coexec.ops.split import CannotSplit, share_call
from coexec.ops.split_rules import way
from coexec.passes.fold_for_inference import fold_for_inference
from coexec.processors.opencl import processor as opencl_processor
from coexec.processors.opencl.byte_dots import byte_dots
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.fusion.integer_prices import as_priced
from coexec.processors.opencl.fusion.operators import ON_BYTES, title
from coexec.session import Session, legalise
from tests.quantised import Batches, save_in_floats
from tests.runtimes import THOROUGH, open_opencl

TWO = (f"{THOROUGH[0]}?cores=1", THOROUGH[0])
NETWORK = (
    "g (float[1,16,12,12] x, float[32,16,3,3] a, float[32] b, float[32,1,3,3] c, float[32] d,"
    " float[32,32,1,1] e, float[32,20] f) => (float[1,20] y)"
    " { [one] i = Conv<pads = [1, 1, 1, 1]>(x, a, b) [act] j = Relu(i)"
    " [deep] k = Conv<group = 32, pads = [1, 1, 1, 1]>(j, c, d) [two] l = Conv(k, e)"
    " [sum] m = Add(l, j) [pool] n = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(m)"
    " [mean] q = GlobalAveragePool(n) [flat] r = Flatten(q) [fc] y = MatMul(r, f) }"
)
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
HEAVY = ("Conv", "MatMul", "Gemm")


@pytest.fixture(scope="module", params=["QUInt8", "QInt8"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in 8 bits, with unsigned and with signed results."""
    if byte_dots(open_opencl(THOROUGH[0]).programs) == "none":
        pytest.skip("no dot products of bytes")
    folder, rng = tmp_path_factory.mktemp("shares"), np.random.default_rng(5)
    save_in_floats(NETWORK, rng, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Batches([image() for _ in range(2)]),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType[request.param],
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return folder / "int8.onnx"


def image() -> Array:
    return np.random.default_rng(7).uniform(-1, 1, (1, 16, 12, 12)).astype(np.float32)


def model_of(path: Path) -> ir.Model:
    """Its nodes are those that a plan names."""
    model = specialise(coexec.load(path), fold_parameters=True)
    fold_for_inference(model)
    return legalise(model, open_all(TWO))


def nodes_of(path: Path) -> list[ir.Node]:
    return list(model_of(path).graph)


def divided(node: ir.Node, axis: int) -> Split | None:
    """Two shares of a node, 3 of 8 and the rest, where it divides."""
    one, two, *_ = open_all(TWO)
    try:
        how = way(call_of(node), axis)
    except CannotSplit:
        return None
    first = how.count * 3 // 8
    if not first:
        return None
    return Split(axis, {one: first * how.quantum, two: (how.count - first) * how.quantum})


def ran(
    path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> tuple[Session, Array, Counter[str]]:
    """What a plan of both processors gives, and the operators of what they compiled."""
    found: Counter[str] = Counter()

    def kept(region: object, facts: object, *more: object) -> object:
        found.update(title(node.call) for node in fuse(region, facts).nodes)  # type: ignore[arg-type]
        return compile_region(region, facts, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(opencl_processor, "compile_region", kept)
    session = coexec.compile(coexec.load(path), TWO, plan=plan)
    (y,) = session.run({"x": image()}).values()
    return session, np.array(y), found


def alone(path: Path) -> Array:
    (y,) = coexec.compile(coexec.load(path), TWO[1:]).run({"x": image()}).values()
    return np.array(y)


@pytest.mark.parametrize("axis", [1, 2], ids=["channels", "rows"])
def test_divided_layers_give_the_very_bytes_of_whole_ones(
    path: Path, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_of(path)
    splits = {str(node.name): split for node in nodes if (split := divided(node, axis))}
    assert len(splits) > 10
    everything = Plan(
        dict.fromkeys((str(n.name) for n in nodes), next(iter(open_all(TWO)))), splits=splits
    )
    session, y, found = ran(path, everything, monkeypatch)
    np.testing.assert_array_equal(y, alone(path))
    assert found["Conv+QuantizeLinear"] >= 4
    assert not found["Conv"]
    assert len(set(session.plan.processors.values())) == 2


def test_a_share_is_priced_as_what_it_becomes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums and pools behind convolutions, too; conversions of floats are cut with those."""
    one = open_opencl(TWO[0])
    made: set[str] = set()

    def kept(region: Region, facts: DeviceFacts, *more: object) -> object:
        calls = [node.call for node in fuse(region, facts).nodes]
        made.update(call_key(as_priced(call)) for call in calls if call.identifier in ON_BYTES)
        return compile_region(region, facts, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(opencl_processor, "compile_region", kept)
    model = model_of(path)
    splits = {str(n.name): split for n in model.graph if (split := divided(n, 1))}
    places = dict.fromkeys((str(n.name) for n in model.graph), TWO[0])
    coexec.compile(coexec.load(path), TWO, plan=Plan(places, splits=splits)).run({"x": image()})
    whole = one.fused(region_of(model.graph))
    priced = []
    for node in model.graph:
        own, name = whole.get(str(node.name)), str(node.name)
        if own is not None and name in splits and node.op_type not in CONVERSIONS:
            how = way(call_of(node), 1)
            first = splits[name].sizes[TWO[0]] // how.quantum
            priced.append(one.fused_share(own, share_call(call_of(node), how, 0, first)))
    assert len(priced) >= 5
    assert {call_key(call) for call in priced if call} <= made


def test_layers_of_different_processors_hand_over_bytes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a plan dequantises: who reads that does so itself."""
    places, place = {}, 0
    for node in nodes_of(path):
        place ^= node.op_type in HEAVY
        places[str(node.name)] = [*open_all(TWO)][place]
    session, y, found = ran(path, Plan(places), monkeypatch)
    np.testing.assert_array_equal(y, alone(path))
    assert not any(found[kind] for kind in HEAVY)
    types = session.program.types
    crossing = {
        types[name].dtype.itemsize
        for name in types
        if f"{name}@{TWO[0]}" in {b.name for b in session.program.buffers}
        and f"{name}@{TWO[1]}" in {b.name for b in session.program.buffers}
    }
    assert crossing == {1}
