"""Plans that were run: the clock decides, and one processor wins where several gain nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coexec import zoo
from coexec.api import open_all
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.core.machine import Rates
from coexec.core.processor import Processor, ProcessorSpec, Support
from coexec.core.types import OpCall
from coexec.frontend import load
from coexec.placement.policies.table import (
    BATCH_DIVIDED,
    BATCH_PARALLEL,
    PLACED,
    Outcome,
    outcome_of,
)
from coexec.planning.planner import Planning, PlanOptions, plan_inference, plan_training
from coexec.planning.turns import MORE_TIMES, Actions, at_most, choose, decided, in_turns
from coexec.planning.verification import candidates, verify, verify_training
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.steps.builder import Recipe
from coexec.training.trainer import Trainer
from tests.graphs import parse
from tests.known_costs import know

MS = 1000.0


def take(
    monkeypatch: pytest.MonkeyPatch, times_us: Mapping[str, float], others_us: float = 1 * MS
) -> None:
    """Let plans be run, and take these times by name."""

    def timed(actions: Actions, *_how: object) -> dict[str, list[float]]:
        for action in actions.values():
            action()
        return {name: [times_us.get(name, others_us)] * 9 for name in actions}

    monkeypatch.setattr("coexec.planning.verification.timed", timed)


@pytest.mark.parametrize(
    ("several", "chosen"), [(97.0, "split"), (99.0, "only a"), (150.0, "only a")]
)
def test_several_processors_have_to_gain_something(several: float, chosen: str) -> None:
    times = {"only a": 100.0, "only b": 120.0, "split": several}
    assert choose({name: [us] * 9 for name, us in times.items()}) == chosen


def test_a_gain_in_most_turns_is_not_enough_unless_it_is_sure() -> None:
    """Two of nine turns in which one processor was faster may be chance, one is not."""
    alone, faster = [100.0] * 9, [80.0] * 9
    assert choose({"only a": alone, "split": [*faster[:8], 120.0]}) == "split"
    assert choose({"only a": alone, "split": [*faster[:7], 120.0, 120.0]}) == "only a"


def test_turns_that_were_neighbours_are_compared() -> None:
    """A machine that gets slower meanwhile changes nothing of what is better."""
    slower = [100.0 * 1.2**turn for turn in range(9)]
    assert choose({"only a": slower, "split": [0.9 * us for us in slower]}) == "split"


def test_turns_go_on_for_plans_that_seem_to_be_worth_it_until_they_surely_are() -> None:
    """Three of nine turns were disturbed, which proves nothing; three of eighteen do."""
    noisy, calm, slow = [80.0] * 6 + [120.0] * 3, [80.0] * 9, [130.0] * 9
    times = {"only a": [100.0] * 9, "split": noisy, "heft": slow, "only b": slow}
    asked = []

    def timed(actions: Actions) -> dict[str, list[float]]:
        asked.append(set(actions))
        return {n: calm if n == "split" and len(asked) > 1 else times[n] for n in actions}

    actions = dict.fromkeys(times, lambda: None)
    assert choose(timed(actions)) == "only a"
    asked.clear()
    samples = decided(timed, actions)
    assert asked == [set(times), {"only a", "split"}]
    assert choose(samples) == "split"
    assert [len(samples[name]) for name in times] == [18, 18, 9, 9]


def test_turns_go_on_where_a_plan_gains_much_in_some_of_them() -> None:
    """A core that was slow in most turns says nothing of the others."""
    disturbed, calm = [65.0] * 3 + [130.0] * 6, [65.0] * 9
    asked = []

    def timed(actions: Actions) -> dict[str, list[float]]:
        asked.append(set(actions))
        split = calm if len(asked) > 1 else disturbed
        return {name: split if name == "split" else [100.0] * 9 for name in actions}

    samples = decided(timed, dict.fromkeys(("only a", "split"), lambda: None))
    assert asked == [{"only a", "split"}] * 3
    assert choose(samples) == "split"


def test_turns_do_not_go_on_where_a_plan_gains_little_in_some_of_them() -> None:
    asked = []

    def timed(actions: Actions) -> dict[str, list[float]]:
        asked.append(set(actions))
        return {n: [96.0] * 3 + [101.0] * 6 if n == "split" else [100.0] * 9 for n in actions}

    samples = decided(timed, dict.fromkeys(("only a", "split"), lambda: None))
    assert len(asked) == 1
    assert choose(samples) == "only a"


def test_turns_do_not_go_on_for_ever() -> None:
    asked = []

    def timed(actions: Actions) -> dict[str, list[float]]:
        asked.append(set(actions))
        return {"only a": [100.0] * 4, "split": [90.0, 90.0, 90.0, 200.0]}

    samples = decided(timed, dict.fromkeys(("only a", "split"), lambda: None))
    assert len(asked) == 1 + MORE_TIMES
    assert len(samples["split"]) == 4 * (1 + MORE_TIMES)


@pytest.mark.parametrize(("count", "place"), [(1, 0), (4, 3), (5, 4), (9, 7), (100, 58)])
def test_a_median_is_bounded_by_an_order_statistic(count: int, place: int) -> None:
    """Of 100 values, 58 or more lie below the median by chance in 7 of 100 cases, 59 in 4."""
    assert at_most([float(value) for value in range(count)]) == place


def test_without_a_processor_that_executes_all_the_fastest_plan_is_taken() -> None:
    assert choose({"heft": [3.0], "chain": [2.0]}) == "chain"


def test_plans_take_turns_and_only_the_second_run_of_a_turn_counts() -> None:
    now, order = [0.0], list[str]()

    def action(name: str, first: float, again: float) -> Callable[[], None]:
        def run() -> None:
            same = bool(order) and order[-1] == name
            order.append(name)
            now[0] += again if same else first

        return run

    actions = {"slow": action("slow", 1.0, 0.5), "fast": action("fast", 9.0, 0.25)}
    found = in_turns(actions, 30.0, lambda: now[0])
    assert found == pytest.approx({"slow": 0.5e6, "fast": 0.25e6})
    assert order[2:6] == ["slow", "slow", "fast", "fast"]


class Named(ReferenceProcessor):
    """The reference under another name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class OnCore(Named):
    """One with silicon of its own."""

    def describe(self) -> ProcessorSpec:
        return replace(super().describe(), resources=(self.name,))


def test_plans_of_a_model_are_run_and_one_of_them_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = dict.fromkeys(("reference", "twin"), Rates({"float32": 100.0}, 10.0, 5.0, 20.0))
    know(monkeypatch, tmp_path, known.__getitem__)
    model = load(parse("g (float[64] x) => (float[64] y) { a = Neg(x) b = Exp(x) y = Add(a, b) }"))
    feeds = {"x": np.linspace(0, 1, 64, dtype=np.float32)}
    processors: dict[str, Processor] = {**open_all(["reference"]), "twin": Named("twin")}
    planning = plan_inference(model, feeds, processors, PlanOptions("heft", seconds=0.0))
    monkeypatch.setattr("coexec.planning.verification.choose", lambda _samples: "only twin")
    found = verify(model, feeds, processors, planning, seconds=0.0)
    assert {"only reference", "only twin"} <= found.measured_us.keys() == found.predicted_us.keys()
    assert found.name == "only twin"
    assert found.planning.plan.processors == {str(node.name): "twin" for node in model.graph}


def test_nothing_is_kept_of_plans_that_ran_beside_other_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = dict.fromkeys(("reference", "twin"), Rates({"float32": 100.0}, 10.0, 5.0, 20.0))
    know(monkeypatch, tmp_path, known.__getitem__)
    model = load(parse("g (float[64] x) => (float[64] y) { a = Neg(x) y = Exp(a) }"))
    feeds = {"x": np.linspace(0, 1, 64, dtype=np.float32)}
    processors: dict[str, Processor] = {**open_all(["reference"]), "twin": Named("twin")}
    planning = plan_inference(model, feeds, processors, PlanOptions(seconds=0.0))
    kept: list[object] = []
    monkeypatch.setattr("coexec.planning.verification._learn", lambda *how: kept.append(how))
    monkeypatch.setattr("coexec.planning.turns.Others.look", lambda _: 0.0)
    verify(model, feeds, processors, planning, seconds=0.0)
    assert len(kept) == 1
    assert not caplog.text
    monkeypatch.setattr("coexec.planning.turns.Others.look", lambda _: 1.0)
    verify(model, feeds, processors, planning, seconds=0.0)
    assert len(kept) == 1
    assert "other processes computed" in caplog.text


class Refusing(Named):
    """One that lacks an operator."""

    def __init__(self, name: str, operator: str) -> None:
        super().__init__(name)
        self.lacks = operator

    def supports(self, call: OpCall) -> Support:
        return Support(call.op_type != self.lacks, f"{self.name} lacks it")


def test_an_order_of_processors_is_run_wherever_predictions_rank_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = dict.fromkeys(("reference", "npu"), Rates({"float32": 100.0}, 10.0, 5.0, 20.0))
    know(monkeypatch, tmp_path, known.__getitem__)
    model = load(parse("g (float[64] x) => (float[64] y) { a = Neg(x) b = Exp(a) y = Neg(b) }"))
    feeds = {"x": np.linspace(0, 1, 64, dtype=np.float32)}
    processors: dict[str, Processor] = {
        "npu": Refusing("npu", "Exp"),
        **open_all(["reference"]),
    }
    planning = plan_inference(model, feeds, processors, PlanOptions(seconds=0.0))
    ranking = planning.ranking
    orders = next(each for each in ranking.outcomes if each.policy == "fallback_order")
    assert set(planning.plan_of(orders).processors.values()) == {"npu", "reference"}
    others = [replace(orders, policy=name) for name in ("heft", "chain")]
    moved = [_elsewhere(planning, each, task) for each, task in zip(others, (0, 2), strict=True)]
    last = replace(planning, ranking=replace(ranking, outcomes=(*moved, orders)))
    assert list(candidates(last))[-3:] == ["heft", "chain", "fallback_order"]


def _elsewhere(planning: Planning, outcome: Outcome, task: int) -> Outcome:
    """The same with one task on the other of two processors."""
    problem, schedule = planning.whole.problem, outcome.schedule
    units = tuple(1 - unit if i == task else unit for i, unit in enumerate(schedule.units))
    return outcome_of(problem, outcome.policy, replace(schedule, units=units))


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    """On two processors that a network of two layers is worth dividing between."""
    known = dict.fromkeys(("one", "two"), Rates({"float32": 0.01}, 1.0, 0.5, 20.0))
    know(monkeypatch, tmp_path, known.__getitem__)
    processors: dict[str, Processor] = {name: OnCore(name) for name in known}
    model = zoo.build("mlp", batch=6, sizes=(8, 4), classes=3)
    return Trainer(model, Recipe(SoftmaxCrossEntropy(), SGD(0.1)), processors)


FEEDS, LABELS = {"x": np.ones((6, 8), np.float32)}, np.arange(6) % 3


@pytest.mark.parametrize("name", ["only two", "batch_parallel"])
def test_steps_are_run_by_the_best_plans_and_on_each_processor_alone(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The division of the batch is taken where it runs best, whatever was predicted."""
    take(monkeypatch, {})
    planning = plan_training(trainer, FEEDS, PlanOptions(seconds=0.0))
    assert planning.plan.policy == "heft"
    monkeypatch.setattr("coexec.planning.verification.choose", lambda _samples: name)
    found = verify_training(trainer, FEEDS, LABELS, planning, seconds=0.0)
    expected = {"only one", "only two", "heft", "batch_parallel"}
    assert found.measured_us.keys() == found.predicted_us.keys() == expected
    taken = found.planning
    assert (taken.plan.policy, sum(taken.plan.batch.values())) == (name, 6 * (name != "only two"))
    assert set(taken.plan.named) == ({"two"} if name == "only two" else {"one", "two"})
    assert taken.plan.predicted_us == found.predicted_us[name]
    tasks = {task.name for task in taken.planned.problem.tasks}
    assert tasks == set(taken.placed.processors)
    assert np.isfinite(trainer.with_plan(taken.plan).step(FEEDS, LABELS))
    assert trainer.steps == 0


def test_runs_alone_correct_the_plans_that_are_tried_and_later_predictions(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the times of calls both processors are alike; in a run one takes 2.5 times as long."""
    planning = plan_training(trainer, FEEDS, PlanOptions(seconds=0.0))
    assert planning.divided is not None
    assert planning.divided.plan.batch == {"one": 3, "two": 3}
    times = {"only one": 25 * MS, "only two": 10 * MS, "batch_parallel": 9 * MS}
    take(monkeypatch, times, others_us=99 * MS)
    found = verify_training(trainer, FEEDS, LABELS, planning, seconds=0.0)
    assert found.name == "batch_parallel"
    assert found.planning.plan.batch["two"] > found.planning.plan.batch["one"] > 0
    alone = {name: us for name, us in found.predicted_us.items() if name.startswith("only ")}
    assert max(alone.values()) < 1 * MS
    again = plan_training(trainer, FEEDS, PlanOptions(seconds=0.0))
    by_name = {name: outcome.makespan_us for name, outcome in candidates(again).items()}
    assert by_name["only one"] == pytest.approx(25 * MS, rel=1e-4)
    assert by_name["only two"] == pytest.approx(10 * MS, rel=1e-4)
    assert BATCH_DIVIDED in again.ground.corrections.ways


def test_runs_alone_that_were_disturbed_correct_by_those_that_were_not(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thirds of the runs on one processor take 2.5 times as long: nothing a plan is to heed."""
    planning = plan_training(trainer, FEEDS, PlanOptions(seconds=0.0))
    disturbed = [10 * MS] * 3 + [25 * MS] * 6

    def timed(actions: Actions, *_how: object) -> dict[str, list[float]]:
        for action in actions.values():
            action()
        return {name: disturbed if name == "only one" else [10 * MS] * 9 for name in actions}

    monkeypatch.setattr("coexec.planning.verification.timed", timed)
    monkeypatch.setattr("coexec.planning.verification._computing", lambda _run: None)
    monkeypatch.setattr("coexec.planning.verification.choose", lambda _samples: BATCH_PARALLEL)
    found = verify_training(trainer, FEEDS, LABELS, planning, seconds=0.0)
    assert found.planning.plan.batch == {"one": 3, "two": 3}


def test_the_first_plan_is_tried_where_runs_correct_it(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By runs of each alone nothing is worth placing on both: one takes a hundred times as long."""
    times = {"only one": 999 * MS, "only two": 10 * MS, "heft as first planned": 5 * MS}
    take(monkeypatch, times, others_us=99 * MS)
    text = "g (float[64,64] x) => (float[64,64] y)"
    text += "{ t = Neg(x) a = MatMul(x, t) b = MatMul(t, x) y = Add(a, b) }"
    model, feeds = load(parse(text)), {"x": np.ones((64, 64), np.float32)}
    planning = plan_inference(model, feeds, trainer.processors, PlanOptions("heft", seconds=0.0))
    assert set(planning.plan.named) == {"one", "two"}
    found = verify(model, feeds, trainer.processors, planning, seconds=0.0)
    assert found.name == "heft as first planned"
    assert found.planning.plan.processors == planning.plan.processors
    again = plan_inference(model, feeds, trainer.processors, PlanOptions("heft", seconds=0.0))
    assert PLACED in again.ground.corrections.ways


def test_plans_of_different_ways_are_tried(trainer: Trainer) -> None:
    planning = plan_training(trainer, FEEDS, PlanOptions(seconds=0.0))
    ranking = planning.ranking
    heft, batch = (
        next(each for each in ranking.outcomes if each.policy == policy)
        for policy in ("heft", "batch_parallel")
    )
    chain = _elsewhere(planning, replace(heft, policy="chain"), 0)
    ordered = replace(planning, ranking=replace(ranking, outcomes=(heft, chain, batch)))
    assert list(candidates(ordered))[2:] == ["heft", "batch_parallel"]


def test_a_named_policy_is_run_first_and_plans_that_run_alike_once(trainer: Trainer) -> None:
    planning = plan_training(trainer, FEEDS, PlanOptions("batch_parallel", seconds=0.0))
    assert list(candidates(planning))[2:] == ["batch_parallel", "heft"]
    ranking = planning.ranking
    heft = next(each for each in ranking.outcomes if each.policy == "heft")
    twins = (replace(heft, policy="chain"), *ranking.outcomes)
    twice = replace(planning, ranking=replace(ranking, chosen=heft, outcomes=twins))
    assert list(candidates(twice))[2:] == ["heft", "batch_parallel"]
