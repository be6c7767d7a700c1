"""Dividing tasks on machines where the best ratio is known; what a divided problem looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coexec.base.window import Window
from coexec.placement.divide import divide
from coexec.placement.policies.balance import balanced
from coexec.placement.policies.operator_split import operator_split
from coexec.placement.policies.overlap import overlap
from coexec.placement.policies.single_best import single_best
from coexec.placement.policies.split_chain import best_chain
from coexec.placement.policies.table import rank
from coexec.placement.problem import Division, Problem, Schedule, Shares, Unit
from coexec.placement.timeline import simulate
from tests.placement.made_up import INF, problem

CHAIN = (("a", "b"), ("b", "c"))
POINTWISE = Window(1, 64)


def divisible(
    times: Mapping[str, Sequence[float]],
    edges: Sequence[tuple[str, str]] = (),
    *,
    window: Window | None = POINTWISE,
    launch: float = 0.0,
    units: Sequence[Unit] = (Unit("a"), Unit("b")),
    curves: Sequence[Sequence[tuple[float, float]]] = (),
    latency: float = 0.0,
    us_per_byte: float = 0.0,
    host: bool = False,
) -> Problem:
    """Tasks that divide along one axis; a share costs a launch and its part of the rest."""
    of = problem(times, edges, units=units, latency=latency, us_per_byte=us_per_byte, host=host)
    ways = {}
    for index, (task, row) in enumerate(zip(of.tasks, of.time_us.tolist(), strict=True)):
        lines = [() if np.isinf(us) else ((0.0, min(launch, us)), (1.0, us)) for us in row]
        own = tuple(tuple(curve) for curve in curves) or tuple(lines)
        ways[index] = (Division(1, 64, (window,) * len(task.inputs), own),)
    return replace(of, divisions=ways)


def makespan(of: Problem, schedule: Schedule) -> float:
    schedule.check(of)
    plain = divide(of, schedule)
    plain.schedule.check(plain.problem)
    return simulate(plain.problem, plain.schedule).makespan_us


@pytest.mark.parametrize(("slow", "units"), [(40, 32), (120, 48), (1000, 62)])
def test_the_ratio_is_that_of_the_speeds(slow: float, units: int) -> None:
    of = divisible({"a": (40, slow)})
    schedule = operator_split(of)
    assert dict(schedule.shares[0].units)[0] == pytest.approx(units, abs=1)
    assert makespan(of, schedule) == pytest.approx(40 * slow / (40 + slow), rel=0.03)


def test_a_launch_and_a_way_are_taken_off_the_share() -> None:
    # 10 + 30 r = 10 + 8 + 30 (1 - r): the second one starts 8 later, so r = 19 / 30.
    of = divisible({"a": (40, 40)}, launch=10, latency=8)
    units = dict(balanced(of, of.divisions[0][0]))
    assert units[0] == pytest.approx(64 * 19 / 30, abs=1)


def test_measured_shares_count_more_than_proportion() -> None:
    # Half of the work takes the second processor nearly as long as all of it.
    of = divisible({"a": (40, 40)}, curves=[[(0, 0), (1, 40)], [(0, 0), (0.5, 38), (1, 40)]])
    units = dict(operator_split(of).shares[0].units)
    # 40 r = 76 (1 - r)
    assert units[0] == pytest.approx(64 * 76 / 116, abs=1)


def test_nothing_is_divided_where_moving_costs_more() -> None:
    # The second one reads all of the first, half of which would arrive late.
    of = divisible(dict.fromkeys("ab", (40, 40)), CHAIN[:1], window=None, latency=50)
    assert not operator_split(of).shares


def test_the_host_fetches_shares_from_where_they_are() -> None:
    """It joins them by itself: no processor waits for the other one, nor copies anything."""
    of = divisible({"a": (40, 40)}, latency=50, us_per_byte=0.01, host=True)
    of = replace(of, units=tuple(replace(unit, us_per_byte=1.0) for unit in of.units))
    schedule = operator_split(of)
    assert schedule.shares[0].units == ((0, 32), (1, 32))
    # In and out: a latency and half of the bytes each.
    assert makespan(of, schedule) == pytest.approx(2 * (50 + 5) + 20)


def test_a_slow_way_to_the_host_makes_a_share_smaller() -> None:
    # What the second one makes takes 20 in all on its way: 40 r = (40 + 20) (1 - r).
    of = divisible({"a": (40, 40)}, host=True)
    rates = of.us_per_byte.copy()
    rates[1, 2] = 0.02
    of = replace(of, us_per_byte=rates)
    schedule = operator_split(of)
    assert dict(schedule.shares[0].units)[0] == pytest.approx(64 * 0.6, abs=1)
    assert makespan(of, schedule) == pytest.approx(24, rel=0.03)


def test_nothing_is_divided_among_processors_on_one_silicon() -> None:
    core = frozenset({"core"})
    of = divisible({"a": (40, 40)}, units=(Unit("a", core), Unit("b", core)))
    assert not operator_split(of).shares


def test_nothing_is_divided_with_a_processor_that_refuses() -> None:
    assert not operator_split(divisible({"a": (40, INF)})).shares


def test_a_way_to_divide_that_every_processor_refuses_is_left_out() -> None:
    of = divisible({"a": (40, 40)}, curves=[(), ()])
    assert not operator_split(of).shares


def test_three_processors_take_shares_by_speed() -> None:
    units = (Unit("a"), Unit("b"), Unit("c"))
    of = divisible({"a": (30, 60, 60)}, units=units)
    schedule = operator_split(of)
    assert sorted(schedule.shares[0].units) == [(0, 32), (1, 16), (2, 16)]
    assert makespan(of, schedule) == pytest.approx(15)


def test_a_chain_stays_divided_and_moves_only_at_its_ends() -> None:
    of = divisible(dict.fromkeys("abc", (40, 40)), CHAIN, latency=5, host=True)
    schedule = operator_split(of)
    assert len(schedule.shares) == 3
    plain = divide(of, schedule)
    line = simulate(plain.problem, plain.schedule)
    kinds = [task.operator for task in plain.problem.tasks]
    assert kinds.count("Op") == 6
    # In, to both; the parts to the host, which wants them in one array.
    assert len(line.moves) == 4
    assert line.makespan_us == pytest.approx(5 + 3 * 20 + 5, abs=2)


def test_what_goes_past_a_task_is_taken_along() -> None:
    # The last one reads both, as in a residual block: three are cheaper on one processor if what
    # the first one makes is taken to be there already.
    times = {"a": (40, 40), "b": (40, 40), "c": (4, 4), "d": (40, 40)}
    of = divisible(times, (("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")), latency=6)
    chosen = best_chain(of)
    assert [len(state.places) for state in chosen] == [2, 2, 2, 2]
    assert len({state.ratio for state in chosen}) == 1


def test_halos_move_and_are_joined() -> None:
    of = divisible({"a": (40, 40), "b": (40, 40)}, CHAIN[:1], window=Window(1, 64, 1, 1, 3))
    half = Shares(0, ((0, 32), (1, 32)))
    plain = divide(of, Schedule((0, 0), (0, 1), {0: half, 1: half}))
    kinds = [task.operator for task in plain.problem.tasks]
    assert (kinds.count("Op"), kinds.count("Slice"), kinds.count("Concat")) == (4, 2, 2)
    moves = simulate(plain.problem, plain.schedule).moves
    # One row of 64 in each direction, of a tensor of 1000 bytes in halves.
    assert [plain.problem.tensors[move.tensor].nbytes for move in moves] == [500 // 32] * 2
    assert set(plain.origin) == {0, 1}


@pytest.mark.parametrize(
    ("latency", "overlaps"), [(0.5, [0, 0, 0]), (1.0, [0, 1, 0]), (9.0, [2, 1, 0])]
)
def test_a_halo_is_computed_twice_where_fetching_it_takes_longer(
    latency: float, overlaps: list[int]
) -> None:
    # A row takes 0.6; each task before another one that wants one more computes one more.
    window = Window(1, 64, 1, 1, 3)
    of = divisible(dict.fromkeys("abc", (40, 40)), CHAIN, window=window, latency=latency)
    half = Shares(0, ((0, 32), (1, 32)))
    divided = Schedule((0, 0, 0), (0, 1, 2), dict.fromkeys(range(3), half))
    found = overlap(of, divided)
    assert [found.shares[task].overlap for task in range(3)] == [(n, n) for n in overlaps]
    assert makespan(of, found) <= makespan(of, divided)


def test_what_is_fused_with_a_task_overlaps_with_it() -> None:
    # The middle one is read element by element: it would be cut out of its kernel.
    window = Window(1, 64, 1, 1, 3)
    of = divisible(dict.fromkeys("abc", (40, 40)), CHAIN, window=window, latency=1.5)
    ways = of.divisions[1][0]
    of = replace(of, divisions={**of.divisions, 1: (replace(ways, windows=(POINTWISE,)),)})
    half = Shares(0, ((0, 32), (1, 32)))
    divided = Schedule((0, 0, 0), (0, 1, 2), dict.fromkeys(range(3), half))
    found = [overlap(of, divided).shares[task].overlap for task in range(3)]
    assert found == [(1, 1), (1, 1), (0, 0)]


def test_shares_overlap_only_on_the_side_on_which_windows_reach_over_the_cut() -> None:
    # With a stride of two, windows around the middle reach one row back, and none ahead.
    strided = Window(1, 64, 2, 1, 3)
    of = divisible({"a": (40, 40), "b": (20, 20)}, CHAIN[:1], window=strided, latency=9.0)
    (reads,) = of.divisions[1]
    curves = tuple(((0.0, 0.0), (1.0, 20.0)) for _ in range(2))
    halved = replace(reads, count=32, curves=curves)
    of = replace(of, divisions={**of.divisions, 1: (halved,)})
    shares = {0: Shares(0, ((0, 32), (1, 32))), 1: Shares(0, ((0, 16), (1, 16)))}
    found = overlap(of, Schedule((0, 0), (0, 1), shares))
    assert found.shares[0].overlap == (1, 0)
    plain = divide(of, found)
    # Each reads what it made, as it is.
    assert {task.operator for task in plain.problem.tasks} == {"Op"}


def test_a_dear_halo_ends_a_chain_of_shares() -> None:
    # To cut it or to join it takes as long as what reads it.
    wide = Window(1, 64, 1, 30, 61)
    units = (Unit("a", launch_us=6.0), Unit("b", launch_us=6.0))
    times = {"a": (40, 40), "b": (6, 6)}
    of = divisible(times, CHAIN[:1], window=wide, units=units, latency=6, us_per_byte=0.01)
    assert set(operator_split(of).shares) == {0}
    half = Shares(0, ((0, 32), (1, 32)))
    assert makespan(of, operator_split(of)) < makespan(
        of, Schedule((0, 0), (0, 1), {0: half, 1: half})
    )


def test_auto_divides_where_that_pays() -> None:
    of = divisible(dict.fromkeys("abc", (400, 400)), CHAIN, latency=5, host=True)
    ranking = rank(of)
    assert ranking.chosen.policy == "operator_split"
    start, end = ranking.chosen.span_us(1)
    assert end - start == pytest.approx(200)


def test_shares_that_do_not_add_up_are_refused() -> None:
    of = divisible({"a": (40, 40)})
    for units in [((0, 32), (1, 31)), ((0, 64), (1, 0)), ((0, 32), (0, 32))]:
        with pytest.raises(ValueError, match="share"):
            Schedule((0,), (0,), {0: Shares(0, units)}).check(of)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_it_is_never_worse_than_one_processor_and_always_valid(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"t{i}" for i in range(count)]
    times = {name: rng.integers(1, 200, 2).astype(float).tolist() for name in names}
    edges = [(names[int(rng.integers(0, i))], names[i]) for i in range(1, count)]
    window = Window(1, 64, 1, 1, 3) if rng.random() < 0.5 else None
    latency = float(rng.integers(0, 30))
    of = divisible(times, edges, window=window, launch=1.0, latency=latency, host=True)
    assert makespan(of, operator_split(of)) <= makespan(of, single_best(of))


def refusing(of: Problem, unit: int) -> Problem:
    """The same with a processor that neither cuts nor joins."""
    alone = frozenset({unit})
    tensors = tuple(replace(each, uncut=alone, unjoined=alone) for each in of.tensors)
    return replace(of, tensors=tensors)


def test_no_processor_cuts_or_joins_that_refuses_to() -> None:
    of = refusing(divisible(dict.fromkeys("abc", (40, 40)), CHAIN, latency=1), 0)
    shares = {0: Shares(0, ((0, 48), (1, 16))), 2: Shares(0, ((0, 48), (1, 16)))}
    plain = divide(of, Schedule((0, 0, 0), (0, 1, 2), shares))
    placed = zip(plain.problem.tasks, plain.schedule.units, strict=True)
    found = {(task.operator, unit) for task, unit in placed if task.operator != "Op"}
    assert found == {("Concat", 1), ("Slice", 1)}
    plain.schedule.check(plain.problem)


def test_nothing_is_divided_where_another_one_would_have_to_join() -> None:
    """The second task is whole on the first processor, the quick one, and reads it all."""
    times = {"a": (40, 40), "b": (40, 4000)}
    of = divisible(times, CHAIN[:1], window=None, latency=15)
    of = replace(of, divisions={0: of.divisions[0]})
    assert operator_split(of).shares
    assert not operator_split(refusing(of, 0)).shares


def test_shares_overlap_where_halos_could_not_be_joined() -> None:
    window = Window(1, 64, 1, 1, 3)
    of = divisible(dict.fromkeys("ab", (40, 40)), CHAIN[:1], window=window)
    shares = Shares(0, ((0, 32), (1, 32)))
    schedule = Schedule((0, 0), (0, 1), {0: shares, 1: shares})
    assert overlap(of, schedule).shares[0].overlap == (0, 0)
    assert overlap(refusing(of, 1), schedule).shares[0].overlap == (1, 1)
