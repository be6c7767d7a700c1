"""The exact policy against every schedule there is (brute force) and every other policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coexec.placement.policies.exact import exact
from coexec.placement.policies.single_best import single_best
from coexec.placement.policies.table import rank
from coexec.placement.timeline import simulate
from tests.placement.made_up import every_schedule, random_problem

pytest.importorskip("ortools", reason="the solver of the extra 'plan' is not installed")
ROUNDING = 1e-4


@settings(max_examples=15, deadline=None)
@example(seed=6251568, tasks=3, units=2, shared=True)  # proved wrongly with a hint
@given(
    seed=st.integers(0, 2**32 - 1),
    tasks=st.integers(1, 5),
    units=st.integers(1, 2),
    shared=st.booleans(),
)
def test_no_schedule_at_all_is_shorter(seed: int, tasks: int, units: int, shared: bool) -> None:
    of = random_problem(np.random.default_rng(seed), tasks, units, shared=shared)
    # From the worst start, so that finding the best is the solver's own merit.
    schedules = list(every_schedule(of))
    spans = [simulate(of, schedule).makespan_us for schedule in schedules]
    solution = exact(of, schedules[int(np.argmax(spans))])
    assert solution.proved
    solution.schedule.check(of)
    found = simulate(of, solution.schedule).makespan_us
    assert found == pytest.approx(min(spans), rel=ROUNDING)
    assert solution.bound_us <= found * (1 + ROUNDING)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(6, 10))
def test_no_policy_is_better(seed: int, tasks: int) -> None:
    of = random_problem(np.random.default_rng(seed), tasks, 3)
    ranking = rank(of, "all")
    best = next(outcome for outcome in ranking.outcomes if outcome.policy == "exact")
    assert best.note == "optimal"
    assert all(o.makespan_us >= best.makespan_us * (1 - ROUNDING) for o in ranking.outcomes)


def test_when_time_is_up_the_start_is_kept() -> None:
    of = random_problem(np.random.default_rng(0), 40, 3)
    start = single_best(of)
    solution = exact(of, start, seconds=0.01)
    assert not solution.proved
    assert simulate(of, solution.schedule).makespan_us <= simulate(of, start).makespan_us
