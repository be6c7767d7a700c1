"""Models in which data decide shapes run in parts, and compute what ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import coexec
from coexec.base.errors import ModelError
from coexec.core.events import Trace
from coexec.core.types import Array
from tests.graphs import parse
from tests.pipeline import command

DETECTOR = """g (float[1,3,16,16] x, float[4] scale) => (float[M,4] boxes, int64[3,M] found,
    float[1,20,4] all) <int64[1] most = {20}, float[1] limit = {0.3}, float[1] least = {0.4},
    int64[2] flat = {-1, 4}, int64[1] minus = {-1}> {
    h = Conv<strides = [16, 16], kernel_shape = [3, 3]>(x, w)
    shape = Constant<value_ints = [1, 21, 4]>() rows = Reshape(h, shape)
    parts = Constant<value_ints = [20, 1]>() all, last = Split<axis = 1>(rows, parts)
    tall = Constant<value_ints = [1, 1, -1]>()
    four = Constant<value_ints = [3]>() end = Constant<value_ints = [4]>()
    two = Constant<value_ints = [2]>()
    kind = Slice(all, four, end, two) line = Reshape(kind, tall) scores = Sigmoid(line)
    found0 = NonMaxSuppression(all, scores, most, limit, least)
    found = Transpose(found0)
    column = Constant<value_ints = [2]>() box = Gather<axis = 1>(found0, column)
    places = Reshape(box, minus) picked = Gather<axis = 1>(all, places)
    list = Reshape(picked, flat) boxes = Mul(list, scale)
}"""

TWICE = """g (float[40] x) => (float[N] y, int64[1] count) <int64[1] flat = {-1}> {
    zero = Constant<value_float = 0.0>()
    h = Sin(x) above = Greater(h, zero) at0 = NonZero(above) at = Reshape(at0, flat)
    some = Gather(h, at) z = Cos(some) half = Constant<value_float = 0.8>()
    more = Less(z, half) y = Compress<axis = 0>(z, more) count = Shape(at)
}"""


def detector() -> onnx.ModelProto:
    model = parse(DETECTOR)
    w = np.random.default_rng(0).standard_normal((84, 3, 3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    return model


def both(
    model: onnx.ModelProto, session: coexec.Session, feeds: dict[str, Array]
) -> list[tuple[Array, Array]]:
    """Each output, ours and ONNX Runtime's."""
    theirs = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = theirs.run(None, feeds)
    return list(zip(session.run(feeds).values(), map(np.asarray, expected), strict=True))


@pytest.mark.parametrize("processor", ["opencl", "reference"])
def test_boxes_of_a_network_are_those_of_onnxruntime(
    processor: str, rng: np.random.Generator
) -> None:
    model, counts = detector(), set()
    session = coexec.compile(coexec.load(model), [processor])
    for _ in range(6):
        x = rng.standard_normal((1, 3, 16, 16), np.float32)
        results = both(model, session, {"x": x, "scale": np.ones(4, np.float32)})
        for ours, theirs in results:
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        counts.add(len(results[0][0]))
    assert len(counts) > 1


def test_what_is_found_may_decide_again(rng: np.random.Generator) -> None:
    model = parse(TWICE)
    session = coexec.compile(coexec.load(model), ["opencl"])
    for _ in range(3):
        for ours, theirs in both(model, session, {"x": rng.standard_normal(40, np.float32)}):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert session.run({"x": np.full(40, -1, np.float32)})["y"].shape == (0,)


def test_what_nobody_reads_behind_a_search_is_left_out(rng: np.random.Generator) -> None:
    model = parse("""g (float[9] x) => (int64[1,N] at) <int64[1] flat = {-1}> {
        h = Sin(x) high = Floor(h) at = NonZero(high)
        line = Reshape(at, flat) dead = Gather(h, line)
    }""")
    session = coexec.compile(coexec.load(model), ["opencl"])
    for ours, theirs in both(model, session, {"x": 5 * rng.standard_normal(9, np.float32)}):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shift", [0, -2])
def test_what_is_found_may_decide_between_branches(shift: float) -> None:
    """As torchvision's detectors: no box at all is a case of its own."""
    model = parse("""g (float[5] x, float[5] z) => (float[N] y) <int64[1] flat = {-1}> {
        h = Sin(x) high = Ceil(h) at = NonZero(high) line = Reshape(at, flat) some = Gather(h, line)
        count = Size(some) none = Constant<value_int = 0>() empty = Equal(count, none)
        y = If (empty) <then_branch = a () => (float[N] t) { t = Identity(z) },
            else_branch = b () => (float[N] e) { double = Add(some, some) e = Cos(double) }>
    }""")
    session = coexec.compile(coexec.load(model), ["opencl"])
    x = np.linspace(0.5, 1, 5, dtype=np.float32) + np.float32(shift)
    for ours, theirs in both(model, session, {"x": np.maximum(x, -1), "z": -x}):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_parts_tell_their_memory_and_their_nodes() -> None:
    session = coexec.compile(coexec.load(detector()), ["opencl"])
    feeds = {"x": np.ones((1, 3, 16, 16), np.float32), "scale": np.ones(4, np.float32)}
    trace = Trace()
    assert session.run(feeds, ["found"], trace=trace).keys() == {"found"}
    assert session.peak_bytes > 84 * 27 * 4
    assert {"opencl", "reference"} == {name.split(":")[0] for name in session.plan.named}
    assert any("Conv" in event.operator for event in trace.leaves())
    with pytest.raises(ModelError, match=r"runs in parts.*NonMaxSuppression"):
        session.save(Path("never.bundle"))


def test_the_command_line_runs_a_model_in_parts(tmp_path: Path) -> None:
    onnx.save(detector(), tmp_path / "model.onnx")
    done = command.coexec(
        "run", tmp_path / "model.onnx", "--json", "--trace", tmp_path / "run.pftrace"
    )
    record = done.record
    assert record["outputs"]["all"]["shape"] == [1, 20, 4]
    assert record["peak_bytes"] > 0
