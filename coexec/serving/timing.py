"""How long something takes when nothing else runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

LEAST_RUNS, ENOUGH_SECONDS = 3, 0.3
"""Runs go on until both are reached."""


def time_ms(action: Callable[[], object]) -> float:
    """Median time of ``action`` in milliseconds; the caller has warmed it up."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < LEAST_RUNS or time.perf_counter() - began < ENOUGH_SECONDS:
        start = time.perf_counter()
        action()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)
