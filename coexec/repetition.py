"""A model that runs back to back on a simulated phone: how it fares as the phone gets hot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from coexec.core.events import Trace
from coexec.processors.simulated.phone import Phone
from coexec.processors.simulated.tape import Tape, play
from coexec.simulation.energy import DRAM, energy_between
from coexec.simulation.frequency import HEAT_PERIOD_US

Step = Callable[[Trace | None], object]
"""Runs a model once."""


@dataclass(frozen=True)
class Sample:
    """A moment of a repetition: when, how long a run took then, temperature, lowest speed."""

    second: float
    ms: float
    celsius: float
    speed: float


def busy_us(phone: Phone) -> dict[str, float]:
    """How long each unit of a phone has worked so far, by name."""
    return {unit.name: phone.engine.busy_us(unit.name) for unit in phone.engine.units}


def repeat(
    phone: Phone, step: Step, seconds: float, recorded: Tape | None = None
) -> Iterator[Sample]:
    """Runs back to back for so long, sampled. ``recorded`` is the tape of a run before them.

    A run at the speeds of an earlier one takes as long and as much energy: where neither other apps
    nor the governor take part, such runs are not simulated again, but leapt over until the next
    look at the temperature. At other speeds the first run is played again from tape, if there is
    one (:mod:`coexec.processors.simulated.tape`), and simulated if not; then a run in which a speed
    changed is none to go by.
    """
    engine = phone.engine
    steady = engine.constant
    end = engine.now_us + seconds * 1e6
    known: dict[tuple[float, ...], _Repeated] = {}
    tape = _playable(recorded) if steady and recorded is not None else None
    while engine.now_us < end:
        start, speeds = engine.now_us, _speeds(phone)
        one = known.get(speeds)
        if one is None and tape is not None:
            one = known[speeds] = _played(phone, tape)
        elif one is None:
            with phone.timeline.recording() as recording:
                one = _watched(phone, step)
            if steady and one.us > 0:
                tape = _playable(recording)
                if speeds == _speeds(phone):
                    known[speeds] = one
        yield Sample(start / 1e6, one.us / 1e3, engine.celsius, one.lowest)
        if speeds not in known:
            continue
        watts = sum(one.joules.values()) / one.us * 1e6
        while engine.now_us < end and speeds == _speeds(phone):
            calm_us = min(engine.calm_us(watts), end - engine.now_us)
            times = max(int(max(HEAT_PERIOD_US, calm_us) / one.us), 1)
            engine.leap(
                times * one.us,
                {part: times * joules for part, joules in one.joules.items()},
                {name: times * on for name, on in one.busy_us.items()},
            )


def _playable(tape: Tape) -> Tape | None:
    """The tape, if it has all that a run of several threads did."""
    return tape if tape.whole and tape.threads else None


@dataclass(frozen=True)
class _Repeated:
    """A run: how long it took, energy of what does something in it, busy times, lowest speed."""

    us: float
    joules: Mapping[str, float]
    busy_us: Mapping[str, float]
    lowest: float


def _watched(phone: Phone, step: Step) -> _Repeated:
    engine = phone.engine
    start, before, busy = engine.now_us, engine.ledger.joules, busy_us(phone)
    speeds = {unit.name: engine.speed(unit.name) for unit in engine.units}
    step(None)
    spent = energy_between(before, engine.ledger.joules)
    worked = {name: now - busy[name] for name, now in busy_us(phone).items()}
    return _Repeated(
        us=engine.now_us - start,
        joules={part: j for part, j in spent.items() if part == DRAM or part in worked},
        busy_us=worked,
        lowest=min(speeds[name] for name, us in worked.items() if us > 0),
    )


def _played(phone: Phone, tape: Tape) -> _Repeated:
    """A run at the present speeds, from tape."""
    engine = phone.engine
    speeds = {unit.name: engine.speed(unit.name) for unit in engine.units}
    run = play(tape, speeds, engine.device.shared_gbps)
    joules = {name: engine.busy_w(name) * us * 1e-6 for name, us in run.busy_us.items()}
    return _Repeated(
        us=run.us,
        joules={**joules, DRAM: run.moved * engine.device.joule_per_byte},
        busy_us=run.busy_us,
        lowest=min(speeds[name] for name, us in run.busy_us.items() if us > 0),
    )


def _speeds(phone: Phone) -> tuple[float, ...]:
    return tuple(phone.engine.speed(unit.name) for unit in phone.engine.units)
