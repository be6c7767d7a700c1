"""Kernels that read constants alone run once: in the first launch, into memory that stays."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

import coexec
from coexec.core.events import LAYOUT, Trace
from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.executable import (
    PREPARE,
    OpenCLExecutable,
    executable_from_json,
)
from coexec.processors.opencl.family import KernelCall, Lowering, inp, out, scratch
from coexec.processors.opencl.preparation import divide
from coexec.session import Session
from coexec.zoo.catalog import build
from tests.graphs import parse
from tests.running import expected_outputs, run_region
from tests.runtimes import RUNTIMES, THOROUGH, open_opencl

CHANNELS = 16
FEEDS = {"x": np.random.default_rng(1).standard_normal((2, CHANNELS, 12, 12)).astype(np.float32)}


def two_convolutions() -> onnx.ModelProto:
    """The second reads weights that something else reads too, so that they stay on the device."""
    model = parse(
        f"g (float[2,{CHANNELS},12,12] x) => (float[2,{CHANNELS},12,12] y, "
        f"float[{CHANNELS},{CHANNELS},3,3] z) {{ h = Conv<pads = [1,1,1,1]>(x, w) "
        "y = Conv<pads = [1,1,1,1]>(h, v) s = ReduceMax<keepdims = 0>(x) z = Mul(v, s) }"
    )
    rng = np.random.default_rng(0)
    for name in ("w", "v"):
        weights = 0.1 * rng.standard_normal((CHANNELS, CHANNELS, 3, 3))
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights.astype("f4"), name))
    return model


def session_of(processor: str) -> Session:
    return coexec.compile(coexec.load(two_convolutions()), [processor])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_are_prepared_in_the_first_run_only(runtime: str) -> None:
    session = session_of(runtime)
    traces = [Trace(), Trace()]
    first, second = (session.run(FEEDS, trace=trace) for trace in traces)
    once, each = ([e for e in trace.leaves() if e.phase == PREPARE] for trace in traces)
    assert len(once) == 2
    assert each == []
    assert not [e for e in traces[1].leaves() if e.kind == LAYOUT]
    expected = coexec.compile(coexec.load(two_convolutions()), ["reference"]).run(FEEDS)
    for name, result in first.items():
        np.testing.assert_allclose(result, expected[name], rtol=1e-4, atol=1e-5)
        assert result.tobytes() == second[name].tobytes()


def test_known_weights_are_packed_once_even_where_they_could_be_read_in_place() -> None:
    """400 positions: too many for channels in lanes; 40 channels: too many to copy nothing."""
    model = parse("g (float[1,40,20,20] x) => (float[1,48,20,20] y) { y = Conv(x, w) }")
    weights = np.random.default_rng(0).standard_normal((48, 40, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    session = coexec.compile(coexec.load(model), [THOROUGH[0]])
    x = np.random.default_rng(1).standard_normal((1, 40, 20, 20)).astype(np.float32)
    traces = [Trace(), Trace()]
    first, second = (session.run({"x": x}, trace=trace)["y"] for trace in traces)
    names = [[e.operator for e in trace.leaves() if e.operator] for trace in traces]
    assert names == [["Conv.pack", "Conv.packed"], ["Conv.packed"]]
    np.testing.assert_allclose(first[0], np.tensordot(weights[..., 0, 0], x[0], 1), 1e-4, 1e-5)
    assert first.tobytes() == second.tobytes()


def test_memory_of_prepared_weights_is_counted_and_their_sources_are_given_back() -> None:
    processor = open_opencl(THOROUGH[0])
    gc.collect()
    before = processor.allocated_bytes
    session = session_of(THOROUGH[0])
    (executable,) = session.program.executables
    assert isinstance(executable, OpenCLExecutable)
    for _ in range(2):
        session.run(FEEDS)
        assert processor.allocated_bytes - before == session.peak_bytes
    assert len(executable.constants) == 2
    weights = next(iter(executable.constants.values())).nbytes
    assert executable.constant_bytes == executable.prepared_bytes + weights
    assert executable.prepared_bytes > 2 * 4 * weights
    del session, executable
    gc.collect()
    assert processor.allocated_bytes == before


def test_a_bundle_prepares_its_own_weights(tmp_path: Path) -> None:
    session = session_of(THOROUGH[0])
    path = tmp_path / "prepared.coexec"
    session.save(path)
    loaded = coexec.open_bundle(path)
    assert loaded.program.peak_bytes == session.peak_bytes
    for name, result in session.run(FEEDS).items():
        assert loaded.run(FEEDS)[name].tobytes() == result.tobytes()


@pytest.mark.parametrize(("field", "value"), [("prepared_bytes", 5), ("program", 9)])
def test_a_damaged_record_of_a_preparation_is_refused(field: str, value: int) -> None:
    (executable,) = session_of(THOROUGH[0]).program.executables
    record, constants = executable.to_json()
    place = record if field == "prepared_bytes" else record["preparation"][0]
    place[field] = value
    with pytest.raises(ValueError, match=r"not prepared|no program 9"):
        executable_from_json(record, constants, THOROUGH[0])


def test_weights_that_training_changes_are_not_prepared() -> None:
    model = coexec.load(build("digits_cnn", batch=2, width=CHANNELS))
    trainer = coexec.Trainer(
        model, coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(0.1), [THOROUGH[0]]
    )
    trainer.step({"x": np.zeros((2, 1, 8, 8), np.float32)}, np.zeros(2, np.int64))
    inference, training = (
        any(e.preparation for e in program.executables if isinstance(e, OpenCLExecutable))
        for program in (coexec.compile(model, [THOROUGH[0]]).program, trainer.program)
    )
    assert (inference, training) == (True, False)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_phase_of_a_stride_has_a_block_of_its_own(
    runtime: str, rng: np.random.Generator
) -> None:
    """One block of scratch serves them all where they are packed in every run."""
    op, processor = OPERATORS["ConvTranspose"], open_opencl(runtime)
    operands: list[Array | None] = [
        rng.standard_normal((1, 5, 4, 4)).astype(np.float32),
        rng.standard_normal((5, 6, 3, 3)).astype(np.float32),
    ]
    x, weights = operands
    assert x is not None
    assert weights is not None
    types = tuple(TensorType(o.shape, o.dtype) for o in operands if o is not None)
    call = op.typed(OpCall("ConvTranspose", types, {"strides": (2, 2)}, constants={1: weights}))
    region = Region.alone(call)
    executable = processor.compile(region)
    assert isinstance(executable, OpenCLExecutable)
    assert len(executable.preparation) == 4
    (result,) = run_region(processor, region, executable, {"x0": x})
    (expected,) = expected_outputs(op, call, operands)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_a_block_filled_again_in_a_run_is_not_prepared() -> None:
    """Of two kernels that fill it, the second reads an operand that is no constant."""

    def kernel(*args: object, layout: bool = False) -> KernelCall:
        return KernelCall("any", "any", args, (1,), layout=layout)  # type: ignore[arg-type]

    pack, repack = (kernel(inp(i), scratch(0), layout=True) for i in (1, 0))
    use = kernel(scratch(0), scratch(1), out(0))
    parts = divide(Lowering((pack, use, repack, use), (8, 4)), {1})
    assert [call.args[-1].kind for call in parts.once] == ["prepared"]  # type: ignore[union-attr]
    assert parts.blocks == (8,)
    first, again, second = parts.lowering.calls
    assert first.args[0] == parts.once[0].args[-1]
    assert (again, second) == (repack, use)
    assert parts.lowering.scratch == (8, 4)
