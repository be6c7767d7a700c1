"""Steps on several processors within a budget: the same training, within the bytes of them all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import MemoryBudgetError, NonFiniteLoss, UsageError
from coexec.base.units import bytes_text
from coexec.budget import placing
from coexec.budget.joint import Joint
from coexec.budget.placing import JOINT
from coexec.budget.repetitions import PlacedStep, Repeated
from coexec.core.holders import holders_text
from coexec.core.plan import Plan
from coexec.core.program import BOUNDARY, SCRATCH, Read
from coexec.core.types import Array
from coexec.memory.choose import choose
from coexec.memory.lifetimes import usage
from coexec.passes.rematerialise import SUFFIX
from coexec.placement.policies.table import AUTO, BATCH_PARALLEL
from coexec.planning.planner import PlanOptions, plan_training
from coexec.training.trainer import Trainer
from tests.known_costs import know, numpy_last
from tests.runtimes import DRIVERS

if "opencl:intel" not in DRIVERS:
    pytest.skip("needs an OpenCL runtime that divides a CPU", allow_module_level=True)

BATCH = 16
RNG = np.random.default_rng(0)
DATA = {"x": RNG.standard_normal((BATCH, 6, 100)).astype(np.float32)}
LABELS = RNG.integers(0, 4, BATCH)
PAIR = ["opencl:intel?cores=1&first=0", "opencl:intel?cores=1"]
FIRST = PAIR[0]


@pytest.fixture(autouse=True)
def _known_costs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Plans must not depend on what else runs, or ran, while a device is measured."""
    know(monkeypatch, tmp_path, numpy_last)


def trainer(specs: list[str], memory: int | None = None) -> coexec.Trainer:
    model = coexec.load(zoo.build("sensor_cnn"))
    how = SGD(0.01, momentum=0.9)
    return coexec.Trainer(model, SoftmaxCrossEntropy(), how, specs, memory=memory)


def trained(learner: Trainer, steps: int = 3) -> tuple[list[float], dict[str, Array]]:
    losses = [learner.step(DATA, LABELS) for _ in range(steps)]
    return losses, learner.state()


def agrees(found: Trainer, expected: Trainer) -> None:
    losses, state = trained(found)
    wanted, states = trained(expected)
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    for name, array in states.items():
        np.testing.assert_allclose(state[name], array, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("policy", [AUTO, BATCH_PARALLEL])
def test_plans_within_a_budget_train_alike_and_keep_it(policy: str) -> None:
    plain = trainer([FIRST])
    budget = int(0.93 * plain.planned_bytes(DATA))
    asked = trainer(PAIR, budget)
    planning = plan_training(asked, DATA, PlanOptions(policy, 0.0))
    assert planning.plan.recompute
    assert any(each.fits for each in planning.tried)
    placed = asked.with_plan(planning.plan)
    agrees(placed, plain)
    assert placed.peak_bytes <= budget
    if policy == BATCH_PARALLEL:
        assert set(planning.plan.batch) == set(PAIR)


def all_elsewhere(step: PlacedStep, _budget: int) -> Joint:
    """What half of the bytes takes, made again on the processor on which nothing else runs."""
    choice = choose(step.memory, int(0.5 * usage(step.memory).peak))
    repeated = Repeated(step, choice)
    away = {group: 1 - repeated.home(group) for group in range(len(repeated.readers))}
    found = repeated.evaluated(away)
    return Joint(choice.names(step.memory), found, len(away), found.peak)


def test_what_another_processor_recomputes_is_the_same_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placing, "decide", all_elsewhere)
    plain = trainer([FIRST])
    asked = trainer(PAIR, 2 * plain.planned_bytes(DATA))
    plan = plan_training(asked, DATA, PlanOptions(JOINT, 0.0)).plan
    homes = {p for name, p in plan.processors.items() if SUFFIX not in name}
    again = [p for name, p in plan.processors.items() if SUFFIX in name]
    assert len(again) > 3
    assert homes.isdisjoint(again)
    placed = asked.with_plan(plan)
    agrees(placed, plain)
    # Tensors between processors take over the memory of those that were read.
    program = placed.program
    own = [b for b in program.buffers if b.role == BOUNDARY and not b.shares]
    sent = {s.tensor for s in program.instructions if isinstance(s, Read)}
    assert len(own) < sum(name.endswith("#staged") for name in sent)
    assert any("#back" in name and SUFFIX in name for name in sent)


def test_the_joint_form_needs_a_budget() -> None:
    with pytest.raises(UsageError, match=r"policy joint .* needs a budget, --memory"):
        plan_training(trainer([FIRST]), DATA, PlanOptions(JOINT, 0.0))


def test_the_fastest_plan_that_fits_is_taken_and_the_others_are_told() -> None:
    plain = trainer([FIRST])
    whole = plain.planned_bytes(DATA)
    planning = plan_training(trainer(PAIR, int(0.93 * whole)), DATA, PlanOptions(AUTO, 0.0))
    fitting = [each for each in planning.tried if each.fits]
    forms = {each.form.removesuffix(placing.EARLY) for each in planning.tried}
    assert forms >= {"single_best", BATCH_PARALLEL}
    assert planning.plan.predicted_us is not None
    assert planning.plan.predicted_us / 1e3 == min(each.step_ms for each in fitting)
    with pytest.raises(MemoryBudgetError, match=r"no training step fits"):
        plan_training(trainer(PAIR, whole // 20), DATA, PlanOptions(AUTO, 0.0))


def lenet(specs: list[str], **how: Any) -> coexec.Trainer:
    """A training whose updates are large enough to come early."""
    model = coexec.load(zoo.build("lenet5"))
    return coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.01, momentum=0.9), specs, **how)


IMAGES = {"x": RNG.standard_normal((BATCH, 1, 28, 28)).astype(np.float32)}
DIGITS = RNG.integers(0, 10, BATCH)


def batch_plan(early: bool) -> Plan:
    """The batch in equal shares, on both processors."""
    found = plan_training(lenet(PAIR), IMAGES, PlanOptions(BATCH_PARALLEL, 0.0)).plan
    return replace(found, batch=dict.fromkeys(PAIR, BATCH // 2), early=early)


def test_early_updates_of_a_placed_step_change_no_bit_and_let_gradients_go() -> None:
    states, peaks = [], []
    for early in (False, True):
        learner = lenet(PAIR, plan=batch_plan(early))
        losses = [learner.step(IMAGES, DIGITS) for _ in range(3)]
        states.append({"#loss": np.array(losses), **learner.state()})
        peaks.append(learner.peak_bytes)
        assert learner.step_graph.early == early
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name
    assert peaks[1] < peaks[0]


def test_tensors_between_processors_lie_in_arenas_which_predictions_use_between_steps() -> None:
    learner, again = lenet(PAIR, plan=batch_plan(early=True)), lenet([FIRST])
    for _ in range(2):
        loss, wanted = (each.step(IMAGES, DIGITS) for each in (learner, again))
        np.testing.assert_allclose(loss, wanted, rtol=1e-4)
        found, expected = (each.predict(IMAGES) for each in (learner, again))
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-5)
    program = learner.program
    arenas = {spec.name: spec for spec in program.buffers if spec.role == SCRATCH}
    between = [spec for spec in program.buffers if spec.role == BOUNDARY and spec.shares in arenas]
    assert {spec.processor for spec in between} == set(PAIR)
    assert all(spec.offset + spec.nbytes <= arenas[spec.shares].nbytes for spec in between)


def test_early_updates_wait_for_the_loss_in_any_order_of_a_plan() -> None:
    """Repetitions need no loss, and updates may stand before others that read the parameter."""
    plain, learner = lenet([FIRST]), lenet(PAIR)
    whole = plan_training(learner, IMAGES, PlanOptions("single_best", 0.0)).plan
    graph = learner.build_step(IMAGES).model.graph
    hidden = next(n for n in graph if n.op_type == "Relu")
    again = replace(whole, recompute=(str(hidden.outputs[0].name),), early=True)
    name = f"{hidden.name}{SUFFIX}"
    processors = {**whole.processors, name: whole.processors[str(hidden.name)]}
    place = 1 + whole.order.index(str(hidden.name))
    order = (*whole.order[:place], name, *whole.order[place:])
    moved = lenet(PAIR, plan=replace(again, processors=processors, order=order))
    losses = [moved.step(IMAGES, DIGITS) for _ in range(2)]
    np.testing.assert_allclose(losses, [plain.step(IMAGES, DIGITS) for _ in range(2)], rtol=1e-4)


def test_a_loss_that_is_not_finite_changes_nothing_in_a_placed_step_with_early_updates() -> None:
    learner = lenet(PAIR, plan=batch_plan(early=True))
    learner.step(IMAGES, DIGITS)
    before = learner.state()
    with pytest.raises(NonFiniteLoss, match="parameters are as before this step"):
        learner.step({"x": np.full_like(IMAGES["x"], np.nan)}, DIGITS)
    for name, array in learner.state().items():
        assert array.tobytes() == before[name].tobytes(), name


def test_a_plan_with_early_updates_is_refused_where_gradients_are_looked_at_together() -> None:
    with pytest.raises(UsageError, match="plan updates early: clipping takes the norm"):
        lenet(PAIR, plan=batch_plan(early=True), clip_norm=1.0)


def test_a_budget_is_kept_by_early_updates_where_recomputing_does_not_reach_it() -> None:
    plain = lenet([FIRST])
    least = error_of(lenet(PAIR, clip_norm=1e9, memory=1)).least_bytes
    asked = lenet(PAIR, memory=least - (1 << 19))
    planning = plan_training(asked, IMAGES, PlanOptions(AUTO, 0.0))
    assert planning.plan.early
    assert any(each.form.endswith("early updates") and each.fits for each in planning.tried)
    placed = asked.with_plan(planning.plan)
    losses = [placed.step(IMAGES, DIGITS) for _ in range(2)]
    np.testing.assert_allclose(losses, [plain.step(IMAGES, DIGITS) for _ in range(2)], rtol=1e-4)
    assert placed.peak_bytes <= least - (1 << 19)
    assert placed.memory_plan is not None
    assert "early updates" in [use.technique for use in placed.memory_plan.used]


def error_of(asked: Trainer) -> MemoryBudgetError:
    with pytest.raises(MemoryBudgetError) as caught:
        plan_training(asked, IMAGES, PlanOptions(AUTO, 0.0))
    return caught.value


def test_refusals_name_memory_that_two_processors_share_once() -> None:
    learner = lenet(PAIR, plan=batch_plan(early=False))
    learner.step(IMAGES, DIGITS)
    program = learner.program
    sharing = {spec.name: spec.shares for spec in program.buffers if spec.shares}
    assert sharing
    for name in PAIR:
        own = [b.nbytes for b in program.buffers if b.processor == name and not b.shares]
        constants = sum(e.constant_bytes for e in program.executables if e.processor == name)
        text = holders_text(program, name)
        assert text.startswith(bytes_text(sum(own) + constants))
        assert not any(f"{view} (" in text for view in sharing)
