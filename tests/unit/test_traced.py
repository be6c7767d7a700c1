"""Shares balanced by traces: regions give their times to their tasks, and cuts follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coexec.api import open_all
from coexec.core.events import LAUNCH, Event, Trace
from coexec.core.machine import Rates
from coexec.core.plan import Plan
from coexec.core.processor import Processor, ProcessorSpec
from coexec.frontend import load
from coexec.placement.policies.shift_cuts import shift_again
from coexec.placement.policies.table import Outcome, outcome_of
from coexec.placement.problem import Division, Schedule, Shares
from coexec.planning.planner import Planning, PlanOptions, plan_inference
from coexec.planning.traced import (
    MOST,
    Followed,
    Tried,
    balanced,
    by_regions,
    region_times,
    starts_by_calls,
)
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.runtime.region_work import RegionWork
from coexec.session import Session
from tests.graphs import parse
from tests.known_costs import know
from tests.placement.made_up import problem

FEEDS = {"x": np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)}
HALVES = Shares(0, ((0, 32), (1, 32)))


class OnCore(ReferenceProcessor):
    """The reference under another name, with silicon of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def describe(self) -> ProcessorSpec:
        return replace(super().describe(), resources=(self.name,))


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Processor]:
    known = dict.fromkeys(("one", "two", "reference"), Rates({"float32": 100.0}, 10.0, 0.1, 20.0))
    know(monkeypatch, tmp_path, known.__getitem__)
    return {"one": OnCore("one"), "two": OnCore("two"), **open_all(["reference"])}


def planned(processors: dict[str, Processor]) -> Planning:
    graph = "g (float[64,64] x) => (float[64,64] y) { a = Exp(x) s = Softmax<axis=0>(a) y = Neg(s)}"
    how = PlanOptions("heft", seconds=0.0, last_resort="reference")
    return plan_inference(load(parse(graph)), FEEDS, processors, how)


def in_halves(planning: Planning) -> Outcome:
    """The first and the last node by rows, the one between them by columns."""
    count = len(planning.whole.problem.tasks)
    ways = planning.whole.problem.divisions
    along = [next(i for i, way in enumerate(ways[t]) if way.axis == t % 2) for t in range(count)]
    shares = {task: replace(HALVES, division=along[task]) for task in range(count)}
    schedule = Schedule((0,) * count, tuple(range(count)), shares)
    return outcome_of(planning.whole.problem, "operator_split", schedule)


def test_each_launch_is_known_by_what_it_computes(processors: dict[str, Processor]) -> None:
    planning = planned(processors)
    session = Session(planning.model, processors, follow=planning.plan_of(in_halves(planning)))
    followed = Followed(lambda trace: session.run(FEEDS, trace=trace), session.work)
    launched = [each.processor for each in session.program.executables]
    assert [each.processor for each in session.work] == launched
    computed = [node for each in session.work for node, piece in each.nodes if not piece]
    names = [task.name for task in planning.whole.problem.tasks]
    assert sorted(computed) == sorted(2 * names)
    assert any(piece == "Slice" for each in session.work for _, piece in each.nodes)
    times = region_times(followed)
    assert len(times) == len(session.work)
    assert min(times) > 0


def test_nothing_is_said_of_regions_that_a_trace_does_not_tell_apart() -> None:
    def run(trace: Trace | None) -> None:
        assert trace is not None
        trace.events.append(Event("all", LAUNCH, "one", 0, 1000))

    work = (RegionWork("one", (("a", ""),)), RegionWork("one", (("b", ""),)))
    assert region_times(Followed(run, work)) == []
    assert region_times(Followed(run, work[:1])) == [1.0]


def test_tasks_take_as_long_as_their_regions(processors: dict[str, Processor]) -> None:
    planning = planned(processors)
    outcome, whole = in_halves(planning), planning.whole
    first = whole.problem.tasks[0].name
    half_us = whole.problem.divisions[0][0].time_us(0, 32)
    work = [RegionWork("one", ((first, ""),)), RegionWork("two", ((first, ""),))]
    found = by_regions(whole, outcome, work, [1.5 * half_us, 100 * half_us]).problem
    division, before = found.divisions[0][0], whole.problem.divisions[0][0]
    assert division.time_us(0, 32) == pytest.approx(1.5 * half_us)
    assert division.time_us(1, 32) == pytest.approx(MOST * before.time_us(1, 32))
    assert found.time_us[0, 0] == pytest.approx(1.5 * whole.problem.time_us[0, 0])
    assert (found.time_us[1:] == whole.problem.time_us[1:]).all()


def test_what_processors_take_from_each_other_is_in_the_times_of_regions(
    processors: dict[str, Processor],
) -> None:
    planning = planned(processors)
    problem = planning.whole.problem
    slow = problem.slowdown.copy()
    slow[0, 1] = 2.0
    whole = replace(planning.whole, problem=replace(problem, slowdown=slow))
    outcome, first = in_halves(planning), problem.tasks[0].name
    division = problem.divisions[0][0]
    work = [RegionWork(name, ((first, ""),)) for name in ("one", "two")]
    times = [2 * division.time_us(0, 32), division.time_us(1, 32)]
    found = by_regions(whole, outcome, work, times).problem
    alone = Schedule((0,) * len(problem.tasks), tuple(range(len(problem.tasks))), {0: HALVES})
    share_us = found.divisions[0][0].time_us(0, 32)
    plain = outcome_of(found, "operator_split", alone)
    place = next(i for i, t in enumerate(plain.plain.problem.tasks) if t.name == f"{first}/one")
    timeline = plain.timeline
    assert timeline.end_us[place] - timeline.start_us[place] == pytest.approx(share_us)


def test_cuts_move_to_what_tasks_take_now() -> None:
    of = problem({"a": (90.0, 30.0), "b": (90.0, 30.0)}, [("a", "b")])
    curves = (((0.0, 0.0), (1.0, 90.0)), ((0.0, 0.0), (1.0, 30.0)))
    ways = {task: (Division(0, 64, (None,) * task, curves),) for task in (0, 1)}
    of = replace(of, divisions={0: ways[0]})
    halves = Schedule((0, 1), (0, 1), {0: HALVES})
    moved = shift_again(of, halves)
    assert dict(moved.shares[0].units) == {0: 16, 1: 48}
    assert moved.order == halves.order


def test_the_fastest_plan_is_kept_and_what_the_last_one_showed_counts(
    processors: dict[str, Processor],
) -> None:
    planning = planned(processors)
    made = list[Plan]()

    def follow(plan: Plan) -> Followed:
        """Regions of the first processor take four times as long as those of the other one."""
        session = Session(planning.model, processors, follow=plan)

        def run(trace: Trace | None) -> None:
            assert trace is not None
            for number, each in enumerate(session.work):
                ns = 8000 if each.processor == "one" else 2000
                trace.events.append(Event("", LAUNCH, each.processor, number, number + ns))

        made.append(plan)
        return Followed(run, session.work)

    outcome = in_halves(planning)
    plan = planning.plan_of(outcome)
    start = Tried(planning.whole, outcome, plan, follow(plan))
    assert balanced([start], follow, _the(lambda each: each is start)) is start
    assert len(made) > 1
    found = balanced([start], follow, _the(lambda each: each is not start))
    sizes = [split.sizes for split in found.plan.splits.values()]
    assert all(size.get("one", 0) < size["two"] for size in sizes)


def _the(wanted: Callable[[Tried], bool]) -> Callable[[Sequence[Tried]], Tried]:
    return lambda tried: next((each for each in reversed(tried) if wanted(each)), tried[0])


def test_plans_by_calls_divide_operators_or_are_none(processors: dict[str, Processor]) -> None:
    planning = planned(processors)
    for known, outcome in starts_by_calls(planning.ground.known):
        assert outcome.schedule.shares
        assert known.plan(outcome).splits
