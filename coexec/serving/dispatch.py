"""The state of a serving on any clock: what waits, what runs, what was served.

Whoever has the clock (:mod:`coexec.serving.virtual`, :mod:`coexec.serving.serve`) tells arrivals
and ends, and starts what :meth:`Dispatcher.due` returns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from coexec.serving.request import Choice, Option, Request, Scheduler, Service

ROUNDING_MS = 1e-6
"""What differs by less is the same moment."""


@dataclass(frozen=True)
class Span:
    """A step of a request that ran: in which way, from when to when."""

    request: Request
    option: Option
    start_ms: float
    end_ms: float


@dataclass(frozen=True)
class Served:
    """A request that is done, with its steps."""

    number: int
    service: Service
    arrived_ms: float
    spans: tuple[Span, ...]

    @property
    def latency_ms(self) -> float:
        """From arrival to the end of the last step."""
        return self.spans[-1].end_ms - self.arrived_ms

    @property
    def late(self) -> bool:
        """Whether it ended after its deadline."""
        return self.latency_ms > self.service.deadline_ms + ROUNDING_MS


@dataclass
class Dispatcher:
    """Queue and processors (by number). With ``drop_late``, hopeless requests are dropped.

    Hopeless is what would miss its deadline even if it were started at once where it is fastest.
    When nothing runs, ``served``, ``dropped`` and the ``queue`` are all requests that came.
    ``spans`` are all steps that ran, also of requests that were not served in the end.
    """

    processors: int
    scheduler: Scheduler
    drop_late: bool = False
    queue: list[Request] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    dropped: list[Request] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    _busy_until: dict[int, float] = field(default_factory=dict)
    _begun: dict[int, tuple[Span, ...]] = field(default_factory=dict)
    _count: int = 0

    def arrive(self, now: float, service: Service) -> None:
        """A request comes."""
        self.queue.append(Request(self._count, service, now))
        self._count += 1

    def due(self, now: float) -> list[Choice]:
        """What is to start now; its processors are busy from here on."""
        if self.drop_late:
            self._drop_hopeless(now)
        choices = self.scheduler(now, tuple(self.queue), self._free(now))
        for choice in choices:
            taken = [p for p in choice.option.occupied if p in self._busy_until]
            assert not taken, f"processors {taken} are busy"
            for processor in choice.option.occupied:
                self._busy_until[processor] = now + choice.option.ms
        started = {choice.request.number for choice in choices}
        self.queue = [request for request in self.queue if request.number not in started]
        return choices

    def end(self, choice: Choice, start_ms: float, end_ms: float) -> Served | None:
        """A step is done: the request waits for its next one, in its old place, or is served."""
        request = choice.request
        for processor in choice.option.occupied:
            del self._busy_until[processor]
        self.spans.append(Span(request, choice.option, start_ms, end_ms))
        spans = (*self._begun.pop(request.number, ()), self.spans[-1])
        if request.step + 1 < len(request.service.steps):
            self._begun[request.number] = spans
            self.queue.append(replace(request, step=request.step + 1))
            self.queue.sort(key=lambda each: each.number)
            return None
        self.served.append(Served(request.number, request.service, request.arrived_ms, spans))
        return self.served[-1]

    def _free(self, now: float) -> Sequence[float]:
        """When each processor is free: one that is late, the very next moment."""
        late = math.nextafter(now, math.inf)
        return [
            max(self._busy_until[p], late) if p in self._busy_until else now
            for p in range(self.processors)
        ]

    def _drop_hopeless(self, now: float) -> None:
        latest = now - ROUNDING_MS
        hopeless = [each for each in self.queue if latest + each.least_ms > each.due_ms]
        for request in hopeless:
            self.queue.remove(request)
            self._begun.pop(request.number, None)
        self.dropped += hopeless
