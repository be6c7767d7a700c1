"""Sessions: shapes bound by data, values that shape the graph, outputs, fallbacks, memory."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import coexec
from coexec.base.errors import DataError, FallbackWarning
from coexec.core.events import Trace
from coexec.core.program import Launch, Program
from coexec.core.types import Array
from coexec.inputs import Inputs
from coexec.processors.find import open_processor
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.session import Session
from coexec.zoo.catalog import build
from tests.graphs import parse
from tests.pipeline.small import CLASSES, FEATURES, arrays, network

PROCESSORS = ("reference", "opencl")
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


def session_of(text: str, processor: str = "opencl", **shapes: tuple[int, ...]) -> Session:
    session = coexec.compile(coexec.load(parse(text), shapes), [processor])
    if shapes:
        session.program.check()
    return session


def run(session: Session, feeds: Mapping[str, Any], **options: Any) -> dict[str, Array]:
    results = session.run(feeds, **options)
    session.program.check()
    return results


# Shapes


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_symbolic_batch_is_bound_by_the_data(processor: str) -> None:
    session = coexec.compile(coexec.load(network()), [processor])
    with pytest.raises(coexec.CoexecError, match="not known yet: run it once"):
        _ = session.plan
    programs: dict[int, Program] = {}
    whole = arrays(7)["x"]
    expected = run(session, {"x": whole})["y"]
    for size in (1, 3, 7, 3):
        found = run(session, {"x": whole[:size]})["y"]
        assert found.shape == (size, CLASSES)
        np.testing.assert_allclose(found, expected[:size], rtol=1e-4, atol=1e-6)
        assert programs.setdefault(size, session.program) is session.program  # compiled once
    assert len({id(program) for program in programs.values()}) == 3
    assert programs[7].planned_bytes > programs[1].planned_bytes


def test_declared_shapes_compile_before_the_first_run() -> None:
    session = session_of("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    program = session.program
    np.testing.assert_array_equal(run(session, {"x": X})["y"], np.maximum(X, 0))
    assert session.program is program


def test_given_shapes_compile_before_the_first_run() -> None:
    session = session_of("g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }", x=(2, 3))
    program = session.program
    np.testing.assert_array_equal(run(session, {"x": X})["y"], -X)
    assert session.program is program
    with pytest.raises(coexec.CoexecError, match="wants shape 2x3, the data has 1x3"):
        session.run({"x": X[:1]})


@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_empty_batch(processor: str) -> None:
    session = session_of("g (float[N,3] x) => (float[N,3] y) { y = Exp(x) }", processor)
    assert run(session, {"x": X[:0]})["y"].shape == (0, 3)
    np.testing.assert_allclose(run(session, {"x": X})["y"], np.exp(X), rtol=1e-5)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_scalar_input_and_output(processor: str) -> None:
    session = session_of(
        "g (float x, float[2] z) => (float y) { p = Mul(x, z) y = ReduceSum<keepdims = 0>(p) }",
        processor,
    )
    feeds = {"x": np.float32(3), "z": np.array([1, 4], np.float32)}
    found = run(session, feeds)["y"]
    assert found.shape == ()
    assert found == 15


# Inputs whose values shape the graph


@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_input_that_is_a_shape(processor: str) -> None:
    session = session_of(
        "g (float[N,3] x, int64[R] s) => (float y) { r = Reshape(x, s) y = Neg(r) }", processor
    )
    for shape in ((3, 2), (6,), (1, 2, 3), (3, 2)):
        found = run(session, {"x": X, "s": np.array(shape)})["y"]
        np.testing.assert_array_equal(found, -X.reshape(shape))


def test_shapes_computed_from_inputs_need_several_values() -> None:
    """One input's value is needed to learn that another one's is."""
    session = session_of(
        "g (float[N,3] x, int64[1] a, int64[1] b) => (float[P] f, float[Q] y) { "
        "m = Constant<value_ints = [-1]>() f = Reshape(x, m) "
        "s = Add(a, b) z = Slice(f, a, s) y = Exp(z) }"
    )
    for start, length in ((1, 2), (0, 6), (3, 1)):
        feeds = {"x": X, "a": np.array([start]), "b": np.array([length])}
        found = run(session, feeds)["y"]
        np.testing.assert_allclose(found, np.exp(X.ravel()[start : start + length]), rtol=1e-5)


def test_a_condition_given_as_an_input_chooses_the_branch() -> None:
    session = session_of(
        "g (float[2,3] x, bool c) => (float[2,3] y) { y = If (c) "
        "<then_branch = t () => (float[2,3] a) { a = Neg(x) }, "
        "else_branch = e () => (float[2,3] b) { b = Relu(x) }> }"
    )
    assert_equal = np.testing.assert_array_equal
    assert_equal(run(session, {"x": X, "c": np.array(True)})["y"], -X)
    assert_equal(run(session, {"x": X, "c": np.array(False)})["y"], np.maximum(X, 0))
    assert_equal(run(session, {"x": X, "c": np.array(True)})["y"], -X)


# Outputs

ODD = (
    "g (float[N,3] x) => (float[N,3] x2, float[N,3] y, float[2] c, float[N,3] y2, float[3] w, "
    "float[N,3] x) <float[3] w = {5, 6, 7}> "
    "{ c = Constant<value_floats = [1.5, 2.5]>() y = Relu(x) x2 = Identity(x) y2 = Identity(y) }"
)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_outputs_that_are_inputs_constants_weights_or_twice_the_same(processor: str) -> None:
    session = session_of(ODD, processor)
    found = run(session, {"x": X})
    expected = {
        "x2": X,
        "y": np.maximum(X, 0),
        "c": np.array([1.5, 2.5], np.float32),
        "y2": np.maximum(X, 0),
        "w": np.array([5, 6, 7], np.float32),
        "x": X,
    }
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        one = run(session, {"x": X}, outputs=[name])
        assert list(one) == [name]
        np.testing.assert_array_equal(one[name], array)
    found["x"][:] = 99  # results belong to the caller
    np.testing.assert_array_equal(run(session, {"x": X})["x"], X)


def test_only_outputs_asked_for_are_copied() -> None:
    session = session_of(
        "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Relu(x) z = Neg(x) }"
    )
    trace = Trace()
    assert list(run(session, {"x": X}, outputs=["z"], trace=trace)) == ["z"]
    reads = [event for event in trace.leaves() if event.kind == "copy" and event.name == "read"]
    assert [event.bytes for event in reads] == [X.nbytes]
    assert run(session, {"x": X}, outputs=[]) == {}


def test_inputs_that_nothing_reads() -> None:
    session = session_of("g (float[2,3] x, float[5] unused) => (float[2,3] y) { y = Neg(x) }")
    feeds = {"x": X, "unused": np.zeros(5, np.float32)}
    np.testing.assert_array_equal(run(session, feeds)["y"], -X)
    with pytest.raises(coexec.CoexecError, match=r"missing \['unused'\]"):
        session.run({"x": X})


def test_data_in_other_layouts_and_narrower_types() -> None:
    session = session_of("g (float[3,2] x) => (float[3,2] y) { y = Neg(x) }")
    np.testing.assert_array_equal(run(session, {"x": X.T})["y"], -X.T)
    np.testing.assert_array_equal(run(session, {"x": X.T.astype(np.float64)})["y"], -X.T)
    np.testing.assert_array_equal(run(session, {"x": X.T.astype(np.int8)})["y"], -X.T)


# Fallbacks

BFLOAT16 = (
    "g (float[2,3] x) => (float[2,3] y, float[2,3] z) "
    "{ [first] a = Relu(x) [narrow] b = Cast<to = 16>(a) [sum] c = Add(b, b) "
    "[wide] d = Cast<to = 1>(c) [last] y = Neg(d) [other] z = Exp(a) }"
)


def test_only_data_that_fits_is_taken_as_it_is() -> None:
    inputs = Inputs(coexec.load(network()))
    fits = arrays(3)["x"]
    assert inputs.check({"x": fits})["x"] is fits
    for other in (fits.astype(np.float64), fits[:, ::-1], fits.tolist()):
        taken = inputs.check({"x": other})["x"]
        np.testing.assert_array_equal(taken, np.asarray(other, np.float32))
        assert taken.flags.c_contiguous
        assert taken.dtype == np.float32
    for wrong in ({}, {"x": fits[0]}, {"x": fits[:, 1:]}, {"x": fits, "z": fits}):
        with pytest.raises(DataError):
            inputs.check(wrong)


def test_what_the_first_processor_refuses_runs_on_the_reference_and_is_reported() -> None:
    session = session_of(BFLOAT16)
    opencl = next(iter(session.processors))
    found = run(session, {"x": X})
    np.testing.assert_array_equal(found["y"], -2 * np.maximum(X, 0))  # exact in bfloat16
    np.testing.assert_allclose(found["z"], np.exp(np.maximum(X, 0)), rtol=1e-5)
    assert session.plan.processors == {
        "first": opencl,
        "narrow": "reference",
        "sum": "reference",
        "wide": "reference",
        "last": opencl,
        "other": opencl,
    }
    refused = {(r.node, r.operator, r.processor) for r in session.plan.refusals}
    assert refused == {
        ("narrow", "Cast", opencl),
        ("sum", "Add", opencl),
        ("wide", "Cast", opencl),
    }
    assert all("bfloat16" in refusal.reason for refusal in session.plan.refusals)
    lines = session.fallbacks.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"Add x1 not on {opencl}: ")
    assert lines[1].startswith(f"Cast x2 not on {opencl}: ")
    assert lines[1].endswith("(narrow, wide)")


def test_a_fallback_is_said_when_it_is_decided() -> None:
    with pytest.warns(FallbackWarning, match="Cast x2 not on opencl"):
        session_of(BFLOAT16)


def test_a_fallback_in_the_middle_makes_three_regions() -> None:
    session = session_of(BFLOAT16)
    run(session, {"x": X})
    launches = [step for step in session.program.instructions if isinstance(step, Launch)]
    homes = [session.program.executables[step.executable].processor for step in launches]
    assert homes.count("reference") == 1
    assert homes[0] == homes[-1] == next(iter(session.processors))


def test_nothing_is_reported_where_everything_runs_on_the_first() -> None:
    session = session_of("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    assert session.fallbacks == ""
    assert session.plan.refusals == ()


def test_nodes_of_the_same_name_keep_their_own_places() -> None:
    proto = parse(BFLOAT16)
    for node in proto.graph.node:
        node.name = "same"
    session = coexec.compile(coexec.load(proto), ["opencl"])
    np.testing.assert_array_equal(run(session, {"x": X})["y"], -2 * np.maximum(X, 0))
    assert len(session.plan.processors) == 6


def test_float16_where_the_device_lacks_it_is_right_all_the_same() -> None:
    session = session_of("g (float16[2,3] x) => (float16[2,3] y) { y = Exp(x) }")
    found = run(session, {"x": X.astype(np.float16)})["y"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, np.exp(X), rtol=2e-3)
    processor = next(iter(session.processors.values()))
    has_half = processor.describe().features["fp16"]
    assert (session.fallbacks == "") is has_half


# Memory

CHAIN = 12
LONG = (
    "g (float[64,64] a0) => (float[64,64] y) { "
    + " ".join(f"t{i} = Transpose(a{i}) a{i + 1} = Softmax(t{i})" for i in range(CHAIN))
    + f" y = Transpose(a{CHAIN}) }}"
)


def test_memory_of_a_deep_chain_is_reused() -> None:
    session = session_of(LONG)
    program, one = session.program, 64 * 64 * 4
    assert program.naive_bytes >= (CHAIN + 2) * one
    # Input, output and at most two intermediate tensors at a time.
    assert 3 * one <= session.peak_bytes <= 4 * one
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    expected = session_of(LONG, "reference").run({"a0": x})["y"]
    np.testing.assert_allclose(run(session, {"a0": x})["y"], expected, rtol=1e-4)


@pytest.mark.parametrize("case", ["chain", "weights", "odd outputs", "convolutions"])
def test_peak_bytes_are_what_the_processor_allocated(case: str) -> None:
    models = {
        "chain": (coexec.load(parse(LONG)), {"a0": np.zeros((64, 64), np.float32)}),
        "weights": (coexec.load(network()), {"x": arrays(9)["x"]}),
        "odd outputs": (coexec.load(parse(ODD)), {"x": X}),
        "convolutions": (
            coexec.load(build("digits_cnn", width=4)),
            {"x": np.zeros((3, 1, 8, 8), np.float32)},
        ),
    }
    model, feeds = models[case]
    processor = open_processor("opencl")
    assert isinstance(processor, OpenCLProcessor)
    gc.collect()
    before = processor.allocated_bytes
    session = coexec.compile(model, ["opencl"])
    session.run(feeds)
    assert session.fallbacks == ""
    assert processor.allocated_bytes - before == session.peak_bytes
    assert session.peak_bytes <= session.program.naive_bytes
    session.run(feeds)
    assert processor.allocated_bytes - before == session.peak_bytes  # a run allocates nothing
    del session
    gc.collect()
    assert processor.allocated_bytes == before  # and all of it is given back


def test_peak_bytes_of_training() -> None:
    processor = open_processor("opencl")
    assert isinstance(processor, OpenCLProcessor)
    gc.collect()
    before = processor.allocated_bytes
    learner = coexec.Trainer(
        coexec.load(network()),
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.SGD(0.1, momentum=0.9),
        ["opencl"],
    )
    data = arrays(16)
    for _ in range(3):
        learner.step({"x": data["x"]}, data["labels"])
        assert processor.allocated_bytes - before == learner.peak_bytes
    assert learner.peak_bytes < learner.program.naive_bytes


def test_the_reference_counts_its_buffers_too() -> None:
    processor = ReferenceProcessor()
    session = Session(coexec.load(network()), {"reference": processor})
    session.run({"x": arrays(4)["x"]})
    assert processor.allocated_bytes == session.peak_bytes == 4 * 4 * (FEATURES + CLASSES)


# Repeated runs


@pytest.mark.parametrize("processor", PROCESSORS)
def test_runs_repeat_bit_by_bit_and_do_not_disturb_each_other(processor: str) -> None:
    session = coexec.compile(coexec.load(network()), [processor])
    first, other = arrays(6, seed=1)["x"], arrays(6, seed=2)["x"]
    expected = run(session, {"x": first})["y"]
    kept = expected.copy()
    assert not np.array_equal(run(session, {"x": other})["y"], expected)
    assert run(session, {"x": first})["y"].tobytes() == kept.tobytes()
    np.testing.assert_array_equal(expected, kept)  # later runs leave earlier results alone


def test_a_traced_run_gives_the_same_and_covers_every_node() -> None:
    session = coexec.compile(coexec.load(network()), ["opencl"])
    x = arrays(6)["x"]
    plain = run(session, {"x": x})["y"]
    trace = Trace()
    assert run(session, {"x": x}, trace=trace)["y"].tobytes() == plain.tobytes()
    names = [event.name for event in trace.leaves() if event.kind == "launch"]
    launched = {part for name in names for part in name.split("+")}  # fused nodes are one launch
    assert {"fc1", "relu", "fc2"} <= launched
    assert all(event.end_ns >= event.start_ns for event in trace.leaves())


def test_strings_are_refused_by_name_whatever_is_fed() -> None:
    model = parse(
        "g (string[2] s, float[2] x) => (string[2] t, float[2] y) {t = Identity(s) y = Relu(x)}"
    )
    session = coexec.compile(coexec.load(model), ["reference"])
    for given in (np.array(["a", "b"]), np.zeros(2), np.array(["a", None], object)):
        with pytest.raises(DataError, match="input 's' wants strings; coexec computes on numbers"):
            session.run({"s": given, "x": np.zeros(2, np.float32)})
