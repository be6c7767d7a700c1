"""Outputs that are inputs of the next run stay on processors: what the host would hand in again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

import coexec
from coexec.base.errors import DataError, ModelError, UsageError
from coexec.core.plan import Plan
from coexec.core.program import Launch, Read, Write
from coexec.core.types import Array
from coexec.ops.node import type_of
from coexec.session import Session
from tests.graphs import parse
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed
from tests.runtimes import DRIVERS

PROCESSORS = ("reference", "ort:cpu", *DRIVERS)
SUM = "g (float[2,3] x, float[2,3] h) => (float[2,3] y, float[2,3] n) { n = Add(x, h) y = Neg(n) }"
ONES = np.ones((2, 3), np.float32)
LSTM = (
    "g (float[1,2,3] x, float[1,20,3] w, float[1,20,5] r, float[1,2,5] h, float[1,2,5] c)"
    " => (float[1,1,2,5] y, float[1,2,5] hn, float[1,2,5] cn)"
    " { y, hn, cn = LSTM<hidden_size = 5>(x, w, r, , , h, c) }"
)
CACHE = (
    "g (float[1,S,64] q, float[1,S,64] k, float[1,S,64] v, float[1,2,L,32] pk, float[1,2,L,32] pv,"
    " int32[1] last, int32 total) => (float[1,S,64] y, float[1,2,L,32] k2, float[1,2,L,32] v2)"
    " { y, k2, v2 = com.microsoft.GroupQueryAttention<num_heads = 2, kv_num_heads = 2>"
    "(q, k, v, pk, pv, last, total) }"
)
CACHES = {"k2": "pk", "v2": "pv"}
MICROSOFT = '"com.microsoft" : 1'


def weighted(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """A model whose inputs of these names are weights."""
    rng = np.random.default_rng(1)
    kept = []
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = (0.4 * rng.standard_normal(shape)).astype(np.float32)
        if value.name in names:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        else:
            kept.append(value)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def lstm() -> onnx.ModelProto:
    return weighted(parse(LSTM), "w", "r")


def fed_back(
    session: Session,
    carried: Mapping[str, str],
    state: dict[str, Array],
    feeds: list[dict[str, Array]],
) -> list[dict[str, Array]]:
    """Results of runs of a session that carries nothing: the host hands the states in again."""
    results = []
    for each in feeds:
        found = session.run({**each, **state})
        state = {name: found[output] for output, name in carried.items()}
        results.append(found)
    return results


@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_output_is_an_input_of_the_next_run(processor: str) -> None:
    session = coexec.compile(coexec.load(parse(SUM)), [processor], carried={"n": "h"})
    for expected in (-1, -2, -3):
        found = session.run({"x": ONES})
        assert list(found) == ["y"]
        np.testing.assert_array_equal(found["y"], expected * ONES)


def test_it_does_not_come_to_the_host() -> None:
    session = coexec.compile(coexec.load(parse(SUM)), ["opencl"], carried={"n": "h"})
    steps = session.program.instructions
    assert [step.tensor for step in steps if isinstance(step, Write)] == ["x"]
    assert [step.tensor for step in steps if isinstance(step, Read)] == ["y"]


def test_it_is_read_where_it_is_asked_for() -> None:
    session = coexec.compile(coexec.load(parse(SUM)), ["opencl"], carried={"n": "h"})
    with pytest.raises(DataError, match="'h' before the first run"):
        session.carried()
    session.run({"x": ONES})
    found = session.run({"x": ONES}, outputs=["n", "y"])
    assert list(found) == ["n", "y"]
    np.testing.assert_array_equal(found["n"], 2 * ONES)
    np.testing.assert_array_equal(session.carried()["h"], 2 * ONES)


def test_a_session_begins_again_with_zeros_or_with_what_it_is_given() -> None:
    session = coexec.compile(coexec.load(parse(SUM)), ["opencl"], carried={"n": "h"})
    start = 5 * ONES
    session.reset({"h": start})
    start[:] = 7
    np.testing.assert_array_equal(session.run({"x": ONES})["y"], -6 * ONES)
    kept = session.carried()
    session.reset()
    np.testing.assert_array_equal(session.run({"x": ONES})["y"], -ONES)
    session.reset(kept)
    np.testing.assert_array_equal(session.run({"x": ONES})["y"], -7 * ONES)
    np.testing.assert_array_equal(session.run({"x": ONES, "h": ONES})["y"], -2 * ONES)
    np.testing.assert_array_equal(session.run({"x": ONES})["y"], -3 * ONES)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_stream_through_an_lstm_is_what_the_host_would_feed_back(processor: str) -> None:
    carried = {"hn": "h", "cn": "c"}
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 2, 3)).astype(np.float32)} for _ in range(4)]
    zeros = {name: np.zeros((1, 2, 5), np.float32) for name in ("h", "c")}
    model = coexec.load(lstm())
    expected = fed_back(coexec.compile(model, ["reference"]), carried, zeros, feeds)
    session = coexec.compile(model, [processor], carried=carried)
    for each, wanted in zip(feeds, expected, strict=True):
        np.testing.assert_allclose(session.run(each)["y"], wanted["y"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_prompt_and_single_tokens_share_a_cache_of_one_length(processor: str) -> None:
    room, rng = 12, np.random.default_rng(0)
    model = coexec.load(parse(CACHE, 23, domains=MICROSOFT))
    runs: list[dict[str, Array]] = []
    at = 0
    for rows in (5, 1, 1, 3, 1):
        each = {n: rng.standard_normal((1, rows, 64)).astype(np.float32) for n in ("q", "k", "v")}
        at += rows
        ends = {"last": np.array([at - 1], np.int32), "total": np.array(at, np.int32)}
        runs.append({**each, **ends})
    zeros = {name: np.zeros((1, 2, room, 32), np.float32) for name in ("pk", "pv")}
    expected = fed_back(coexec.compile(model, ["reference"]), CACHES, zeros, runs)
    session = coexec.compile(model, [processor], carried=CACHES)
    session.reset(zeros)
    programs = set()
    for each, wanted in zip(runs, expected, strict=True):
        found = session.run(each)
        np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-4, atol=1e-5)
        programs.add(id(session.program))
    np.testing.assert_allclose(session.carried()["pk"], expected[-1]["k2"], rtol=1e-5, atol=1e-6)
    assert len(programs) == 3  # one for each number of rows


def test_a_carried_cache_is_written_in_place() -> None:
    model = coexec.load(
        parse(CACHE, 23, domains=MICROSOFT), {"q": (1, 1, 64), "pk": (1, 2, 4096, 32)}
    )
    session = coexec.compile(model, ["opencl"], carried=CACHES)
    (launch,) = (step for step in session.program.instructions if isinstance(step, Launch))
    assert {"pk@", "k2@"}.isdisjoint(name[:3] for name in launch.buffers)
    cache = 2 * 4096 * 32 * 4
    assert session.program.planned_bytes < 2 * cache + 2**17


def test_a_plan_of_the_model_is_followed() -> None:
    """It was made of the model without what is carried, where caches may be padded."""
    text = CACHE.replace(", int32 total)", ")").replace("[1,S,", "[1,1,").replace("L,32", "6,32")
    total = " { t = Constant<value_ints = [6]>() total = Cast<to = 6>(t) y,"
    model = coexec.load(parse(text.replace(" { y,", total), 23, domains=MICROSOFT))
    alone = coexec.compile(model, ["reference"])
    (gpu, *_) = coexec.compile(model, ["opencl"]).processors
    plan = Plan(dict.fromkeys(alone.plan.processors, gpu))
    session = coexec.compile(model, ["opencl"], plan=plan, carried=CACHES)
    rng, runs = np.random.default_rng(0), []
    for at in range(3):
        each: dict[str, Array] = {"last": np.array([at], np.int32)}
        runs.append(each | {n: rng.standard_normal((1, 1, 64)).astype(np.float32) for n in "qkv"})
    zeros = {name: np.zeros((1, 2, 6, 32), np.float32) for name in ("pk", "pv")}
    for each, wanted in zip(runs, fed_back(alone, CACHES, zeros, runs), strict=True):
        np.testing.assert_allclose(session.run(each)["y"], wanted["y"], rtol=1e-4, atol=1e-5)


WRITTEN = {
    "TensorScatter": ("k2 = TensorScatter(k, u, i)", (1,)),
    "ScatterElements": ("k2 = ScatterElements<axis = 2>(k, i, u)", (1, 2, 1, 32)),
    "ScatterND": ("k2 = ScatterND(k, i, u)", (1, 2, 1, 3)),
    "index_copy": (
        (
            "t = Transpose<perm = [2, 1, 0, 3]>(k) n = Transpose<perm = [2, 1, 0, 3]>(u)"
            " s = ScatterND(t, i, n) k2 = Transpose<perm = [2, 1, 0, 3]>(s)"
        ),
        (1, 1),
    ),
}
"""By operator, what writes a row ``u`` into a cache, and the shape of its indices."""


@pytest.mark.parametrize("operator", WRITTEN)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_rows_are_written_into_a_cache(processor: str, operator: str) -> None:
    writes, shape = WRITTEN[operator]
    dims = ",".join(map(str, shape))
    text = (
        f"g (float[1,2,1,32] u, int64[{dims}] i, float[1,2,70,32] k)"
        f" => (float[1,2,70,32] y, float[1,2,70,32] k2) {{ {writes} y = Neg(k2) }}"
    )
    session = coexec.compile(coexec.load(parse(text, 24)), [processor], carried={"k2": "k"})
    rng = np.random.default_rng(0)
    cache = rng.standard_normal((1, 2, 70, 32)).astype(np.float32)
    session.reset({"k": cache})
    for row in (0, 69, 33, 33):
        fresh = rng.standard_normal((1, 2, 1, 32)).astype(np.float32)
        places = np.full(shape, row)
        if operator == "ScatterND":
            places[..., 0], places[0, :, 0, 1] = 0, (0, 1)
        cache[:, :, row] = fresh[:, :, 0]
        found = session.run({"u": fresh, "i": places})["y"]
        np.testing.assert_array_equal(found, -cache)
    np.testing.assert_array_equal(session.carried()["k"], cache)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_states_that_change_places_keep_their_values(processor: str) -> None:
    """What is read after it was replaced would be the new value."""
    text = (
        "g (float[4] x, float[4] a, float[4] b, float[2,2] c) =>"
        " (float[4] y, float[4] a2, float[4] b2, float[2,2] c2, float[4] old)"
        " { a2 = Identity(b) b2 = Add(a, x) s = Constant<value_ints = [2, 2]>() u = Reshape(a, s)"
        " c2 = Add(u, c) y = Mul(b2, b) f = Constant<value_ints = [4]>() old = Reshape(c, f) }"
    )
    carried = {"a2": "a", "b2": "b", "c2": "c"}
    check_against_feedback(parse(text), carried, processor)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("seed", range(6))
def test_random_recurrences_are_what_the_host_would_feed_back(processor: str, seed: int) -> None:
    check_against_feedback(*random_recurrence(seed), processor)


@pytest.mark.parametrize("seed", range(6))
def test_random_recurrences_on_two_processors(seed: int) -> None:
    proto, carried = random_recurrence(seed)
    model = coexec.load(proto)
    rng = np.random.default_rng(seed)
    alone = coexec.compile(model, ["reference"])
    names = list(coexec.compile(model, ["opencl", "ort:cpu"]).processors)[:2]
    plan = Plan({node: names[rng.integers(2)] for node in alone.plan.processors})
    session = coexec.compile(model, ["opencl", "ort:cpu"], plan=plan, carried=carried)
    assert set(session.plan.processors.values()) >= set(names)
    compare(alone, session, carried)


def random_recurrence(seed: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A model of some nodes over three states of 4 x 4, with the pairs that it carries."""
    rng = np.random.default_rng(seed)
    lines, made = ["s = Constant<value_ints = [4, 4]>()"], ["x", "a", "b", "c"]
    for number in range(12):
        one, two = rng.choice(made, 2)
        forms = (
            f"Add({one}, {two})",
            f"Mul({one}, {two})",
            f"Tanh({one})",
            f"MatMul({one}, {two})",
            f"Transpose({one})",
            f"Reshape({one}, s)",
            f"Concat<axis = 0>({one}, {two})",
        )
        form = forms[rng.integers(len(forms))]
        name = f"v{number}"
        if form.startswith("Concat"):
            lines += [
                f"{name}j = {form}",
                f"{name}, {name}r = Split<axis = 0, num_outputs = 2>({name}j)",
            ]
        else:
            lines.append(
                f"{name} = Tanh({name}m)" if form.startswith("MatMul") else f"{name} = {form}"
            )
            if form.startswith("MatMul"):
                lines.insert(-1, f"{name}m = {form}")
        made.append(name)
    outputs = [str(name) for name in rng.choice(made, 4)]
    names = ["y", "a2", "b2", "c2"]
    lines += [f"{new} = Identity({old})" for new, old in zip(names, outputs, strict=True)]
    kinds = [f"float[4,4] {name}" for name in ("x", "a", "b", "c")]
    text = f"g ({', '.join(kinds)}) => ({', '.join(f'float[4,4] {n}' for n in names)})"
    return parse(f"{text} {{ {' '.join(lines)} }}"), {"a2": "a", "b2": "b", "c2": "c"}


def check_against_feedback(proto: onnx.ModelProto, carried: dict[str, str], processor: str) -> None:
    model = coexec.load(proto)
    session = coexec.compile(model, [processor], carried=carried)
    compare(coexec.compile(model, ["reference"]), session, carried)


def compare(alone: Session, session: Session, carried: dict[str, str]) -> None:
    """Runs of a session that carries states with those of one that does not."""
    rng = np.random.default_rng(9)
    inputs = {str(value.name): type_of(value).shape for value in session.model.graph.inputs}
    drawn = [
        {n: rng.standard_normal(s).astype(np.float32) for n, s in inputs.items()} for _ in range(5)
    ]
    state = {name: drawn[0][name] for name in carried.values()}
    feeds = [{n: a for n, a in each.items() if n not in state} for each in drawn]
    session.reset(state)
    expected = fed_back(alone, carried, state, feeds)
    names = [*expected[0]]
    for each, wanted in zip(feeds, expected, strict=True):
        found = session.run(each, outputs=names)
        for name in names:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("carried", "message"),
    [
        ({"m": "h"}, "no output 'm'; known: y, n"),
        ({"n": "g"}, "no input 'g'; known: x, h"),
        ({"n": "h", "y": "h"}, "input 'h' is named for several outputs"),
    ],
)
def test_names_that_the_model_does_not_have_are_refused(
    carried: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        coexec.compile(coexec.load(parse(SUM)), ["reference"], carried=carried)


def test_an_output_of_another_shape_is_refused_with_both_names() -> None:
    text = "g (float[2,3] x, float[1,3] h) => (float[2,3] n) { n = Add(x, h) }"
    with pytest.raises(ModelError, match=r"'n' is .*2x3.* 'h', which is .*1x3.*it grows along"):
        coexec.compile(coexec.load(parse(text)), ["reference"], carried={"n": "h"})
    text = "g (float[2,3] x) => (bool[2,3] n) { n = Greater(x, x) }"
    with pytest.raises(ModelError, match="cannot be carried to input 'x'"):
        coexec.compile(coexec.load(parse(text)), ["reference"], carried={"n": "x"})


def test_values_that_do_not_fit_are_refused() -> None:
    session = coexec.compile(coexec.load(parse(SUM)), ["reference"], carried={"n": "h"})
    with pytest.raises(DataError, match=r"inputs \['x'\] are not carried"):
        session.reset({"x": ONES})
    with pytest.raises(DataError, match="'h' wants shape 2x3"):
        session.reset({"h": ONES[:1]})


def test_a_batch_of_another_size_begins_again() -> None:
    text = "g (float[N,3] x, float[N,3] h) => (float[N,3] n) { n = Add(x, h) }"
    session = coexec.compile(coexec.load(parse(text)), ["opencl"], carried={"n": "h"})
    session.run({"x": ONES})
    with pytest.raises(DataError, match=r"since the last run.*reset\(\) first"):
        session.run({"x": ONES[:1]})
    session.reset()
    session.run({"x": ONES[:1]})
    assert session.run({"x": ONES[:1]}, outputs=["n"])["n"].tolist() == [[2, 2, 2]]


def test_where_data_decide_shapes_nothing_is_carried() -> None:
    text = (
        "g (float[4] x, float[4] h) => (float[4] n, int64[1,K] k) { n = Add(x, h) k = NonZero(n) }"
    )
    with pytest.raises(ModelError, match="nothing can be carried"):
        coexec.compile(coexec.load(parse(text)), ["reference"], carried={"n": "h"})


def test_a_bundle_carries_what_its_session_did(tmp_path: Path) -> None:
    path = tmp_path / "sum.bundle"
    coexec.compile(coexec.load(parse(SUM)), ["opencl"], carried={"n": "h"}).save(path)
    session = coexec.open_bundle(path)
    for expected in (-1, -2):
        np.testing.assert_array_equal(session.run({"x": ONES})["y"], expected * ONES)
    np.testing.assert_array_equal(session.carried()["h"], 2 * ONES)
    session.reset({"h": 4 * ONES})
    np.testing.assert_array_equal(session.run({"x": ONES})["y"], -5 * ONES)
    np.testing.assert_array_equal(session.run({"x": ONES, "h": ONES})["y"], -2 * ONES)
    with pytest.raises(DataError, match="not carried"):
        session.reset({"x": ONES})
    with pytest.raises(DataError, match="'h' wants"):
        session.reset({"h": ONES[0]})


def test_the_command_carries_outputs(tmp_path: Path) -> None:
    path, data, found = tmp_path / "sum.onnx", tmp_path / "x.npy", tmp_path / "y.npz"
    onnx.save(parse(SUM), path)
    np.save(data, ONES)
    options = ["--input", f"x={data}", "--carry", "n=h", "--save-outputs", str(found), "--json"]
    done = command("run", str(path), "-p", "reference", *options)
    record = json.loads(done.out)
    assert record["carried"] == {"n": "h"}
    assert record["random_inputs"] == []
    assert list(record["outputs"]) == ["y"]
    wrong = command("run", str(path), "-p", "reference", "--carry", "m=h")
    assert "no output 'm'" in failed(wrong, 2)
