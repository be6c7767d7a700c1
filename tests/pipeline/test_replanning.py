"""Plans for processors that became slower: from what the first stood on, and no worse for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import coexec
from coexec.api import LAST_RESORT, open_all
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.planning import batch as batch_module
from coexec.planning import planner as planning_module
from coexec.planning.adapter import Adaptation
from coexec.planning.adaptive import adaptive
from coexec.planning.planner import PlanOptions, plan_inference, plan_training
from coexec.planning.replanning import inference_planner, training_planner
from tests.pipeline.small import FEATURES, network

CPU, GPU = (f"sim:snapdragon-888/{name}?numerics=none" for name in ("cpu", "gpu"))
BATCH = 1 << 13
"""So many samples that they take longer than launches."""
FEEDS = {"x": np.zeros((BATCH, FEATURES), np.float32)}
HOW = PlanOptions(seconds=0.0, last_resort=LAST_RESORT)


@pytest.fixture(scope="module")
def trainer() -> coexec.Trainer:
    model = coexec.load(network())
    return coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.1), [CPU, GPU])


def test_steps_are_planned_again_as_if_from_the_start(
    trainer: coexec.Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = {CPU: 3.0, GPU: 1.0}
    expected = plan_training(trainer, FEEDS, replace(HOW, factors=factors))
    planner = training_planner(trainer, FEEDS, HOW)
    first = planner({CPU: 1.0, GPU: 1.0})
    for module in (planning_module, batch_module):
        monkeypatch.setattr(module, "build_problem", None)
    found = planner(factors)
    assert found.plan == expected.plan
    assert found.busy_us != first.busy_us


def test_shares_of_a_batch_follow_factors_by_an_estimate_that_is_near(
    trainer: coexec.Trainer,
) -> None:
    how = replace(HOW, policy="batch_parallel")
    factors = {CPU: 1.0, GPU: 3.0}
    expected = plan_training(trainer, FEEDS, replace(how, factors=factors))
    first = plan_training(trainer, FEEDS, how)
    found = planning_module.plan_again(first.ground, replace(how, factors=factors))
    assert found.plan.batch[GPU] < first.plan.batch[GPU]
    assert found.plan.batch[GPU] == pytest.approx(expected.plan.batch[GPU], rel=0.1)
    assert found.plan.predicted_us == pytest.approx(expected.plan.predicted_us, rel=0.1)


def test_runs_are_planned_again_as_if_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    processors = open_all([CPU, GPU])
    model = coexec.load(network())
    factors = {CPU: 4.0, GPU: 1.0}
    expected = plan_inference(model, FEEDS, processors, replace(HOW, factors=factors))
    planner = inference_planner(model, FEEDS, processors, HOW)
    first = planner({CPU: 1.0, GPU: 1.0})
    monkeypatch.setattr(planning_module, "build_problem", None)
    assert planner(factors).plan == expected.plan
    # What is known is not changed by it.
    assert replace(first, alternatives=()) == planner({CPU: 1.0, GPU: 1.0})


def test_each_processor_alone_is_an_alternative_to_the_first_plan() -> None:
    model = coexec.load(network())
    planner = inference_planner(model, FEEDS, open_all([CPU, GPU]), HOW)
    first = planner({CPU: 1.0, GPU: 1.0})
    alone = [each for each in first.alternatives if not each.factors]
    assert [each.plan.named for each in alone] == [(CPU,), (GPU,)]
    for name, each in zip((CPU, GPU), alone, strict=True):
        assert [unit for unit, us in each.busy_us.items() if us > 0] == [name]


def test_plans_for_a_load_on_each_processor_are_alternatives_from_the_start(
    trainer: coexec.Trainer,
) -> None:
    planner = training_planner(trainer, FEEDS, replace(HOW, policy="batch_parallel"))
    first = planner({CPU: 1.0, GPU: 1.0})
    loaded = {name: each for each in first.alternatives for name in each.factors}
    assert [each.factors for each in loaded.values()] == [{CPU: 2.0}, {GPU: 2.0}]
    for name, each in loaded.items():
        assert each.plan.batch[name] < first.plan.batch[name]
    assert not planner({CPU: 1.0, GPU: 1.5}).alternatives


def test_a_division_of_the_batch_is_built_once(trainer: coexec.Trainer) -> None:
    how = replace(HOW, policy="batch_parallel")
    planning = plan_training(trainer, FEEDS, how)
    built = dict(planning.ground.batches)
    assert built
    again = planning_module.plan_again(planning.ground, replace(how, factors={CPU: 1.0}))
    assert again.plan == planning.plan
    assert planning.ground.batches == built


def test_with_a_processor_less_another_problem_is_built(trainer: coexec.Trainer) -> None:
    planner = training_planner(trainer, FEEDS, HOW)
    planner({CPU: 1.0, GPU: 1.0})
    assert planner({CPU: 1.0}).plan.named == (CPU,)


def adaptations_in_virtual_time() -> tuple[Adaptation, ...]:
    """Of a training that is watched until it has settled."""
    names = [name.partition("?")[0] for name in (CPU, GPU)]
    plain = coexec.Trainer(coexec.load(network()), SoftmaxCrossEntropy(), SGD(0.1), names)
    feeds, labels = {"x": np.ones((8, FEATURES), np.float32)}, np.zeros(8, np.int64)
    trainer = adaptive(plain, training_planner(plain, feeds, HOW), names)
    for _ in range(40):
        trainer.step(feeds, labels)
    assert trainer.is_steady
    return trainer.adaptations


def test_in_virtual_time_the_same_is_tried_at_the_same_steps() -> None:
    """Factors may differ in what is left of whole nanoseconds that do not begin at 0."""
    first, second = (
        [(each.step, each.kind, each.text) for each in adaptations_in_virtual_time()]
        for _ in range(2)
    )
    assert first
    assert first == second
