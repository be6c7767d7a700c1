"""The event simulation: conservation laws, closed forms, and the same trace for the same seed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from coexec.simulation.condition import CONDITIONS, IDLE, Condition, Load
from coexec.simulation.device import Device, HeatSink, Unit
from coexec.simulation.energy import BASE, DRAM, IDLE_POWER, LOAD
from coexec.simulation.engine import Engine
from coexec.simulation.frequency import PERFORMANCE, PERIOD_US, Frequency
from coexec.simulation.heat import seconds_to_throttle, temperature_after
from coexec.simulation.sharing import max_min_shares
from coexec.simulation.work import Job, Work

COOL = HeatSink(10.0, 15.0, 25.0, 60.0)
DEVICE = Device(
    name="phone",
    shared_gbps=40.0,
    peak_gbps=44.0,
    joule_per_byte=4e-11,
    base_w=0.5,
    battery_wh=15.0,
    usable_bytes=6 << 30,
    heat=COOL,
    idle_w={"cpu.big": 0.02, "gpu": 0.01},
    full_w={"cpu.big": 4.0, "gpu": 3.0},
)
STEPS = (0.4, 0.7, 1.0)
CPU = Unit("cpu", frozenset({"cpu.big"}), STEPS, (0.8, 2.0, 4.0))
PART = Unit("cpu:1big", frozenset({"cpu.big"}), STEPS, (0.2, 0.5, 1.0))
GPU = Unit("gpu", frozenset({"gpu"}), STEPS, (0.7, 1.6, 3.0))


def engine_with(
    *units: Unit, condition: Condition = IDLE, device: Device = DEVICE, seed: int = 0
) -> Engine:
    engine = Engine(device, condition, seed)
    for unit in units:
        engine.add(unit)
    return engine


def computing(us: float) -> Work:
    return Work([0.0], [us], [0.0], [0.0])


def streaming(us: float, gbps: float) -> Work:
    """A phase that waits for memory only, at a bandwidth of its own."""
    return Work([0.0], [0.0], [us], [us * gbps * 1e3])


def finish(engine: Engine, *jobs: Job) -> None:
    for job in jobs:
        engine.run_until(job.done)


def random_work(rng: np.random.Generator, phases: int) -> Work:
    fixed, compute, memory = rng.uniform(0, 100, (3, phases))
    return Work(fixed, compute, memory, memory * rng.uniform(0, 30e3, phases))


def random_run(seed: int, condition: Condition = IDLE) -> tuple[Engine, list[Job]]:
    """Three units, two of them on the same cores, with jobs of which some wait for others."""
    engine = engine_with(CPU, PART, GPU, condition=condition, seed=seed)
    rng = np.random.default_rng(seed)
    jobs: list[Job] = []
    for _ in range(12):
        unit = [CPU, PART, GPU][rng.integers(3)]
        after = [jobs[rng.integers(len(jobs))].done] if jobs and rng.random() < 0.5 else []
        jobs.append(engine.submit(unit.name, random_work(rng, int(rng.integers(1, 9))), after))
        engine.pass_time(float(rng.uniform(0, 80)))
    finish(engine, *jobs)
    return engine, jobs


def test_work_takes_the_sum_of_its_phases() -> None:
    engine = engine_with(GPU)
    job = engine.submit("gpu", Work([5.0, 5.0], [10.0, 0.0], [20.0, 7.0], [3.0, 4.0]))
    finish(engine, job)
    assert job.ends_us == pytest.approx([35.0, 47.0])
    assert engine.busy_us("gpu") == pytest.approx(47.0)


def test_work_that_takes_no_time_ends_at_once() -> None:
    engine = engine_with(GPU)
    job = engine.submit("gpu", Work([0.0], [0.0], [0.0], [0.0]))
    finish(engine, job)
    assert job.end_us == 0.0


def test_a_queue_is_in_order_and_waits_for_what_comes_before() -> None:
    engine = engine_with(CPU, GPU)
    first = engine.submit("cpu", computing(100.0))
    waiting = engine.submit("gpu", computing(10.0), [first.done])
    behind = engine.submit("gpu", computing(10.0))
    finish(engine, behind)
    assert (waiting.begin_us, waiting.end_us, behind.end_us) == pytest.approx((100, 110, 120))


def test_what_happens_at_one_instant_is_planned_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on two units, all handed over at once: a plan for each end, not for each call."""
    plans, plan = [0], Engine._plan

    def counted(engine: Engine) -> None:
        plans[0] += 1
        plan(engine)

    monkeypatch.setattr(Engine, "_plan", counted)
    engine = engine_with(CPU, GPU)
    jobs = [engine.submit(name, computing(10.0)) for name in ("cpu", "gpu") for _ in range(20)]
    finish(engine, *jobs)
    assert [job.end_us for job in jobs] == pytest.approx([*range(10, 210, 10)] * 2)
    assert plans[0] <= 20 + 1


def test_two_streams_share_the_bandwidth_until_one_ends() -> None:
    """30 and 25 GB/s wanted of 40: 20 each, then the longer one has what it wants."""
    engine = engine_with(CPU, GPU)
    slow, fast = (
        engine.submit("gpu", streaming(1000, 30)),
        engine.submit("cpu", streaming(1000, 25)),
    )
    finish(engine, slow, fast)
    together = 1000 * 25 / 20
    assert fast.end_us == pytest.approx(together)
    assert slow.end_us == pytest.approx(together + (30 - together * 20e-3) / 30e-3)
    assert engine.peak_gbps == pytest.approx(40.0)


def test_work_without_traffic_is_not_slowed_down_by_a_stream() -> None:
    engine = engine_with(CPU, GPU)
    stream, arithmetic = (
        engine.submit("gpu", streaming(500, 40)),
        engine.submit("cpu", computing(500)),
    )
    finish(engine, stream, arithmetic)
    assert stream.end_us == pytest.approx(500)
    assert arithmetic.end_us == pytest.approx(500)


def test_units_on_the_same_cores_take_turns() -> None:
    engine = engine_with(CPU, PART)
    one, other = engine.submit("cpu", computing(100.0)), engine.submit("cpu:1big", computing(300.0))
    finish(engine, one, other)
    assert (one.end_us, other.end_us) == pytest.approx((200.0, 400.0))
    assert engine.busy_us("cpu") + engine.busy_us("cpu:1big") == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("demands", "shares"),
    [((10, 10), (10, 10)), ((30, 30), (20, 20)), ((5, 60, 60), (5, 17.5, 17.5)), ((), ())],
)
def test_max_min_shares(demands: tuple[float, ...], shares: tuple[float, ...]) -> None:
    assert max_min_shares(demands, 40.0) == pytest.approx(list(shares))


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=list(CONDITIONS))
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_used_above_its_limit_and_energy_is_the_sum_of_its_parts(
    seed: int, condition: Condition
) -> None:
    engine, jobs = random_run(seed, condition)
    assert engine.peak_gbps <= DEVICE.shared_gbps * (1 + 1e-9) <= DEVICE.peak_gbps
    assert engine.busy_us("gpu") <= engine.now_us * (1 + 1e-9)
    assert engine.busy_us("cpu") + engine.busy_us("cpu:1big") <= engine.now_us * (1 + 1e-9)
    joules, seconds = engine.ledger.joules, engine.now_us * 1e-6
    assert engine.ledger.total_j == pytest.approx(sum(joules.values()))
    assert joules[BASE] == pytest.approx(DEVICE.base_w * seconds)
    assert joules[IDLE_POWER] == pytest.approx(0.03 * seconds)
    moved = sum(job.work.moved for job in jobs)
    assert joules[DRAM] == pytest.approx(moved * DEVICE.joule_per_byte)
    for unit in (CPU, PART, GPU):
        lowest, highest = (watts * engine.busy_us(unit.name) * 1e-6 for watts in unit.busy_w[::2])
        assert lowest * (1 - 1e-9) <= joules.get(unit.name, 0.0) <= highest * (1 + 1e-9)
    for job in jobs:
        assert np.all(np.diff([job.begin_us, *job.ends_us]) >= 0)


@pytest.mark.parametrize("name", ["idle", "loaded", "battery-saver"])
def test_the_same_seed_gives_the_same_trace_and_another_one_another(name: str) -> None:
    runs = [random_run(seed, CONDITIONS[name])[1] for seed in (4, 4, 5)]
    ends = [[job.end_us for job in jobs] for jobs in runs]
    assert ends[0] == ends[1]
    assert ends[0] != ends[2]


def test_planning_all_phases_at_once_gives_the_times_of_one_after_the_other() -> None:
    """A second unit that hardly takes bandwidth forces the phases to be planned one by one."""
    rng = np.random.default_rng(0)
    work = random_work(rng, 20)
    alone = engine_with(GPU)
    job = alone.submit("gpu", work)
    finish(alone, job)
    tight = replace(DEVICE, shared_gbps=max(work.alone(1.0).most_gbps, 1e-3))
    beside = engine_with(CPU, GPU, device=replace(tight, peak_gbps=max(tight.shared_gbps, 44.0)))
    other = beside.submit("cpu", streaming(1e6, 1e-9))
    same = beside.submit("gpu", work)
    finish(beside, same)
    assert not other.finished
    np.testing.assert_allclose(same.ends_us, job.ends_us, rtol=1e-6)


def sustained_w(sink: HeatSink) -> float:
    """Power at which the temperature settles where throttling begins."""
    return (sink.throttle_celsius - sink.ambient_celsius) / sink.kelvin_per_watt


def test_heat_follows_the_charging_curve() -> None:
    """Constant power for one time constant: 1 - 1/e of the final rise."""
    device = replace(DEVICE, base_w=2.0, idle_w={})
    engine = engine_with(GPU, device=device)
    seconds = COOL.kelvin_per_watt * COOL.joule_per_kelvin
    engine.pass_time(seconds * 1e6)
    assert engine.celsius == pytest.approx(25 + 2.0 * 10 * (1 - math.exp(-1)), rel=1e-9)
    assert temperature_after(COOL, 25.0, 2.0, 1e9) == pytest.approx(45.0)
    warm = temperature_after(COOL, 30.0, 5.0, seconds_to_throttle(COOL, 30.0, 5.0))
    assert warm == pytest.approx(COOL.throttle_celsius)
    assert seconds_to_throttle(COOL, 30.0, sustained_w(COOL)) == math.inf
    assert engine.ledger.total_j == pytest.approx(2.0 * seconds)


def test_a_hot_phone_slows_down_until_its_power_is_what_it_can_give_off() -> None:
    sink = HeatSink(20.0, 0.5, 25.0, 60.0)
    engine = engine_with(GPU, device=replace(DEVICE, heat=sink))
    job = engine.submit("gpu", computing(120e6))
    engine.pass_time(60e6)
    before, speed = engine.ledger.total_j, []
    for _ in range(100):
        engine.pass_time(0.5e6)
        speed.append(engine.speed("gpu"))
    assert not job.finished
    assert min(speed) < 1.0
    assert (engine.ledger.total_j - before) / 50 == pytest.approx(sustained_w(sink), rel=0.1)
    assert engine.hottest_celsius < sink.throttle_celsius + 2.0


def test_clocks_go_down_only_while_it_gets_hotter_and_up_while_it_gets_cooler() -> None:
    """Linux's step_wise: above its trip point a phone that cools keeps the clocks it has."""
    unit = Frequency(GPU, PERFORMANCE, 1.0)
    seen = []
    for before, celsius in ((60.1, 60.2), (60.2, 60.1), (59.0, 59.5), (59.5, 59.0)):
        unit.look(COOL, celsius, before)
        seen.append(unit.speed)
    assert seen == [0.7, 0.7, 0.7, 1.0]


def test_a_governor_ramps_up_while_there_is_work_and_down_without() -> None:
    condition = replace(IDLE, governor="schedutil")
    engine = engine_with(GPU, condition=condition)
    assert engine.speed("gpu") == STEPS[0]
    job = engine.submit("gpu", computing(10 * PERIOD_US))
    engine.pass_time(3.5 * PERIOD_US)
    assert engine.speed("gpu") == 1.0
    finish(engine, job)
    engine.pass_time(4 * PERIOD_US)
    assert engine.speed("gpu") == STEPS[0]
    assert job.end_us > 10 * PERIOD_US


def test_a_limit_of_speed_slows_arithmetic_and_not_memory() -> None:
    engine = engine_with(GPU, condition=replace(IDLE, speed_limit=0.7))
    job = engine.submit("gpu", Work([10.0], [70.0], [30.0], [1e3]))
    finish(engine, job)
    assert job.end_us == pytest.approx(10 + 100 + 30)


def test_other_apps_take_their_share_and_are_booked() -> None:
    always = Condition("busy", "", (Load(frozenset({"gpu"}), 0.5, 2.0, 1e9, 1e-6),))
    engine = engine_with(GPU, condition=always)
    engine.pass_time(1.0)
    job = engine.submit("gpu", computing(100.0))
    finish(engine, job)
    assert job.end_us - job.begin_us == pytest.approx(200.0)
    watts = 0.5 * 3.0 + 2.0e9 * DEVICE.joule_per_byte
    assert engine.ledger.joules[LOAD] == pytest.approx(watts * engine.now_us * 1e-6, rel=0.02)


def test_a_leap_books_what_a_repetition_would() -> None:
    slow, fast = engine_with(GPU), engine_with(GPU)
    for _ in range(20):
        finish(slow, slow.submit("gpu", computing(1000.0)))
    finish(fast, fast.submit("gpu", computing(1000.0)))
    joules = fast.ledger.joules["gpu"]
    fast.leap(19_000.0, {"gpu": 19 * joules}, {"gpu": 19_000.0})
    assert fast.now_us == pytest.approx(slow.now_us)
    assert fast.celsius == pytest.approx(slow.celsius)
    assert fast.ledger.joules == pytest.approx(slow.ledger.joules)
    assert fast.busy_us("gpu") == pytest.approx(slow.busy_us("gpu"))


def test_impossible_work_and_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Work([-1.0], [0.0], [0.0], [0.0])
    with pytest.raises(ValueError, match="at least one phase"):
        Work([], [], [], [])
    with pytest.raises(ValueError, match="do not rise"):
        Unit("gpu", frozenset(), (0.5, 0.5, 1.0), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="above the DRAM's peak"):
        replace(DEVICE, shared_gbps=45.0)
    engine = engine_with(GPU)
    engine.submit("gpu", computing(1.0))
    with pytest.raises(ValueError, match="queued"):
        engine.leap(1.0, {}, {})
