"""Choosing among plans by their runs, on a machine that is only numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from coexec.planning.trials import News, Trials

Machine = Callable[[int, int], float]
"""Microseconds of a run by plan number and run."""


def ready(plans: int) -> Trials:
    """Trials of so many plans, of which all others wait for theirs."""
    trials = Trials()
    trials.begin([trials.add() for _ in range(plans - 1)])
    return trials


def follow(trials: Trials, machine: Machine, runs: int, first: int = 0) -> list[int]:
    """The plans of so many runs; where the situation changed, all others are tried."""
    followed = []
    for run in range(first, first + runs):
        followed.append(trials.now)
        if trials.observe(machine(trials.now, run)) is News.CHANGED:
            trials.begin([number for number in trials.times if number != trials.chosen])
    return followed


def constant(*times: float) -> Machine:
    return lambda plan, _run: times[plan]


def test_plans_that_are_ready_are_tried_and_the_fastest_is_followed() -> None:
    trials = ready(3)
    followed = follow(trials, constant(100.0, 80.0, 300.0), 20)
    assert trials.chosen == 1
    assert trials.quiet
    # What is hopeless ends with the first run that counts.
    assert followed.count(2) == 2
    assert set(followed[-8:]) == {1}


def test_what_is_predicted_to_be_hopeless_beside_the_best_so_far_is_left_out() -> None:
    trials = Trials()
    numbers = [trials.add() for _ in range(3)]
    trials.begin(numbers, {1: 70.0, 2: 95.0, 3: 75.0})
    followed = follow(trials, constant(100.0, 71.0, 90.0, 76.0), 20)
    assert trials.chosen == 1
    assert 3 in followed
    assert 2 not in followed


def test_a_plan_that_is_hardly_faster_is_not_worth_a_change() -> None:
    trials = ready(2)
    follow(trials, constant(100.0, 98.0), 30)
    assert trials.chosen == 0


@pytest.mark.parametrize("slower", [1.25, 2.0])
def test_a_slow_down_is_answered_within_few_runs(slower: float) -> None:
    trials = ready(3)
    follow(trials, constant(60.0, 100.0, 110.0), 30)
    assert trials.chosen == 0

    def loaded(plan: int, _run: int) -> float:
        return (60.0 * slower, 70.0, 110.0 * slower)[plan]

    followed = follow(trials, loaded, 12)
    assert followed[:4] == [0, 0, 0, 1]
    assert trials.chosen == 1


def test_when_a_load_goes_away_the_plan_from_before_is_followed_again() -> None:
    trials = ready(2)
    follow(trials, constant(60.0, 100.0), 20)
    follow(trials, constant(150.0, 100.0), 200)
    assert trials.chosen == 1
    follow(trials, constant(60.0, 100.0), 400)
    assert trials.chosen == 0


def test_what_trials_in_vain_cost_is_a_small_share_of_the_time() -> None:
    trials = ready(2)
    machine = constant(60.0, 100.0), constant(150.0, 100.0)
    follow(trials, machine[0], 20)
    follow(trials, machine[1], 20)
    followed = follow(trials, machine[1], 3000)
    assert 0 in followed
    excess = sum(machine[1](plan, 0) - 100.0 for plan in followed)
    assert excess < 0.03 * 100.0 * len(followed)


@pytest.mark.parametrize("seed", range(8))
def test_noise_changes_no_plan(seed: int) -> None:
    """Runs vary by a tenth, and one in twenty takes up to three times as long."""
    draw = np.random.default_rng(seed)

    def noisy(plan: int, _run: int) -> float:
        outlier = draw.uniform(1.0, 3.0) if draw.random() < 0.05 else 1.0
        return float((100.0, 115.0, 180.0)[plan] * draw.lognormal(0.0, 0.1) * outlier)

    trials = ready(3)
    follow(trials, noisy, 40)
    assert trials.chosen == 0
    followed = follow(trials, noisy, 600)
    assert trials.chosen == 0
    assert followed.count(0) > 0.95 * len(followed)


def test_a_slow_down_in_noise_is_still_answered() -> None:
    draw = np.random.default_rng(0)
    trials = ready(2)
    follow(trials, lambda plan, _: (60.0, 100.0)[plan] * draw.lognormal(0.0, 0.1), 30)
    follow(trials, lambda plan, _: (130.0, 100.0)[plan] * draw.lognormal(0.0, 0.1), 20)
    assert trials.chosen == 1


def test_a_new_plan_that_is_worse_than_hoped_is_left_again() -> None:
    trials = ready(1)
    follow(trials, constant(100.0), 10)
    number = trials.add()
    trials.begin([number])
    followed = follow(trials, constant(100.0, 120.0), 10)
    assert trials.chosen == 0
    assert followed[-4:] == [0] * 4
    trials.drop(number)
    assert list(trials.times) == [0]


def test_single_outliers_are_suspicious_but_no_other_situation() -> None:
    trials = ready(1)
    follow(trials, constant(100.0), 10)
    assert trials.observe(400.0) is News.NOTHING
    assert trials.suspicious
    assert trials.observe(100.0) is News.NOTHING
    assert not trials.suspicious
    found = [trials.observe(400.0) for _ in range(3)]
    assert found == [News.NOTHING, News.NOTHING, News.CHANGED]
    assert trials.change == pytest.approx(4.0)


def test_all_first_runs_in_another_situation_are_suspicious_however_uneven_usual_ones_are() -> None:
    trials = ready(1)
    for us in (999.0, 60.0, 124.0, 68.0):
        trials.observe(us)
    suspicious = []
    while trials.observe(121.0) is News.NOTHING:
        suspicious.append(trials.suspicious)
    assert suspicious == [True, True]
