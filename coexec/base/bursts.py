"""Latencies of tiny actions on a machine that does other things, too.

What delays such an action (another process on the core, a thread that is woken late) lasts for
milliseconds: as long as fifty of them. A median over fifty is then that of the disturbance, and
what is kept on disk would be wrong for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

BURST = 10
SECONDS = 0.2
"""Many times as long as a scheduler lets another process compute."""
QUIET_SHARE = 0.1
"""Of the bursts, which need not have been disturbed: the rest may."""


def quiet_latency(
    sample: Callable[[], float], clock: Callable[[], float] = time.perf_counter
) -> float:
    """What an action usually takes while nothing disturbs it, in seconds.

    The first decile of the medians of bursts, which go on for :data:`SECONDS`. Bursts keep what is
    the action's own scatter; a minimum would show a luck that plans cannot count on.

    Args:
        sample: does the action and returns the seconds that count.
        clock: seconds from any beginning.
    """
    sample()
    medians = sorted(_bursts(sample, clock))
    return medians[int(QUIET_SHARE * len(medians))]


def _bursts(sample: Callable[[], float], clock: Callable[[], float]) -> Iterator[float]:
    """Medians of bursts; at least of one."""
    end = clock() + SECONDS
    while True:
        yield median(sample() for _ in range(BURST))
        if clock() >= end:
            return
