"""What a serving came to: latencies, misses, throughput, utilisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coexec.serving.dispatch import Dispatcher, Served, Span
from coexec.serving.request import Request

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class ModelOutcome:
    """Requests of one model. ``waiting`` were not started when time was up.

    ``missed`` counts those served late, those dropped, and those waiting whose deadline had passed.
    ``latency_ms`` are percentiles (:data:`PERCENTILES`) of what was served, NaN if nothing was.
    """

    name: str
    served: int
    missed: int
    dropped: int
    waiting: int
    latency_ms: tuple[float, ...]
    per_second: float


@dataclass(frozen=True)
class Outcome:
    """All requests of a serving. ``elapsed_ms`` ends when the last one that was started ended."""

    processors: tuple[str, ...]
    served: tuple[Served, ...]
    dropped: tuple[Request, ...]
    waiting: tuple[Request, ...]
    spans: tuple[Span, ...]
    elapsed_ms: float

    @classmethod
    def of(cls, dispatcher: Dispatcher, processors: Sequence[str], duration_ms: float) -> Outcome:
        """The outcome of a dispatcher where nothing runs any more."""
        ends = (served.spans[-1].end_ms for served in dispatcher.served)
        return cls(
            tuple(processors),
            tuple(dispatcher.served),
            tuple(dispatcher.dropped),
            tuple(dispatcher.queue),
            tuple(dispatcher.spans),
            max(duration_ms, *ends, 0.0),
        )

    @property
    def utilisation(self) -> tuple[float, ...]:
        """Share of the time in which each processor was busy."""
        busy = (sum(end - start for start, end in self.on(p)) for p in range(len(self.processors)))
        return tuple(time / self.elapsed_ms for time in busy)

    def on(self, processor: int) -> list[tuple[float, float]]:
        """When a processor was busy: start and end of each step there."""
        return [
            (span.start_ms, span.end_ms)
            for span in self.spans
            if processor in span.option.processors
        ]

    def model(self, name: str) -> ModelOutcome:
        """What became of the requests for one model."""
        served = [each for each in self.served if each.service.name == name]
        dropped = [each for each in self.dropped if each.service.name == name]
        waiting = [each for each in self.waiting if each.service.name == name]
        latencies = [each.latency_ms for each in served]
        late = sum(each.late for each in served)
        passed = sum(each.due_ms < self.elapsed_ms for each in waiting)
        return ModelOutcome(
            name,
            len(served),
            late + len(dropped) + passed,
            len(dropped),
            len(waiting),
            tuple(np.percentile(latencies, PERCENTILES).tolist())
            if latencies
            else (float("nan"),) * len(PERCENTILES),
            len(served) / self.elapsed_ms * 1e3,
        )
