"""Streams through pipelines and copies on real processors: the results of one, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from coexec.api import compile as compile_model
from coexec.api import load, open_all
from coexec.base.errors import DataError, ModelError
from coexec.core.plan import Plan, Split
from coexec.core.types import Array
from coexec.frontend.specialise import specialise
from coexec.passes.fold_batch_norm import fold_batch_norm
from coexec.serving.stages import Stage, compile_stages, cut
from coexec.serving.stream import Pipeline, Replicas, pipeline, replicas
from coexec.session import Session, legalise
from tests.graphs import parse
from tests.runtimes import THOROUGH

REF = "reference"
RUNTIME = THOROUGH[0]
# A residual and an early output pass over the cut behind `b`; `s` is wanted in both parts.
TEXT = (
    "g (float[2,6] x, float[6] s) => (float[2,6] early, float[2,6] y) {"
    " [a] a = Relu(x) [b] early = Mul(a, s) [c] c = Tanh(early) [d] d = Add(c, a)"
    " [e] y = Mul(d, s) }"
)
CUT = {"a": RUNTIME, "b": RUNTIME, "c": REF, "d": REF, "e": REF}
COUNT = 25


@pytest.fixture(scope="module")
def model() -> ir.Model:
    loaded = specialise(load(parse(TEXT)), fold_parameters=True)
    fold_batch_norm(loaded)
    return legalise(loaded, open_all([RUNTIME]))


@pytest.fixture(scope="module")
def inputs() -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 6), "s": (6,)}
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(COUNT)
    ]


@pytest.fixture(scope="module")
def expected(model: ir.Model, inputs: list[dict[str, Array]]) -> list[dict[str, Array]]:
    session = compile_model(model, [REF])
    return [session.run(feeds) for feeds in inputs]


def check(found: Iterator[object], expected: list[dict[str, Array]]) -> None:
    results = list(found)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert isinstance(result, dict)
        assert result.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_allclose(result[name], array, rtol=1e-5, atol=1e-6)


def test_parts_take_what_they_need_and_give_what_is_wanted(model: ir.Model) -> None:
    first, second = cut(model, Plan(CUT))
    assert (first.processor, second.processor) == (RUNTIME, REF)
    assert (set(first.inputs), set(first.outputs)) == ({"x", "s"}, {"a", "early"})
    assert (set(second.inputs), set(second.outputs)) == ({"early", "a", "s"}, {"y"})


def test_a_pipeline_gives_what_one_processor_gives_in_order(
    model: ir.Model, inputs: list[dict[str, Array]], expected: list[dict[str, Array]]
) -> None:
    stream = pipeline(model, Plan(CUT))
    assert stream.processors == (RUNTIME, REF)
    check(stream.run(inputs), expected)
    check(stream.run(iter(inputs)), expected)


def test_a_processor_with_two_stages_has_one_thread(
    model: ir.Model, inputs: list[dict[str, Array]], expected: list[dict[str, Array]]
) -> None:
    there_and_back = Plan(CUT | {"b": REF, "c": RUNTIME})
    stream = pipeline(model, there_and_back)
    assert [stage.processor for stage in stream.stages] == [RUNTIME, REF, RUNTIME, REF]
    assert stream.processors == (RUNTIME, REF)
    check(stream.run(inputs), expected)


def test_copies_give_what_one_processor_gives_in_order(
    model: ir.Model, inputs: list[dict[str, Array]], expected: list[dict[str, Array]]
) -> None:
    stream = replicas(model, [RUNTIME, REF])
    assert stream.processors == (open_all([RUNTIME]).popitem()[0], RUNTIME)[::-1]
    check(stream.run(inputs), expected)


class Meeting(Session):
    """A session whose every run waits until another one runs at the same time."""

    def __init__(self, session: Session, barrier: threading.Barrier) -> None:
        self.session = session
        self.barrier = barrier

    def run(self, feeds: object, outputs: object = None, trace: object = None) -> dict[str, Array]:
        self.barrier.wait(20)
        return self.session.run(feeds)  # type: ignore[arg-type]


def test_copies_work_on_different_inputs_at_the_same_time(
    model: ir.Model, inputs: list[dict[str, Array]], expected: list[dict[str, Array]]
) -> None:
    both = threading.Barrier(2)
    session = compile_model(model, [REF])
    check(
        Replicas({"a": Meeting(session, both), "b": Meeting(session, both)}).run(inputs[:24]),
        expected[:24],
    )


def test_stages_work_on_different_inputs_at_the_same_time(
    model: ir.Model, inputs: list[dict[str, Array]], expected: list[dict[str, Array]]
) -> None:
    both = threading.Barrier(2)
    first, second = compile_stages(model, Plan(CUT), open_all([RUNTIME]), REF)
    waiting = iter(inputs)
    # The first input is alone in the first stage, the last one in the second: both pass alone.
    alone = {id(first): 0, id(second): COUNT - 1}
    passed = {id(first): 0, id(second): 0}

    class Overlapping(Stage):
        def run(self, tensors: object) -> dict[str, Array]:
            key = id(first) if self.processor == first.processor else id(second)
            number, passed[key] = passed[key], passed[key] + 1
            if number != alone[key]:
                both.wait(20)
            return super().run(tensors)  # type: ignore[arg-type]

    stages = [Overlapping(s.processor, s.session, s.inputs, s.wanted) for s in (first, second)]
    check(Pipeline(stages).run(waiting), expected)


def test_an_error_is_raised_in_its_place(model: ir.Model, inputs: list[dict[str, Array]]) -> None:
    bad = [*inputs[:3], {"x": inputs[0]["x"]}, *inputs[3:]]
    for stream in (pipeline(model, Plan(CUT)), replicas(model, [RUNTIME, REF])):
        found = stream.run(bad)
        assert [len(next(found)) for _ in range(3)] == [2, 2, 2]
        with pytest.raises((DataError, KeyError), match="s"):
            next(found)


def test_plans_that_are_no_pipeline_are_refused(model: ir.Model) -> None:
    divided = replace(Plan(CUT), splits={"c": Split(1, {RUNTIME: 3, REF: 3})})
    with pytest.raises(ModelError, match="divides nodes"):
        cut(model, divided)
    with pytest.raises(ModelError, match="lacks node"):
        cut(model, Plan({"a": REF}))
