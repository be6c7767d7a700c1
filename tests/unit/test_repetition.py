"""A model back to back: what was simulated at some clocks is not simulated at them again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from coexec.api import load
from coexec.core.events import Trace
from coexec.core.soc_file import find_soc
from coexec.processors.simulated.options import NONE, SimulatedOptions
from coexec.processors.simulated.phone import Phone
from coexec.repetition import Step, repeat
from coexec.runtime.executor import Executor
from coexec.simulation.condition import condition_named
from coexec.study.plans import Desk
from coexec.zoo.catalog import build

SOC = find_soc("snapdragon-855")
SMALL = replace(SOC, thermal=replace(SOC.thermal, kelvin_per_watt=8.0, joule_per_kelvin=0.5))
"""It heats and cools so fast that its clocks go up and down around the trip point."""
SECONDS = 90.0


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(load(build("lenet5", 256)), SMALL, SimulatedOptions(numerics=NONE))


def opened(desk: Desk, condition: str) -> tuple[Phone, Step]:
    phone = Phone(SMALL, condition_named(condition), walled=False)
    executor = Executor(desk.placed("cpu").program, desk.opened(phone))

    def step(trace: Trace | None) -> None:
        executor.run(desk.feeds, trace=trace)

    return phone, step


def clocks(phone: Phone) -> tuple[float, ...]:
    return tuple(phone.engine.speed(unit.name) for unit in phone.engine.units)


def test_clocks_that_come_back_are_not_simulated_again(desk: Desk) -> None:
    phone, step = opened(desk, "idle")
    simulated: Counter[tuple[float, ...]] = Counter()

    def counted(trace: Trace | None) -> None:
        before = clocks(phone)
        step(trace)
        if clocks(phone) == before:
            simulated[before] += 1

    samples = list(repeat(phone, counted, SECONDS))
    assert set(simulated.values()) == {1}
    assert len(samples) > 100 > len(simulated) > 5


def test_it_comes_to_what_runs_one_by_one_come_to(desk: Desk) -> None:
    """Without anything random they differ by when within a look's period a clock changes."""
    phone, step = opened(desk, "idle")
    for _ in repeat(phone, step, SECONDS):
        pass
    alone, each = opened(desk, "idle")
    while alone.engine.now_us < SECONDS * 1e6:
        each(None)
    spent, known = phone.engine.ledger, alone.engine.ledger
    assert phone.engine.celsius == pytest.approx(alone.engine.celsius, abs=0.1)
    assert spent.total_j / phone.engine.now_us == pytest.approx(
        known.total_j / alone.engine.now_us, rel=0.005
    )


def test_what_other_apps_disturb_is_simulated_run_by_run(desk: Desk) -> None:
    phone, step = opened(desk, "loaded")
    runs = 0

    def counted(trace: Trace | None) -> None:
        nonlocal runs
        runs += 1
        step(trace)

    samples = list(repeat(phone, counted, 0.2))
    assert len(samples) == runs > 3
