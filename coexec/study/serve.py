"""Requests for a model on a simulated phone, with other models beside it, in virtual time.

All models run in one event simulation: they wait for each other's kernels, share bandwidth, heat
and other apps. Each model has one thread of requests, which are served in the order they came.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import simpy

from coexec.core.types import Array
from coexec.processors.simulated.phone import Phone
from coexec.runtime.executor import Executor
from coexec.simulate import repeat
from coexec.study.definition import PERIODIC, SEQUENCE, Workload


@dataclass(frozen=True)
class Running:
    """A program on a phone, what its runs are fed, and how often a second it runs if beside."""

    executor: Executor
    feeds: Mapping[str, Array]
    fps: float = 0.0


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
    if lead_in_s:
        for _ in repeat(phone, lambda _trace: _run(phone, main), lead_in_s):
            pass
    done: list[float] = []
    begin_beside(phone, others, done)
    start = engine.now_us
    busy = {unit.name: engine.busy_us(unit.name) for unit in engine.units}
    log = _Log([], [])
    engine.run_until(engine.env.process(_requests(phone, main, workload, log)))
    us = engine.now_us - start
    return Served(
        latencies_ms=tuple(log.latencies_ms),
        seconds=us / 1e6,
        joules=sum(log.joules),
        busy={name: (engine.busy_us(name) - was) / us for name, was in busy.items()},
        others_ms=tuple(done),
        celsius=engine.hottest_celsius,
    )


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
    latencies_ms: list[float]
    joules: list[float]


def _requests(
    phone: Phone, main: Running, workload: Workload, log: _Log
) -> Generator[simpy.Event, object, None]:
    env, ledger = phone.engine.env, phone.engine.ledger
    due = env.now
    for _ in range(workload.requests):
        if due > env.now:
            yield env.timeout(due - env.now)
        phone.engine.settle()
        before = ledger.total_j
        yield _once(phone, main)
        phone.engine.settle()
        log.joules.append(ledger.total_j - before)
        log.latencies_ms.append((env.now - due) / 1e3)
        due = _next_due_us(workload, due, env.now)


def _next_due_us(workload: Workload, due_us: float, now_us: float) -> float:
    """When the request after one that was due then and is done now comes."""
    if workload.kind == SEQUENCE:
        return now_us + workload.pause_ms * 1e3
    return due_us + (1e6 / workload.fps if workload.kind == PERIODIC else 0.0)
