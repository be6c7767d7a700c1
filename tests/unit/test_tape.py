"""A run played from tape at other clocks takes as long as one that is simulated at them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coexec.api import load
from coexec.core.soc_file import find_soc
from coexec.cost.distribution import Distribution
from coexec.processors.simulated.options import NONE, SimulatedOptions
from coexec.processors.simulated.phone import Phone
from coexec.processors.simulated.tape import Tape, play
from coexec.repetition import busy_us, repeat
from coexec.runtime.executor import Executor
from coexec.simulation.condition import IDLE
from coexec.study.plans import Desk
from coexec.zoo.catalog import build

SOC = find_soc("snapdragon-865")


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(load(build("resnet18", 1)), SOC, SimulatedOptions(numerics=NONE))


@pytest.fixture
def medians(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing varies from run to run."""

    def median(_phone: Phone, time: Distribution) -> float:
        return time.median_us

    monkeypatch.setattr(Phone, "draw", median)
    monkeypatch.setattr(Phone, "draw_factor", lambda _phone, _sigma: 1.0)


def recorded(desk: Desk, strategy: str, limit: float = 1.0) -> tuple[Phone, Tape, float]:
    """A phone whose clocks are limited, the tape of a run on it, and its microseconds."""
    phone = Phone(SOC, replace(IDLE, speed_limit=limit), walled=False)
    executor = Executor(desk.placed(strategy).program, desk.opened(phone))
    with phone.timeline.recording() as tape:
        executor.run(desk.feeds)
    return phone, tape, phone.engine.now_us


def speeds_of(phone: Phone) -> dict[str, float]:
    return {unit.name: phone.engine.speed(unit.name) for unit in phone.engine.units}


@pytest.mark.usefixtures("medians")
def test_a_run_played_at_other_clocks_is_one_simulated_at_them(desk: Desk) -> None:
    _, tape, top_us = recorded(desk, "operator_split")
    assert tape.whole
    assert len(tape.threads) > 1
    for limit in (1.0, 0.8, 0.5):
        phone, _, us = recorded(desk, "operator_split", limit)
        assert us >= top_us
        run = play(tape, speeds_of(phone), phone.engine.device.shared_gbps)
        assert run.us == pytest.approx(us, rel=1e-9)
        assert run.busy_us == pytest.approx(busy_us(phone))
        moved = phone.engine.ledger.joules["memory"] / phone.engine.device.joule_per_byte
        assert run.moved == pytest.approx(moved)


def test_what_varies_is_drawn_again(desk: Desk) -> None:
    phone, tape, us = recorded(desk, "operator_split")
    runs = {play(tape, speeds_of(phone), 40.0).us for _ in range(3)}
    assert len(runs) == 3
    assert all(run == pytest.approx(us, rel=0.2) for run in runs)


def test_a_repetition_goes_by_the_tape_of_a_run_before_it(desk: Desk) -> None:
    phone, tape, us = recorded(desk, "operator_split")

    def never(_trace: object) -> None:
        raise AssertionError("simulated again")

    samples = list(repeat(phone, never, 1.0, tape))
    assert samples[0].ms == pytest.approx(us / 1e3, rel=0.2)
    assert phone.engine.now_us == pytest.approx(us + 1e6, rel=0.2)


def test_a_run_without_threads_has_no_tape(desk: Desk) -> None:
    _, tape, _ = recorded(desk, "cpu")
    assert not tape.whole
