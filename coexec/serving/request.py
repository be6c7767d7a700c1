"""What schedulers look at: requests, the ways to run them, and when processors are free.

Times are in milliseconds from the start of the serving, by whatever clock drives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """A way to run a step: ``processors`` (numbers) work for about ``ms``; the first one leads.

    ``blocked`` are processors that share silicon with them: they cannot work meanwhile.
    """

    name: str
    processors: tuple[int, ...]
    ms: float
    blocked: tuple[int, ...] = ()

    @property
    def occupied(self) -> tuple[int, ...]:
        """Processors on which nothing else runs meanwhile."""
        return self.processors + self.blocked


@dataclass(frozen=True)
class Service:
    """A model that is asked for. Its ``steps`` follow each other; each is run in one of its ways.

    A whole model is one step; a pipeline has a step per stage. ``deadline_ms`` counts from the
    arrival of a request; ``home`` is the processor (number) that the scheduler ``fixed`` keeps to.
    """

    name: str
    steps: tuple[tuple[Option, ...], ...]
    deadline_ms: float = math.inf
    home: int | None = None

    def least_ms(self, step: int) -> float:
        """Shortest time that steps from ``step`` on can take."""
        return sum(min(option.ms for option in options) for options in self.steps[step:])

    def mean_ms(self, step: int) -> float:
        """Time of steps from ``step`` on, each the mean of its options."""
        return sum(sum(o.ms for o in options) / len(options) for options in self.steps[step:])


@dataclass(frozen=True)
class Request:
    """One run of a service that waits for its next step."""

    number: int
    service: Service
    arrived_ms: float
    step: int = 0

    @property
    def due_ms(self) -> float:
        """When it must be done; infinite without a deadline."""
        return self.arrived_ms + self.service.deadline_ms

    @property
    def options(self) -> tuple[Option, ...]:
        """Ways to run the next step."""
        return self.service.steps[self.step]

    @property
    def least_ms(self) -> float:
        """Shortest time that what is left of it can take."""
        return self.service.least_ms(self.step)


@dataclass(frozen=True)
class Choice:
    """Start the next step of a request now, in one of its ways."""

    request: Request
    option: Option


Scheduler = Callable[[float, Sequence[Request], Sequence[float]], list[Choice]]
"""``(now, queue, free) -> what to start now``: a pure function.

``queue`` is in order of arrival. ``free[p]`` is when processor p is predicted to be done with what
it runs: after ``now`` if it is busy (however late it is), else not. Choices occupy idle processors
only, each at most once.
"""
