"""Virtual time: what simulated processors have instead of the host's clock."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

from coexec.core.processor import Runner, Ticket


class Signal(ABC):
    """Something that happens once in virtual time."""

    @abstractmethod
    def happen(self) -> None:
        """It happens now; more than once is as good as once."""


Thread = Iterator[Signal | Ticket]
"""A thread of the host: it yields what it waits for, and goes on when that is there."""


class Timeline(ABC):
    """Virtual time that the processors of one simulated device share."""

    @abstractmethod
    def now_ns(self) -> int:
        """Virtual nanoseconds since the simulation began."""

    @abstractmethod
    def signal(self) -> Signal:
        """Something that a thread can wait for."""

    @abstractmethod
    def follow(self, threads: Sequence[Thread]) -> None:
        """Let threads run side by side in virtual time until all have ended.

        An exception in one of them ends all and is raised here.
        """


def timeline_of(runner: Runner) -> Timeline | None:
    """The virtual time of a simulated runner; a real one has none."""
    found = getattr(runner, "timeline", None)
    return found if isinstance(found, Timeline) else None


def timeline_among(runners: Iterable[Runner]) -> Timeline | None:
    """The virtual time of runners that work together: simulated ones never do so with real ones.

    The first decides, as the reference, which every list ends with, has none.
    """
    return timeline_of(next(iter(runners)))


def clock_of(runners: Iterable[Runner]) -> Callable[[], float]:
    """Seconds by the clock that their work is timed with: virtual time, or the host's."""
    timeline = timeline_among(runners)
    return time.perf_counter if timeline is None else lambda: timeline.now_ns() * 1e-9


def clock_name(runners: Iterable[Runner]) -> str:
    """``virtual`` or ``host``: what :func:`clock_of` reads."""
    return "host" if timeline_among(runners) is None else "virtual"
