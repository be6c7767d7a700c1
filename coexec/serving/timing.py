"""How long something takes when nothing else runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

LEAST_RUNS, ENOUGH_SECONDS = 3, 0.3
"""Runs go on until both are reached, the second by the host's clock."""


def time_ms(action: Callable[[], object], clock: Callable[[], float]) -> float:
    """Median time of ``action`` in milliseconds by ``clock``, which tells seconds.

    The caller has warmed it up. :func:`coexec.core.timeline.clock_of` is the clock of processors.
    """
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < LEAST_RUNS or time.perf_counter() - began < ENOUGH_SECONDS:
        start = clock()
        action()
        times.append((clock() - start) * 1e3)
    return median(times)
