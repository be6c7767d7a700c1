"""Learning-rate schedules against PyTorch's recurrences and their own promises."""

from __future__ import annotations

import math

import pytest

from coexec.autodiff.optimizers import SGD
from coexec.autodiff.schedules import (
    Constant,
    Cosine,
    Linear,
    OneCycle,
    Schedule,
    StepDecay,
    Warmup,
)
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


def test_linear_is_torch_linear_lr_from_the_whole_rate() -> None:
    """LinearLR with start_factor 1: the rate falls by equal steps."""
    schedule = Linear(0.1, steps=5, final=0.02)
    falling = [0.1, 0.084, 0.068, 0.052, 0.036, 0.02, 0.02]
    assert [schedule.at(step) for step in range(7)] == pytest.approx(falling)
    assert Linear(0.1, steps=4).at(400) == 0


@pytest.mark.parametrize(("steps", "rise"), [(40, 0.3), (7, 0.5), (10, 0.1), (3, 0.0), (1, 0.3)])
def test_one_cycle_is_torch_one_cycle_lr(steps: int, rise: float) -> None:
    """OneCycleLR(max_lr, total_steps, pct_start, cycle_momentum=False), as PyTorch computes it."""
    schedule = OneCycle(0.5, steps, rise=rise, first=10.0, last=100.0)
    phases = [(rise * steps - 1, 0.05, 0.5), (steps - 1, 0.5, 0.0005)]
    for step in range(steps):
        begin = expected = 0.0
        for end, low, high in phases:
            if step <= end or end == steps - 1:
                progress = (step - begin) / (end - begin) if end != begin else 1.0
                expected = high + (low - high) / 2 * (1 + math.cos(math.pi * progress))
                break
            begin = end
        assert schedule.at(step) == pytest.approx(expected, rel=1e-9)
    if steps > 3:
        assert max(schedule.at(s) for s in range(steps)) > 0.4
        assert schedule.at(steps - 1) == schedule.at(10 * steps) == pytest.approx(0.0005)


def test_warmup_rises_linearly_and_hands_over_at_the_start() -> None:
    then = StepDecay(0.8, every=5, factor=0.1)
    schedule = Warmup(then, steps=4)
    assert [schedule.at(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [schedule.at(4 + step) for step in range(12)] == [then.at(step) for step in range(12)]


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(0.2),
        StepDecay(0.2, 7),
        Cosine(0.2, 50),
        Linear(0.2, 50),
        OneCycle(0.2, 50, rise=0.2),
        Warmup(Cosine(0.2, 50), 8),
    ],
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
        (Linear, {"rate": 0.1, "steps": 0}, "steps is 0"),
        (OneCycle, {"rate": 0.1, "steps": 9, "rise": 1.0}, "rise is 1.0"),
        (OneCycle, {"rate": 0.1, "steps": 9, "first": 0.0}, "first is 0; it divides the rate"),
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
