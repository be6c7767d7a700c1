"""Training and inference when processors become slow or fail, on processors that do so on demand.

They compute with NumPy; how long they say that takes, and when they fail, is chosen by the test.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import coexec
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import NonFiniteLoss, ProcessorError
from coexec.core.events import MAP, Event
from coexec.core.plan import Plan
from coexec.core.processor import Buffer, Executable, Host, ProcessorSpec, Ticket
from coexec.core.types import Array
from coexec.ops.builder import PHASE
from coexec.placement.policies.batch_parallel import balanced_rows
from coexec.planning.adapter import Proposal, answers
from coexec.planning.adaptive import AdaptiveSession, AdaptiveTrainer
from coexec.processors.reference.processor import Done, ReferenceBuffer, ReferenceProcessor
from coexec.runtime.adapt import AdaptOptions
from coexec.session import legalise
from coexec.steps.builder import Recipe
from coexec.training.trainer import Trainer
from tests.pipeline.small import FEATURES, arrays, network

BATCH = 12
HOW = AdaptOptions(settle=1, patience=2, keep_every=4)


class Gone(RuntimeError):
    """What the driver of a lost device raises."""


class Clock:
    """Seconds of a machine whose processors all work at once: the busiest one decides."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.busy_ns: dict[str, int] = {}

    def __call__(self) -> float:
        self.now_ns += max(self.busy_ns.values(), default=0)
        self.busy_ns = {}
        return self.now_ns * 1e-9


class FakeProcessor(ReferenceProcessor):
    """NumPy under another name: takes ``ns`` per thousand operations, fails when it is told to."""

    def __init__(self, name: str, ns: float = 1000.0) -> None:
        super().__init__()
        self.name = name
        self.clock: Clock | None = None
        self.ns = ns
        self.slow = 1.0
        self.lost = False
        self.fail_in: int | None = None
        self.hiccup = False
        self.sees = False

    def sees_host_memory(self) -> bool:
        return self.sees

    def describe(self) -> ProcessorSpec:
        return replace(super().describe(), resources=(self.name,))

    def alloc(self, nbytes: int) -> ReferenceBuffer:
        self._check()
        return super().alloc(nbytes)

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Done:
        self._check()
        return super().copy(dst, src, after)

    def tell(self) -> Done:
        self._check()
        return Done(Event("share read", MAP, self.name, 0, 0))

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Done:
        if self.fail_in is not None:
            self.fail_in -= 1
            if self.fail_in < 0:
                self.fail_in, self.lost = None, not self.hiccup
                raise Gone(f"{self.name} was pulled out")
        self._check()
        event = super().submit(executable, buffers, after).event
        # As long as there are floating-point operations: what a share takes follows its samples.
        duration = round(sum(part.flop for part in event.parts) * self.slow * self.ns / 1000)
        if self.clock is not None:
            busy = self.clock.busy_ns
            busy[self.name] = busy.get(self.name, 0) + duration
        return Done(replace(event, start_ns=0, end_ns=duration, parts=()))

    def _check(self) -> None:
        if self.lost:
            raise Gone(f"{self.name} is not there")


def feeds_of(step: int) -> tuple[dict[str, Array], Array]:
    data = arrays(60)
    rows = np.arange(step * BATCH, (step + 1) * BATCH) % 60
    return {"x": data["x"][rows]}, data["labels"][rows]


def build(processors: Mapping[str, FakeProcessor], *, alone: Sequence[str] = ()) -> AdaptiveTrainer:
    """A trainer on these processors that divides batches by how slow they are.

    ``alone``: those of which each alone is an alternative from the start.
    """
    clock = Clock()
    for each in processors.values():
        each.clock = clock
    model = coexec.load(network(dropout=True))
    recipe = Recipe(SoftmaxCrossEntropy(), SGD(0.05, momentum=0.9))
    plain = Trainer(model, recipe, processors)
    step = plain.build_step({"x": np.zeros((BATCH, FEATURES), np.float32)})
    nodes = list(legalise(step.model, processors).graph)
    work = 3.0  # microseconds of a sample at the speed 1

    def planner(factors: Mapping[str, float]) -> Proposal:
        names = list(factors)
        places = {}
        for i, node in enumerate(nodes):
            update = node.metadata_props.get(PHASE) == "optimizer"
            places[str(node.name)] = names[i % len(names) if update else 0]
        if len(names) == 1:
            return Proposal(Plan(places, policy="test"), {names[0]: work * BATCH})
        rows = balanced_rows({name: factors[name] for name in names}, BATCH)
        busy = {name: rows[name] * factors[name] * work for name in names}
        others = tuple(planner({name: factors[name]}) for name in alone)
        return Proposal(Plan(places, policy="test", batch=rows), busy, others)

    return AdaptiveTrainer(model, recipe, processors, planner, HOW, clock=clock)


def expected(steps: int) -> tuple[list[float], dict[str, Array]]:
    """Losses and states of a training that nothing happened to."""
    alone = FakeProcessor("alone")
    model = coexec.load(network(dropout=True))
    recipe = Recipe(SoftmaxCrossEntropy(), SGD(0.05, momentum=0.9))
    trainer = Trainer(model, recipe, {"alone": alone})
    losses = [trainer.step(*feeds_of(step)) for step in range(steps)]
    return losses, trainer.state()


def agrees(trainer: Trainer, losses: list[float]) -> None:
    wanted, state = expected(len(losses))
    np.testing.assert_allclose(losses, wanted, rtol=1e-3)
    found = trainer.state()
    assert found.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-3, atol=2e-4, err_msg=name)


def two() -> dict[str, FakeProcessor]:
    return {name: FakeProcessor(name) for name in ("a", "b")}


def steps_of(trainer: AdaptiveTrainer, first: int, last: int) -> list[float]:
    """Losses of these steps; what is made in the background is there before the next one."""
    losses = []
    for step in range(first, last):
        losses.append(trainer.step(*feeds_of(step)))
        trainer.settle()
    return losses


def followed(trainer: AdaptiveTrainer) -> Plan:
    assert trainer.followed is not None
    return trainer.followed


def test_a_slower_processor_gets_fewer_samples_within_a_few_steps() -> None:
    processors = two()
    trainer = build(processors)
    losses = steps_of(trainer, 0, 12)
    assert trainer.is_steady
    before = followed(trainer).batch["b"]
    processors["b"].slow = 3.0
    losses += steps_of(trainer, 12, 30)
    assert before >= 5
    assert followed(trainer).batch["b"] <= 4
    noticed, *_, last = trainer.adaptations
    assert (noticed.kind, last.kind) == ("noticed", "replanned")
    assert noticed.step == 15
    assert noticed.factors["b"] > 1.8 * noticed.factors["a"]
    agrees(trainer, losses)


def test_a_plan_that_is_ready_is_followed_before_another_one_is_made() -> None:
    """Beside a load on one processor, the other one alone needs no compiling."""
    processors = two()
    trainer = build(processors, alone=("a", "b"))
    losses = steps_of(trainer, 0, 20)
    assert trainer.is_steady
    assert set(followed(trainer).batch) == {"a", "b"}
    processors["b"].slow = 20.0
    losses += [trainer.step(*feeds_of(step)) for step in range(20, 27)]
    assert followed(trainer).named == ("a",)
    losses += steps_of(trainer, 27, 40)
    agrees(trainer, losses)


def test_when_a_load_goes_away_the_first_plan_is_followed_again() -> None:
    processors = two()
    trainer = build(processors, alone=("a", "b"))
    losses = steps_of(trainer, 0, 20)
    first = followed(trainer)
    processors["b"].slow = 20.0
    losses += steps_of(trainer, 20, 50)
    assert followed(trainer) != first
    processors["b"].slow = 1.0
    losses += steps_of(trainer, 50, 250)
    assert followed(trainer) == first
    agrees(trainer, losses)


def test_nothing_changes_while_times_are_as_they_were() -> None:
    trainer = build(two(), alone=("a", "b"))
    steps_of(trainer, 0, 60)
    (event,) = trainer.adaptations
    assert event.kind == "kept"


def test_what_is_ready_is_followed_when_a_processor_is_lost() -> None:
    processors = two()
    trainer = build(processors, alone=("a", "b"))
    losses = steps_of(trainer, 0, 20)

    def none(_factors: Mapping[str, float]) -> Proposal:
        raise AssertionError("nothing has to be planned")

    trainer._adapter.planner = none
    processors["b"].lost = True
    losses += steps_of(trainer, 20, 26)
    assert list(trainer.processors) == ["a"]
    assert followed(trainer).named == ("a",)
    agrees(trainer, losses)


@pytest.mark.parametrize("submits", [0, 1, 3])
def test_a_lost_processor_loses_no_step(submits: int) -> None:
    """It fails in its first launch of a step, in between, or when parameters are updated."""
    processors = two()
    trainer = build(processors)
    losses = []
    for step in range(12):
        if step == 6:
            processors["b"].fail_in = submits
        losses.append(trainer.step(*feeds_of(step)))
    assert processors["b"].lost
    (event,) = (each for each in trainer.adaptations if each.kind == "lost")
    assert (event.step, "b is lost" in event.text) == (6, True)
    assert list(trainer.processors) == ["a"]
    assert trainer.steps == 12
    agrees(trainer, losses)


def test_states_that_a_processor_takes_with_it_are_computed_again() -> None:
    """The last copy on the host is three steps old."""
    processors = two()
    trainer = build(processors)
    losses = [trainer.step(*feeds_of(step)) for step in range(7)]
    homes = {b.processor for b in trainer.program.buffers if b.role == "state"}
    assert homes == {"a", "b"}
    processors["b"].lost = True
    losses += [trainer.step(*feeds_of(step)) for step in range(7, 9)]
    agrees(trainer, losses)


def test_states_in_memory_of_the_host_outlive_a_processor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It fails in the middle of a step: that step alone is repeated."""
    processors = two()
    for each in processors.values():
        each.sees = True
    trainer = build(processors)
    losses = [trainer.step(*feeds_of(step)) for step in range(7)]
    processors["b"].fail_in = 1
    losses += [trainer.step(*feeds_of(step)) for step in range(7, 9)]
    assert processors["b"].lost
    assert "repeating steps" not in caplog.text
    agrees(trainer, losses)


def test_a_second_loss_while_steps_are_repeated() -> None:
    processors = {name: FakeProcessor(name) for name in ("a", "b", "c")}
    trainer = build(processors)
    losses = [trainer.step(*feeds_of(step)) for step in range(7)]
    processors["b"].lost, processors["c"].fail_in = True, 9
    losses += [trainer.step(*feeds_of(step)) for step in range(7, 9)]
    assert processors["c"].lost
    assert list(trainer.processors) == ["a"]
    assert trainer.steps == 9
    agrees(trainer, losses)


def test_a_plan_that_is_being_compiled_is_waited_for_when_a_processor_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processors = two()
    trainer = build(processors, alone=("a", "b"))
    compiling, lost = threading.Event(), threading.Event()
    prepare = trainer.prepare

    def slowly(*given: Any) -> Any:
        compiling.set()
        assert lost.wait(30)
        return prepare(*given)

    monkeypatch.setattr(trainer, "prepare", slowly)
    losses = [trainer.step(*feeds_of(0))]  # then each alone is compiled in the background
    assert compiling.wait(30)

    def none(_factors: Mapping[str, float]) -> Proposal:
        raise AssertionError("nothing has to be planned")

    trainer._adapter.planner = none
    processors["b"].lost = True
    lose = trainer._adapter.lose

    def lose_and_go_on(error: Exception, step: int) -> tuple[str, ...]:
        found = lose(error, step)
        lost.set()
        return found

    monkeypatch.setattr(trainer._adapter, "lose", lose_and_go_on)
    losses += [trainer.step(*feeds_of(step)) for step in range(1, 4)]
    assert followed(trainer).named == ("a",)
    agrees(trainer, losses)


def test_what_is_no_loss_is_raised() -> None:
    processors = two()
    trainer = build(processors)
    trainer.step(*feeds_of(0))
    bad, labels = feeds_of(1)
    bad["x"] = np.full_like(bad["x"], np.nan)
    with pytest.raises(NonFiniteLoss):
        trainer.step(bad, labels)
    processors["a"].fail_in, processors["a"].hiccup = 0, True
    with pytest.raises(Gone):
        trainer.step(*feeds_of(1))
    assert trainer.adaptations == ()
    assert answers(processors["a"])


def test_without_any_processor_the_training_ends() -> None:
    processors = two()
    trainer = build(processors)
    trainer.step(*feeds_of(0))
    for each in processors.values():
        each.lost = True
    with pytest.raises(ProcessorError, match="all processors"):
        trainer.step(*feeds_of(1))


def test_a_plan_that_fails_is_told_and_the_training_goes_on() -> None:
    processors = two()
    trainer = build(processors)
    losses = [trainer.step(*feeds_of(step)) for step in range(3)]

    def broken(_factors: Mapping[str, float]) -> Proposal:
        raise ProcessorError("no plan today")

    trainer._adapter.planner = broken
    losses += steps_of(trainer, 3, 8)
    processors["b"].slow = 4.0
    losses += steps_of(trainer, 8, 14)
    assert [each.kind for each in trainer.adaptations] == ["noticed", "failed"]
    assert "no plan today" in trainer.adaptations[1].text
    agrees(trainer, losses)


def test_a_session_goes_on_without_a_lost_processor() -> None:
    processors = two()
    model = coexec.load(network(), {"x": (BATCH, FEATURES)})
    nodes = list(coexec.compile(model, ["reference"]).plan.processors)

    def planner(factors: Mapping[str, float]) -> Proposal:
        places = {node: list(factors)[i % len(factors)] for i, node in enumerate(nodes)}
        return Proposal(Plan(places), dict.fromkeys(factors, 1e9))

    session = AdaptiveSession(model, processors, planner, HOW)
    data = {"x": arrays(BATCH)["x"]}
    wanted = session.run(data)["y"]
    processors["a"].fail_in = 0
    np.testing.assert_allclose(session.run(data)["y"], wanted, rtol=1e-5)
    assert [each.kind for each in session.adaptations] == ["lost"]
    assert set(session.session.plan.processors.values()) == {"b"}
