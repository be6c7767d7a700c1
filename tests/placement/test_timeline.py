"""The timeline of a schedule, by hand on small machines and by law on random ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coexec.placement.policies.heft import heft
from coexec.placement.problem import Problem, Schedule, Unit
from coexec.placement.timeline import DECILE, makespan_deciles, simulate
from tests.placement.made_up import INF, problem, random_problem

DIAMOND = [("s", "l"), ("s", "r"), ("l", "j"), ("r", "j")]
TIMES = {"s": (10, 10), "l": (30, 30), "r": (20, 20), "j": (5, 5)}


def test_one_processor_runs_one_after_the_other() -> None:
    of = problem(TIMES, DIAMOND, latency=7)
    timeline = simulate(of, Schedule((0, 0, 0, 0), (0, 1, 2, 3)))
    assert timeline.makespan_us == 65
    assert timeline.start_us == (0, 10, 40, 60)
    assert timeline.moves == ()
    assert timeline.busy_us == (65, 0)


def test_branches_overlap_and_moves_take_latency_and_time_per_byte() -> None:
    of = problem(TIMES, DIAMOND, latency=2, us_per_byte=0.001)
    timeline = simulate(of, Schedule((0, 0, 1, 0), (0, 1, 2, 3)))
    # There and back, 1,000 bytes each: 3 us a move, hidden behind the longer branch.
    assert [(m.source, m.target, m.start_us, m.end_us) for m in timeline.moves] == [
        (0, 1, 10, 13),
        (1, 0, 33, 36),
    ]
    assert timeline.start_us == (0, 10, 13, 40)
    assert timeline.makespan_us == 45


def test_who_goes_on_after_a_result_for_others_is_launched_again() -> None:
    """Not who waits for something new from elsewhere: that move has the launch in it."""
    units = [replace(Unit("a"), restart_us=100.0), Unit("b")]
    of = problem(TIMES, DIAMOND, units=units, latency=2)
    timeline = simulate(of, Schedule((0, 0, 1, 0), (0, 1, 2, 3)))
    assert timeline.start_us == (0, 10, 12, 140)
    assert timeline.end_us[1] == 10 + 100 + 30
    whole = simulate(of, Schedule((0, 0, 0, 0), (0, 1, 2, 3)))
    assert whole.makespan_us == 65


def test_what_was_brought_before_does_not_spare_the_launch() -> None:
    """q waits for p's result; t, which reads it too, waits for nobody: it is launched again."""
    times = {"p": (10, 10), "q": (30, 30), "r": (20, 20), "t": (5, 5)}
    units = [replace(Unit("a"), restart_us=100.0), Unit("b")]
    of = problem(times, [("p", "q"), ("q", "r"), ("p", "t")], units=units, latency=2)
    timeline = simulate(of, Schedule((1, 0, 1, 0), (0, 1, 2, 3)))
    assert timeline.start_us == (0, 12, 44, 42)
    assert timeline.end_us[3] == 42 + 100 + 5


def test_copies_keep_processors_from_their_tasks() -> None:
    """Copying out comes before the next task there, copying in right before its reader."""
    units = [replace(Unit("a"), reads=(3.0, 0.0)), replace(Unit("b"), writes=(1.0, 0.002))]
    of = problem(TIMES, DIAMOND, units=units, latency=6)
    timeline = simulate(of, Schedule((0, 0, 1, 0), (0, 1, 2, 3)))
    assert timeline.start_us == (0, 13, 13, 43)
    # Of the 6 us of the move 3 are copying in, which begin where b is free.
    assert timeline.end_us == (10, 43, 13 + 3 + 20, 48)
    assert timeline.busy_us == (10 + 3 + 30 + 5, 3 + 20)
    whole = simulate(of, Schedule((0, 0, 0, 0), (0, 1, 2, 3)))
    assert whole.makespan_us == 65


def test_a_copy_waits_for_the_task_before_it() -> None:
    """What arrives while its processor is busy is copied in after that."""
    times = {"s": (10, INF), "o": (INF, 40), "r": (INF, 5)}
    units = [Unit("a"), replace(Unit("b"), writes=(4.0, 0.0))]
    of = problem(times, [("s", "r")], units=units, latency=4)
    timeline = simulate(of, Schedule((0, 1, 1), (0, 1, 2)))
    assert timeline.start_us[2] == 40
    assert timeline.end_us[2] == 40 + 4 + 5


def test_a_tensor_moves_once_to_each_place() -> None:
    of = problem({"s": (1, 1), "x": (1, 1), "y": (1, 1)}, [("s", "x"), ("s", "y")], latency=4)
    timeline = simulate(of, Schedule((0, 1, 1), (0, 1, 2)))
    assert len(timeline.moves) == 1
    assert timeline.makespan_us == 1 + 4 + 1 + 1


def test_the_hosts_tensors_are_moved_in_and_fetched() -> None:
    of = problem({"n": (10,)}, units=[Unit("a")], latency=3, host=True)
    timeline = simulate(of, Schedule((0,), (0,)))
    assert timeline.start_us == (3,)
    assert timeline.makespan_us == 16


CHAIN = [("s", "t"), ("t", "u")]
TINY = {"s": (1, 1), "t": (1, 1), "u": (1, 1)}


def hosted(times: Mapping[str, Sequence[float]], edges: Sequence[tuple[str, str]]) -> Problem:
    """Launches take the host 2 us, exchanges 100 us from a to b and 50 us back."""
    units = [Unit("a", launch_us=2), Unit("b", launch_us=2)]
    return replace(problem(times, edges, units=units), exchange_us=np.array([[0, 100], [50, 0]]))


def test_nothing_starts_before_the_host_has_handed_it_over() -> None:
    of = hosted(TINY, CHAIN)
    assert simulate(of, Schedule((0, 0, 0), (0, 1, 2))).start_us == (2, 4, 6)
    apart = simulate(of, Schedule((0, 1, 0), (0, 1, 2)))
    assert apart.start_us == (2, 2 + 102, 104 + 52)
    assert replace(of, exchange_us=None).exchanges == [[0, 0], [0, 0]]


def test_without_a_core_of_its_own_the_host_takes_time_of_who_waits_for_another() -> None:
    """Handed over at 104, t could start at 300: the host's 100 us are the processor's time."""
    of = hosted({"s": (300, 1), "t": (1, 20), "u": (1, 1)}, CHAIN)
    schedule = Schedule((0, 1, 1), (0, 1, 2))
    assert simulate(of, schedule).end_us == (302, 322, 323)
    shared = replace(of, host_shares=True)
    assert simulate(shared, schedule).end_us == (302, 422, 423)
    assert simulate(shared, Schedule((0, 0, 0), (0, 1, 2))).end_us == (302, 303, 304)


def test_the_first_of_several_processors_begins_when_the_host_on_its_core_is_done() -> None:
    """104 us for the other processor's two tasks and an exchange, and 2 for its own."""
    of = replace(hosted({"s": (300, 1), "t": (1, 20), "u": (1, 20)}, CHAIN), host_first=True)
    of = replace(of, host_shares=True)
    assert simulate(of, Schedule((0, 1, 1), (0, 1, 2))).end_us == (406, 426, 446)
    assert simulate(of, Schedule((0, 0, 0), (0, 1, 2))).end_us == (302, 303, 304)


def test_who_hands_over_to_others_computes_less_itself() -> None:
    """Launches for b and all exchanges come out of a's time, before its next task."""
    times = {"r": (300, 1), "s": (1, 20), "t": (1, 20), "u": (40, 1)}
    of = hosted(times, [("r", "s"), ("s", "t"), ("t", "u")])
    schedule = Schedule((0, 1, 1, 0), (0, 1, 2, 3))
    assert simulate(of, schedule).end_us == (302, 322, 342, 382)
    # 100 to s and 50 back to u, and two launches: not before r, which nothing is handed over for.
    assert simulate(replace(of, caller=0), schedule).end_us == (302, 322, 342, 382 + 154)


def test_a_processor_that_waits_for_the_host_leaves_it_its_core() -> None:
    of = replace(hosted(TINY, CHAIN), host_shares=True)
    assert simulate(of, Schedule((0, 1, 1), (0, 1, 2))).end_us == (3, 105, 107)


def test_one_exchange_covers_all_that_was_made_before() -> None:
    of = hosted({"x": (1, 1), "y": (1, 1), "p": (1, 1), "q": (1, 1)}, [("x", "q"), ("y", "p")])
    assert simulate(of, Schedule((0, 0, 1, 1), (0, 1, 2, 3))).start_us == (2, 4, 106, 108)
    # In this order the later result is waited for last: two exchanges.
    assert simulate(of, Schedule((0, 0, 1, 1), (0, 1, 3, 2))).start_us == (2, 4, 208, 106)


def test_an_exchange_covers_the_last_that_was_made_in_whatever_order_it_is_read() -> None:
    edges = [("y", "p"), ("x", "p"), ("y", "q")]
    of = hosted({"x": (1, 1), "y": (1, 1), "p": (1, 1), "q": (1, 1)}, edges)
    assert simulate(of, Schedule((0, 0, 1, 1), (0, 1, 2, 3))).start_us == (2, 4, 106, 108)


def test_a_gate_opens_once_the_host_has_handed_over_what_waits_for_none() -> None:
    of = hosted({"s": (1, 1), "x": (1, 1), "t": (1, 1)}, [("s", "t")])
    of = replace(
        of,
        units=(of.units[0], replace(of.units[1], launch_us=50)),
        tensors=(replace(of.tensors[0], fetched=True, gate=True), *of.tensors[1:]),
    )
    # Seen at 3, while the host hands x over until 52; only then t, which takes it 2.
    assert simulate(of, Schedule((0, 1, 0), (0, 1, 2))).start_us == (2, 52, 54)


def test_what_waits_for_a_gate_is_handed_over_once_the_host_has_seen_it() -> None:
    of = hosted(TINY, CHAIN)
    of = replace(
        of,
        tensors=(replace(of.tensors[0], fetched=True, gate=True), *of.tensors[1:]),
        latency_us=np.array([[0, 0, 30], [0, 0, 30], [5, 5, 0]]),
    )
    together = simulate(of, Schedule((0, 0, 0), (0, 1, 2)))
    # u waits for no gate, and is handed over before t is; it needs t here.
    assert together.start_us == (2, 2 + 1 + 30 + 2, 36)


def test_a_parameter_lies_where_it_is_updated() -> None:
    of = problem({"use": (10, 10), "update": (1, 1)}, [("use", "update")], latency=3)
    weight = replace(of.tensors[0], name="w", producer=None, home=1)
    use = replace(of.tasks[0], inputs=(2,))
    of = replace(of, tensors=(*of.tensors, weight), tasks=(use, of.tasks[1]))
    together = simulate(of, Schedule((0, 0), (0, 1)))
    apart = simulate(of, Schedule((0, 1), (0, 1)))
    assert together.makespan_us == 11
    assert (apart.start_us[0], apart.makespan_us) == (3, 17)  # to the use, and its result back


def test_processors_on_the_same_silicon_take_turns() -> None:
    core = frozenset({"core0"})
    times = {"x": (10, 10), "y": (10, 10)}
    apart = problem(times)
    shared = problem(times, units=[Unit("a", core), Unit("b", core)])
    schedule = Schedule((0, 1), (0, 1))
    assert simulate(apart, schedule).makespan_us == 10
    assert simulate(shared, schedule).start_us == (0, 10)


def test_processors_slow_each_other_down_while_both_are_busy() -> None:
    of = problem({"x": (30, INF), "y": (INF, 10)}, slowdown=1.5)
    timeline = simulate(of, Schedule((0, 1), (0, 1)))
    # Both at two thirds of their speed until y ends at 15; x has 20 left then.
    assert timeline.end_us == pytest.approx((35, 15))


def test_a_queue_works_in_the_order_of_the_schedule() -> None:
    of = problem({"late": (50, 50), "after": (10, 10), "free": (10, 10)}, [("late", "after")])
    waiting = simulate(of, Schedule((0, 1, 1), (0, 1, 2)))
    assert waiting.start_us == (0, 50, 60)
    assert simulate(of, Schedule((0, 1, 1), (0, 2, 1))).makespan_us == 60


@pytest.mark.parametrize(
    ("schedule", "complaint"),
    [
        (Schedule((0, 0), (1, 0)), "comes before"),
        (Schedule((0, 0), (0, 0)), "order"),
        (Schedule((0,), (0, 1)), "places"),
        (Schedule((0, 2), (0, 1)), "no processor"),
        (Schedule((1, 0), (0, 1)), "refuses"),
    ],
)
def test_what_is_no_schedule_is_told(schedule: Schedule, complaint: str) -> None:
    of = problem({"x": (1, INF), "y": (1, 1)}, [("x", "y")])
    with pytest.raises(ValueError, match=complaint):
        schedule.check(of)


def test_a_task_that_all_refuse_makes_no_problem() -> None:
    with pytest.raises(ValueError, match="no processor executes"):
        problem({"x": (INF, INF)})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tasks=st.integers(1, 25),
    units=st.integers(1, 4),
    shared=st.booleans(),
    slowdown=st.sampled_from((1.0, 1.3)),
)
def test_laws_of_every_timeline(
    seed: int, tasks: int, units: int, shared: bool, slowdown: float
) -> None:
    rng = np.random.default_rng(seed)
    of = random_problem(rng, tasks, units, shared=shared)
    factors = np.full((units, units), slowdown)
    np.fill_diagonal(factors, 1.0)
    of = replace(of, slowdown=factors)
    schedule = heft(of)
    timeline = simulate(of, schedule)
    times = of.time_us[np.arange(tasks), schedule.units]
    lasted = np.subtract(timeline.end_us, timeline.start_us)
    assert (lasted >= times * (1 - 1e-9)).all()
    if slowdown == 1.0:
        np.testing.assert_allclose(lasted, times, atol=1e-6)
    for index, task in enumerate(of.tasks):
        for tensor in task.inputs:
            producer = of.tensors[tensor].producer
            made = 0.0 if producer is None else timeline.end_us[producer]
            way = of.delay(tensor, of.source(tensor, schedule.units), schedule.units[index])
            assert timeline.start_us[index] >= made + way - 1e-6
    for resource in range(of.resource_count):
        here = [i for i in schedule.order if resource in of.resources[schedule.units[i]]]
        for before, after in itertools.pairwise(here):
            assert timeline.start_us[after] >= timeline.end_us[before] - 1e-6
    assert timeline.makespan_us >= max(timeline.end_us)
    np.testing.assert_allclose(
        timeline.busy_us,
        [lasted[np.equal(schedule.units, unit)].sum() for unit in range(units)],
        atol=1e-6,
    )


def test_the_spread_of_a_makespan_lies_around_it(rng: np.random.Generator) -> None:
    of = random_problem(rng, 30, 2)
    schedule = heft(of)
    low, high = makespan_deciles(of, schedule)
    assert low < simulate(of, schedule).makespan_us < high
    still = replace(of, time_sigma=of.time_sigma * 0, latency_sigma=of.latency_sigma * 0)
    exactly = simulate(of, schedule).makespan_us
    assert makespan_deciles(still, schedule) == pytest.approx((exactly, exactly))


def test_exchanges_that_scatter_leave_the_prediction_within_its_deciles() -> None:
    """Were each way's time drawn by itself, the slower of two would count at each of many joins."""
    times = {f"{name}{step}": [100.0, 100.0] for step in range(20) for name in "ab"}
    edges = [(f"{x}{i}", f"{y}{i + 1}") for i in range(19) for x in "ab" for y in "ab"]
    of = problem(times, edges, latency=50.0)
    of = replace(of, latency_sigma=np.full_like(of.latency_sigma, 1.0))
    of = replace(of, time_sigma=np.full_like(of.time_sigma, 0.5))
    schedule = Schedule((0, 1) * 20, tuple(range(40)))
    low, high = makespan_deciles(of, schedule)
    middle = simulate(of, schedule).makespan_us
    assert low < 0.7 * middle < 1.4 * middle < high


def test_times_at_their_deciles_lead_to_those_of_the_makespan() -> None:
    """All a processor's times deviate alike: by 20 % here, below and above."""
    sigma = np.log(1.2) / DECILE
    of = problem({name: [100.0, 900.0] for name in "abc"}, [("a", "b"), ("b", "c")])
    of = replace(of, time_sigma=np.full_like(of.time_sigma, sigma))
    found = makespan_deciles(of, Schedule((0, 0, 0), (0, 1, 2)))
    assert found == pytest.approx((300.0 / 1.2, 300.0 * 1.2))
