"""Servings on a virtual clock (SimPy): every step takes exactly as long as predicted."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from itertools import groupby

import simpy

from coexec.serving.arrivals import Arrivals, Stream
from coexec.serving.dispatch import Dispatcher
from coexec.serving.outcome import Outcome
from coexec.serving.request import Choice, Scheduler, Service

Offered = Sequence[tuple[Service, Arrivals]]
"""What is asked for, and how often."""


def simulate(
    offered: Offered,
    processors: Sequence[str],
    scheduler: Scheduler,
    duration_ms: float,
    *,
    seed: int = 0,
    drop_late: bool = False,
) -> Outcome:
    """Serve until ``duration_ms``, then let what runs come to its end."""
    dispatcher = Dispatcher(len(processors), scheduler, drop_late)
    serving = _Serving(dispatcher, offered, duration_ms)
    for number, (service, arrivals) in enumerate(offered):
        times = arrivals.times_ms(duration_ms, seed + number)
        serving.clock.process(serving.source(service, times))
    serving.clock.run()
    return Outcome.of(dispatcher, processors, duration_ms)


class _Serving:
    """The processes on the clock."""

    def __init__(self, dispatcher: Dispatcher, offered: Offered, duration_ms: float) -> None:
        self.clock = simpy.Environment()
        self.dispatcher = dispatcher
        self.streamed = {s.name for s, arrivals in offered if isinstance(arrivals, Stream)}
        self.duration_ms = duration_ms

    def source(
        self, service: Service, times: Iterable[float]
    ) -> Generator[simpy.Event, object, None]:
        """Requests for one service."""
        for time, together in groupby(times):
            if time > self.clock.now:
                yield self.clock.timeout(time - self.clock.now)
            for _ in together:
                self.dispatcher.arrive(self.clock.now, service)
            yield from self._settle()

    def execution(self, choice: Choice) -> Generator[simpy.Event, object, None]:
        """A step while it runs."""
        start = self.clock.now
        yield self.clock.timeout(choice.option.ms)
        served = self.dispatcher.end(choice, start, self.clock.now)
        if served and served.service.name in self.streamed and self.clock.now < self.duration_ms:
            self.dispatcher.arrive(self.clock.now, served.service)
        yield from self._settle()

    def _settle(self) -> Generator[simpy.Event, object, None]:
        """Decide once all that happens at this moment has happened."""
        yield self.clock.timeout(0)
        if self.clock.now < self.duration_ms:
            for choice in self.dispatcher.due(self.clock.now):
                self.clock.process(self.execution(choice))
