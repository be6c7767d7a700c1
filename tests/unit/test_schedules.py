"""Learning-rate schedules against PyTorch's recurrences and their own promises."""

from __future__ import annotations

import math

import pytest

from coexec.autodiff.optimizers import SGD
from coexec.autodiff.schedules import Constant, Cosine, Schedule, StepDecay, Warmup
from coexec.base.errors import UsageError


def test_constant() -> None:
    assert {Constant(0.3).at(step) for step in (0, 1, 10**6)} == {0.3}


def test_step_decay_is_torch_step_lr() -> None:
    """StepLR multiplies the rate by gamma whenever the step is a multiple of step_size."""
    schedule, rate = StepDecay(0.1, every=3, factor=0.5), 0.1
    for step in range(20):
        if step and step % 3 == 0:
            rate *= 0.5
        assert schedule.at(step) == pytest.approx(rate, rel=1e-12)


def test_cosine_is_torch_cosine_annealing() -> None:
    """CosineAnnealingLR as the recurrence that PyTorch computes, up to T_max."""
    schedule, rate, final, total = Cosine(0.1, steps=30, final=0.01), 0.1, 0.01, 30
    for step in range(total + 1):
        assert schedule.at(step) == pytest.approx(rate, rel=1e-9)
        here, following = (1 + math.cos(math.pi * s / total) for s in (step, step + 1))
        if step < total:
            rate = following / here * (rate - final) + final


def test_cosine_stays_at_its_end() -> None:
    schedule = Cosine(0.1, steps=30, final=0.01)
    assert [schedule.at(step) for step in (30, 31, 1000)] == pytest.approx([0.01] * 3)
    assert Cosine(0.1, steps=10).at(10) == pytest.approx(0, abs=1e-17)


def test_warmup_rises_linearly_and_hands_over_at_the_start() -> None:
    then = StepDecay(0.8, every=5, factor=0.1)
    schedule = Warmup(then, steps=4)
    assert [schedule.at(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [schedule.at(4 + step) for step in range(12)] == [then.at(step) for step in range(12)]


@pytest.mark.parametrize(
    "schedule",
    [Constant(0.2), StepDecay(0.2, 7), Cosine(0.2, 50), Warmup(Cosine(0.2, 50), 8)],
)
def test_rates_stay_between_zero_and_the_rate_asked_for(schedule: Schedule) -> None:
    rates = [schedule.at(step) for step in range(100)]
    assert max(rates) == pytest.approx(0.2)
    assert min(rates) >= 0


@pytest.mark.parametrize(
    ("schedule", "given", "message"),
    [
        (Constant, {"rate": -1}, "rate is -1"),
        (StepDecay, {"rate": "0.1", "every": 3}, "rate is '0.1'"),
        (StepDecay, {"rate": 0.1, "every": 0}, "every is 0; it has to be a whole number"),
        (Cosine, {"rate": 0.1, "steps": 2.5}, "steps is 2.5; it has to be a whole number"),
        (Warmup, {"then": Constant(0.1), "steps": -1}, "steps is -1"),
    ],
)
def test_schedules_that_give_no_rate_are_refused(
    schedule: type[Schedule], given: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        schedule(**given)


def test_an_optimizer_takes_a_number_or_a_schedule() -> None:
    assert SGD(0.5).schedule.at(123) == 0.5
    assert SGD(StepDecay(1.0, 10)).schedule.at(10) == pytest.approx(0.1)
