"""The shares that a plan takes are measured themselves, and it is planned again by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from coexec.core.machine import Rates
from coexec.core.processor import Processor, ProcessorSpec
from coexec.core.types import OpCall
from coexec.cost import measuring
from coexec.cost.distribution import Distribution
from coexec.cost.transfer import HostLink, Line
from coexec.frontend import load
from coexec.planning.planner import Planning, PlanOptions, measured_again, plan_inference
from coexec.planning.shares import agree, merged
from coexec.processors.reference.processor import ReferenceProcessor
from tests.known_costs import know

CHANNELS, TILE = 64, 8
TILE_US = {"a": 100.0, "b": 400.0}
SIDE = 6
FEEDS = {"x": np.ones((1, 4, SIDE, SIDE), np.float32)}


class OnCore(ReferenceProcessor):
    """The reference under another name, on a core of that name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(self.name, "cpu", "NumPy", resources=(self.name,))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Channels of the shares that are measured, on a machine that computes whole tiles of them.

    Rows in shares take far longer, and nothing takes time on its way.
    """
    found: list[int] = []

    def measured(processor: Processor, call: OpCall, _sweep: object) -> Distribution:
        (made,) = call.outputs
        assert made is not None
        _, channels, rows, _ = made.shape
        found.append(channels)
        us = TILE_US[processor.describe().name] * -(-channels // TILE)
        return Distribution.exactly(us if rows == SIDE else 20 * us)

    nothing = Line(Distribution.exactly(0.0), 0.0)
    known = dict.fromkeys(TILE_US, Rates({"float32": 100.0}, 10.0, 1.0, 0.0))
    know(monkeypatch, tmp_path, known.__getitem__)
    monkeypatch.setattr(measuring, "measure_call", measured)
    monkeypatch.setattr(measuring, "measure_link", lambda _: HostLink(nothing, nothing))
    monkeypatch.setattr(measuring, "measure_handover", lambda *_: None)
    monkeypatch.setattr(measuring, "_measure_slowdown", lambda *_: None)
    return found


@pytest.fixture
def model() -> ir.Model:
    """A convolution with weights of its own."""
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, SIDE, SIDE])
        for name, channels in (("x", 4), ("y", CHANNELS))
    ]
    weights = numpy_helper.from_array(np.ones((CHANNELS, 4, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


def planned(model: ir.Model, seconds: float = 60.0) -> Planning:
    processors: dict[str, Processor] = {name: OnCore(name) for name in TILE_US}
    return plan_inference(model, FEEDS, processors, PlanOptions("operator_split", seconds))


def test_the_shares_of_a_plan_end_where_tiles_do(model: ir.Model, asked: list[int]) -> None:
    """By quarters, 52 and 12 channels seem to end together: those are 7 tiles and 2."""
    planning = planned(model)
    assert dict(planning.plan.splits["conv"].sizes) == {"a": 56, "b": 8}
    assert planning.plan.predicted_us == pytest.approx(700.0, rel=0.01)
    assert {16, 32, 48, 64, 56, 8} < set(asked)


def test_what_was_measured_is_found_again_without_measuring(
    model: ir.Model, asked: list[int]
) -> None:
    first = planned(model).plan
    for _ in range(3):
        planned(model)
    asked.clear()
    assert planned(model).plan == first
    assert not asked


def test_without_time_nothing_is_measured(model: ir.Model, asked: list[int]) -> None:
    planned(model, seconds=0.0)
    assert not asked


def test_an_inference_is_planned_again_by_calls_that_runs_contradict(
    model: ir.Model, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first was busy when it was measured; runs on it say so, and the ratio is another one."""
    monkeypatch.setitem(TILE_US, "a", 300.0)
    busy = planned(model)
    assert measured_again(busy, ["a"], 60.0) is busy
    monkeypatch.setitem(TILE_US, "a", 100.0)
    asked.clear()
    calm = measured_again(busy, ["a"], 60.0)
    assert asked == [CHANNELS]
    assert calm.planned.problem.times == [[800.0, 3200.0]]


def test_points_are_those_of_both_and_agree_if_their_times_do(
    model: ir.Model, asked: list[int]
) -> None:
    one, other = {(0, 1): frozenset({3})}, {(0, 1): frozenset({4}), (2, 0): frozenset({1})}
    assert merged(one, other) == {(0, 1): frozenset({3, 4}), (2, 0): frozenset({1})}
    before, after = planned(model, 0.0).whole, planned(model).whole
    assert asked
    points = {(0, 1): frozenset({8})}
    assert agree(after.problem, after.problem, points)
    assert not agree(before.problem, after.problem, points)
