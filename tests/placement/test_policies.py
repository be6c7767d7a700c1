"""Policies on machines where the best plan is known, and on random ones where laws hold."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coexec.base.errors import UsageError
from coexec.placement.policies import exact as exact_module
from coexec.placement.policies.branch_parallel import branch_parallel, cuts
from coexec.placement.policies.chain import chain
from coexec.placement.policies.exact import exact
from coexec.placement.policies.fallback_order import fallback_order
from coexec.placement.policies.greedy import greedy
from coexec.placement.policies.heft import heft, upward_ranks
from coexec.placement.policies.single_best import single_best
from coexec.placement.policies.table import POLICIES, WORTH, rank
from coexec.placement.problem import Problem, Schedule, Unit
from coexec.placement.timeline import simulate
from tests.placement.made_up import INF, every_schedule, problem, random_problem

CHAIN = [("a", "b"), ("b", "c"), ("c", "d")]
FORK = [("s", "l1"), ("l1", "l2"), ("s", "r1"), ("r1", "r2"), ("l2", "j"), ("r2", "j")]
NAMES = ("s", "l1", "l2", "r1", "r2", "j")


def makespan(of: Problem, schedule: Schedule) -> float:
    schedule.check(of)
    return simulate(of, schedule).makespan_us


def test_single_best_takes_the_fastest_and_sends_away_what_that_refuses() -> None:
    of = problem({"a": (5, 9), "b": (5, 9), "c": (INF, 9), "d": (5, 9)}, CHAIN, latency=1)
    assert single_best(of).units == (0, 0, 1, 0)
    dear = problem({"a": (5, 9), "b": (5, 9), "c": (INF, 9), "d": (5, 9)}, CHAIN, latency=50)
    assert single_best(dear).units == (1, 1, 1, 1)


def test_what_one_processor_refuses_all_goes_to_the_other_that_is_near() -> None:
    """The far one executes it faster; with the way there that is slower than any one alone."""
    near = problem(
        {"a": (1, 10, 12), "b": (INF, 3, 2), "c": (1, 10, 12)},
        CHAIN[:2],
        units=(Unit("npu"), Unit("cpu"), Unit("gpu")),
        latency=1,
    )
    far = near.latency_us.copy()
    far[0, 2] = far[2, 0] = 20.0
    of = replace(near, latency_us=far)
    assert single_best(of).units == (1, 1, 1)
    assert fallback_order(of).units == (0, 1, 0)
    assert makespan(of, fallback_order(of)) == 7


def test_an_order_of_processors_falls_back_even_where_one_alone_is_faster() -> None:
    dear = problem({"a": (5, 9), "b": (INF, 9), "c": (5, 9)}, CHAIN[:2], latency=50)
    assert fallback_order(dear).units == (0, 1, 0)
    whole = problem({"a": (5, 9), "b": (5, 9)}, CHAIN[:1], latency=50)
    assert fallback_order(whole).units == (0, 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(1, 20), units=st.integers(1, 3))
def test_auto_is_not_behind_any_order_of_processors(seed: int, tasks: int, units: int) -> None:
    of = random_problem(np.random.default_rng(seed), tasks, units)
    chosen = rank(of).chosen
    for order in itertools.permutations(range(units)):
        takes = np.isfinite(of.time_us[:, list(order)]).argmax(axis=1)
        first_that_can = Schedule(tuple(order[place] for place in takes), tuple(range(tasks)))
        assert (1 - WORTH) * chosen.makespan_us <= makespan(of, first_that_can) + 1e-6


def test_greedy_weighs_a_move_and_never_looks_ahead() -> None:
    # The way to b is worth it for task b alone, not with the way back that greedy does not see.
    of = problem({"a": (10, 90), "b": (10, 5), "c": (10, 90)}, CHAIN[:2], latency=4)
    assert greedy(of).units == (0, 1, 0)
    assert chain(of).units == (0, 0, 0)
    of = problem({"a": (10, 90), "b": (10, 7), "c": (10, 90)}, CHAIN[:2], latency=4)
    assert greedy(of).units == (0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(1, 6), units=st.integers(1, 3))
def test_chain_is_the_best_schedule_of_a_chain(seed: int, tasks: int, units: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.integers(1, 40, (tasks, units)).astype(float)
    times[:, 1:][rng.random((tasks, units - 1)) < 0.3] = INF
    names = [f"n{i}" for i in range(tasks)]
    of = problem(
        dict(zip(names, times.tolist(), strict=True)),
        list(itertools.pairwise(names)),
        units=[Unit(f"u{i}") for i in range(units)],
        latency=float(rng.integers(0, 20)),
        us_per_byte=0.003,
        host=True,
    )
    best = min(simulate(of, schedule).makespan_us for schedule in every_schedule(of))
    assert makespan(of, chain(of)) == pytest.approx(best)


def test_heft_puts_branches_side_by_side() -> None:
    of = problem(dict.fromkeys(NAMES, (10, 10)), FORK, latency=1)
    schedule = heft(of)
    # Fork, two in each branch, join: with one move there or back on the longer way.
    assert makespan(of, schedule) <= 10 + 20 + 10 + 2
    assert schedule.units[1] == schedule.units[2] != schedule.units[3] == schedule.units[4]


def test_heft_keeps_to_one_processor_where_moves_cost_more_than_they_gain() -> None:
    of = problem(dict.fromkeys(NAMES, (10, 10)), FORK, latency=100)
    assert len(set(heft(of).units)) == 1


def test_upward_ranks_as_by_hand() -> None:
    of = problem({"a": (10, 20), "b": (6, INF), "c": (2, 4)}, [("a", "b"), ("a", "c")], latency=5)
    assert upward_ranks(of) == [15 + 5 + 6, 6, 3]


def test_heft_on_shared_silicon_does_not_believe_in_overlap() -> None:
    core = frozenset({"core"})
    units = [Unit("fast", core), Unit("slow", core)]
    of = problem(dict.fromkeys(NAMES, (10.0, 11.0)), FORK, units=units)
    assert heft(of).units == (0,) * 6


def test_cuts_are_where_one_task_holds_all_that_is_wanted() -> None:
    of = problem(dict.fromkeys(NAMES, (1, 1)), FORK)
    assert cuts(of) == [0, 5, 6]
    skipping = problem(dict.fromkeys("abcd", (1, 1)), [*CHAIN, ("a", "d")])
    assert cuts(skipping) == [0, 3, 4]
    assert cuts(problem(dict.fromkeys("abcd", (1, 1)), CHAIN)) == [0, 1, 2, 3, 4]
    assert cuts(problem(dict.fromkeys("ab", (1, 1)))) == [2]


def test_branches_go_side_by_side_only_if_that_is_faster() -> None:
    of = problem(dict.fromkeys(NAMES, (10, 12)), FORK, latency=1)
    schedule = branch_parallel(of)
    assert schedule.units[1] == schedule.units[2] != schedule.units[3] == schedule.units[4]
    assert schedule.units[0] == schedule.units[5] == 0
    assert makespan(of, schedule) == 10 + 1 + 24 + 1 + 10
    dear = problem(dict.fromkeys(NAMES, (10, 12)), FORK, latency=20)
    assert branch_parallel(dear).units == (0,) * 6


def test_a_branch_with_a_refusal_stays_whole_on_the_other_processor() -> None:
    times = dict.fromkeys(NAMES, (10.0, 12.0)) | {"l1": (10.0, INF), "r2": (10.0, INF)}
    assert branch_parallel(problem(times, FORK)).units == (0,) * 6


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tasks=st.integers(1, 30),
    units=st.integers(1, 4),
    shared=st.booleans(),
)
def test_every_policy_gives_a_valid_schedule_and_the_same_one_again(
    seed: int, tasks: int, units: int, shared: bool
) -> None:
    of = random_problem(np.random.default_rng(seed), tasks, units, shared=shared)
    # No schedule is shorter than the longest way, each task where it is fastest, moves for nothing.
    reach = [0.0] * tasks
    for index, task in enumerate(of.tasks):
        made = [reach[p] for t in task.inputs if (p := of.tensors[t].producer) is not None]
        reach[index] = max(made, default=0.0) + float(of.time_us[index].min())
    for policy in POLICIES.values():
        schedule = policy(of)
        assert makespan(of, schedule) >= max(reach) - 1e-6
        assert policy(of) == schedule


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(1, 25), units=st.integers(1, 3))
def test_auto_is_the_best_of_all_or_one_processor_within_what_is_worth_it(
    seed: int, tasks: int, units: int
) -> None:
    of = random_problem(np.random.default_rng(seed), tasks, units)
    ranking = rank(of)
    best = ranking.outcomes[0].makespan_us
    alone = next(each for each in ranking.outcomes if each.policy == "single_best")
    assert [each.makespan_us for each in ranking.outcomes] == sorted(
        each.makespan_us for each in ranking.outcomes
    )
    if ranking.chosen is not alone:
        assert ranking.chosen.makespan_us == best < (1 - WORTH) * alone.makespan_us
    else:
        assert best >= (1 - WORTH) * alone.makespan_us
    assert "exact" in ranking.left_out


def test_a_named_policy_is_taken_whatever_it_costs() -> None:
    of = problem({"a": (10, 90), "b": (10, 5), "c": (10, 90)}, CHAIN[:2], latency=4)
    ranking = rank(of, "greedy")
    assert ranking.chosen.policy == "greedy"
    assert ranking.chosen.makespan_us > ranking.outcomes[0].makespan_us


def test_only_one_policy_is_tried_beside_a_single_processor() -> None:
    of = problem({"a": (10, 90), "b": (10, 5), "c": (10, 90)}, CHAIN[:2], latency=4)
    ranking = rank(of, only="heft")
    assert {each.policy for each in ranking.outcomes} == {"single_best", "heft"}
    everything = {each.policy: each.schedule for each in rank(of).outcomes}
    assert all(each.schedule == everything[each.policy] for each in ranking.outcomes)


def test_without_its_solver_the_exact_policy_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    of = problem({"a": (1, 2)})
    with pytest.raises(UsageError, match=r"coexec\[plan\]"):
        exact(of, single_best(of))
    monkeypatch.setattr("coexec.placement.policies.table.solver_is_there", lambda: False)
    assert rank(of, "all").left_out == {"exact": exact_module.MISSING}


def test_planning_grows_about_linearly() -> None:
    seconds = {}
    for tasks in (1_000, 4_000):
        of = random_problem(np.random.default_rng(0), tasks, 3)
        began = time.process_time()
        rank(of)
        seconds[tasks] = time.process_time() - began
    # Four times the tasks: a quadratic step would make it 16 times.
    assert seconds[4_000] < 8 * seconds[1_000]
