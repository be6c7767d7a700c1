"""How much longer work takes on one processor while another one is busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from coexec.cost.distribution import Distribution

TURNS, ROUNDS, LEAST_MS = 5, 7, 5.0
"""Turns alone and together, and timed rounds of each. A round repeats work until it has lasted so
long; a turn is its median, as its first rounds pass until the system has given all threads cores
(measured: work of 10 ms took up to three times as long right after another thread had begun)."""
LEAST_FACTOR = 1.0
"""What computes beside a processor takes from it, if anything: less than this is noise."""
MOST_REPEATS = 10_000

Action = Callable[[], object]
Timed = Callable[[], float]
"""Does its work once and returns the microseconds that it took by the processor's own clock."""


@dataclass(frozen=True)
class Slowdown:
    """``factor``: time together over time alone, 1 at least. ``time`` is of one action together."""

    factor: float
    time: Distribution


def slowdown(victim: Timed, other: Action) -> Slowdown:
    """Time ``victim`` alone and while a thread of its own repeats ``other``, in turns.

    The factor is the median of the ratios of neighbouring turns: a machine that gets slower or
    faster meanwhile changes both of a pair. Shared memory bandwidth, caches and power are in it, as
    they are when a program runs on both. What hands the work over is not: it is of little work
    only, and stands in the links. An exception of ``other`` is raised here.
    """
    repeats = _repeats(victim)
    together, ratios = [], []
    for _ in range(TURNS):
        alone = median(_rounds_us(victim, repeats))
        with _Busy(other):
            beside = _rounds_us(victim, repeats)
        together += beside
        ratios.append(median(beside) / alone)
    return Slowdown(max(median(ratios), LEAST_FACTOR), Distribution.of(together))


class _Busy:
    """A context in which a thread repeats an action; it has run once when the context begins."""

    def __init__(self, action: Action) -> None:
        self.action = action
        self.stop = threading.Event()
        self.begun = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._work)

    def __enter__(self) -> None:
        self.thread.start()
        try:
            self.begun.wait()
        except BaseException:  # Ctrl-C: nobody else would end the thread
            self._end()
            raise

    def __exit__(self, *_exception: object) -> None:
        self._end()
        if self.error is not None:
            raise self.error

    def _end(self) -> None:
        self.stop.set()
        self.thread.join()

    def _work(self) -> None:
        try:
            while not self.stop.is_set():
                self.action()
                self.begun.set()
        except BaseException as error:  # noqa: BLE001  raised again in the thread that waits
            self.error = error
        finally:
            self.begun.set()


def _repeats(action: Action) -> int:
    """How often to repeat an action for a round that is long enough to time."""
    action()
    start = time.perf_counter()
    action()
    passed_ms = (time.perf_counter() - start) * 1e3
    return max(1, min(MOST_REPEATS, round(LEAST_MS / max(passed_ms, 1e-6))))


def _rounds_us(action: Timed, repeats: int) -> list[float]:
    return [sum(action() for _ in range(repeats)) / repeats for _ in range(ROUNDS)]
