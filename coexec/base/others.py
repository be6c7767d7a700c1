"""What other processes compute on the cores of this one, by what Linux counts.

Work that is divided among cores waits for the slowest of them at every exchange: with another
process on one of two cores, a divided MobileNetV2 took 13 to 21 ms instead of 7.5, as each exchange
may wait until the other one's time is over. What is timed then says nothing of quieter hours.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)
STAT = Path("/proc/stat")
TICKS = 100.0
"""A second, in the units of ``/proc/stat`` (``USER_HZ``, 100 on all of Linux)."""
BUSY = (0, 1, 2, 5, 6, 7)
"""Columns in which a core does something: user, nice, system, interrupts (2), taken by the host."""


class Others:
    """How busy others keep the cores that this process may use, from one look to the next."""

    def __init__(self, stat: Path = STAT) -> None:
        self._stat = stat
        self._cores = _cores()
        self._last = self._read()

    def look(self) -> float:
        """Cores that others kept busy since the last look, a number of them; 0 where unknown.

        Linux counts in hundredths of a second: a look after a fifth of one is a tenth of a core
        off.
        """
        before, self._last = self._last, self._read()
        (wall, busy, own), (then, busy_then, own_then) = self._last, before
        if wall <= then:
            return 0.0
        return max((busy - busy_then) - (own - own_then), 0.0) / (wall - then)

    def _read(self) -> tuple[float, float, float]:
        """Seconds: of the clock, that these cores were busy, and that this process computed."""
        own = time.process_time()
        lines = [line.split() for line in self._lines()] if self._cores else []
        if not lines:
            return time.perf_counter(), own, own
        ticks = sum(
            int(counts[column]) for name, *counts in lines if name in self._cores for column in BUSY
        )
        return time.perf_counter(), ticks / TICKS, own

    def _lines(self) -> list[str]:
        """What Linux counts; nothing, from then on, where it does not say (Android denies it)."""
        try:
            return self._stat.read_text().splitlines()
        except OSError as error:
            self._cores = frozenset()
            log.warning(
                "cannot read %s (%s): what other processes compute is not noticed while plans run",
                self._stat,
                error.strerror,
            )
            return []


def _cores() -> frozenset[str]:
    """Names in ``/proc/stat`` of the cores that this process may use; none where unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(f"cpu{number}" for number in os.sched_getaffinity(0))
