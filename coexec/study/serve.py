"""Requests for a model on a simulated phone, with other models beside it, in virtual time.

All models run in one event simulation: they wait for each other's kernels, share bandwidth, heat
and other apps. Requests for a model are served in the order they came, one after the other; only a
pipeline works on several.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import simpy

from coexec.core.types import Array
from coexec.processors.simulated.phone import Phone
from coexec.repetition import repeat
from coexec.runtime.executor import Executor
from coexec.study.definition import PERIODIC, SEQUENCE, Workload


@dataclass(frozen=True)
class Running:
    """A program on a phone, what its runs are fed, and how often a second it runs if beside.

    A pipeline has several requests ``under_way``: each processor works on another one.
    """

    executor: Executor
    feeds: Mapping[str, Array]
    fps: float = 0.0
    under_way: int = 1


@dataclass(frozen=True)
class Served:
    """What requests led to: latencies in their order (waiting for earlier ones included).

    ``seconds`` in all, ``joules`` of the whole phone while one was served, ``busy`` the share of
    the time by processor, ``others_ms`` the runs of the models beside, ``celsius`` the hottest.
    """

    latencies_ms: tuple[float, ...]
    seconds: float
    joules: float
    busy: Mapping[str, float]
    others_ms: tuple[float, ...]
    celsius: float


def serve(
    phone: Phone,
    main: Running,
    others: Sequence[Running],
    workload: Workload,
    lead_in_s: float = 0.0,
) -> Served:
    """Serve all requests of a workload, after the model has run for ``lead_in_s``."""
    engine = phone.engine
    lead_in(phone, main, lead_in_s)
    done: list[float] = []
    begin_beside(phone, others, done)
    start = engine.now_us
    busy = {unit.name: engine.busy_us(unit.name) for unit in engine.units}
    log = _Log(phone, [0.0] * workload.requests)
    engine.run_until(engine.env.process(_requests(phone, main, workload, log)))
    us = engine.now_us - start
    return Served(
        latencies_ms=tuple(log.latencies_ms),
        seconds=us / 1e6,
        joules=log.joules,
        busy={name: (engine.busy_us(name) - was) / us for name, was in busy.items()},
        others_ms=tuple(done),
        celsius=engine.hottest_celsius,
    )


def lead_in(phone: Phone, main: Running, seconds: float) -> None:
    """Let a model run back to back for so long: the phone gets as warm as it makes it."""
    if seconds:
        for _ in repeat(phone, lambda _trace: _run(phone, main), seconds):
            pass


def begin_beside(phone: Phone, others: Sequence[Running], done: list[float]) -> None:
    """Let models run periodically from now on; ``done`` gets the milliseconds of each run."""
    for other in others:
        phone.engine.env.process(_periodically(phone, other, done))


def _run(phone: Phone, each: Running) -> None:
    phone.timeline.follow(each.executor.threads(each.feeds))


def _once(phone: Phone, each: Running) -> simpy.Event:
    """Begin a run; what is returned happens when it is done."""
    return phone.engine.env.all_of(phone.timeline.begin(each.executor.threads(each.feeds)))


def _periodically(
    phone: Phone, each: Running, done: list[float]
) -> Generator[simpy.Event, object, None]:
    """Frames that are due while one is under way are dropped, as cameras do."""
    env, period_us = phone.engine.env, 1e6 / each.fps
    while True:
        start = env.now
        yield _once(phone, each)
        took = env.now - start
        done.append(took / 1e3)
        yield env.timeout(period_us - took % period_us)


@dataclass
class _Log:
    """Latencies by request, and the energy of all time in which one was under way."""

    phone: Phone
    latencies_ms: list[float]
    joules: float = 0.0
    under_way: int = 0

    def begin(self) -> None:
        if not self.under_way:
            self.joules -= self._spent()
        self.under_way += 1

    def end(self, number: int, due_us: float) -> None:
        self.under_way -= 1
        if not self.under_way:
            self.joules += self._spent()
        self.latencies_ms[number] = (self.phone.engine.now_us - due_us) / 1e3

    def _spent(self) -> float:
        self.phone.engine.settle()
        return self.phone.engine.ledger.total_j


def _requests(
    phone: Phone, main: Running, workload: Workload, log: _Log
) -> Generator[simpy.Event, object, None]:
    """All requests; one that would be too many under way waits for the oldest."""
    env = phone.engine.env
    begun: list[simpy.Process] = []
    due = env.now
    for number in range(workload.requests):
        if due > env.now:
            yield env.timeout(due - env.now)
        if number >= main.under_way:
            yield begun[number - main.under_way]
        begun.append(env.process(_request(phone, main, number, due, log)))
        if workload.kind == SEQUENCE:
            yield begun[-1]
        due = _next_due_us(workload, due, env.now)
    yield env.all_of(begun)


def _request(
    phone: Phone, main: Running, number: int, due_us: float, log: _Log
) -> Generator[simpy.Event, object, None]:
    log.begin()
    yield _once(phone, main)
    log.end(number, due_us)


def _next_due_us(workload: Workload, due_us: float, now_us: float) -> float:
    """When the request after one that was due then and is done now comes."""
    if workload.kind == SEQUENCE:
        return now_us + workload.pause_ms * 1e3
    return due_us + (1e6 / workload.fps if workload.kind == PERIODIC else 0.0)
