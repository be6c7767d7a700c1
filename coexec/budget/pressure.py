"""Pressure on the memory of this machine, and what a training makes of it: a smaller budget.

Linux tells how much is available (``/proc/meminfo``) and which share of the time tasks wait for
memory (pressure stall information: Weiner, "Getting better at memory pressure", 2018).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coexec.base.units import bytes_text
from coexec.budget.amounts import MEMINFO, available_bytes

STALLS = Path("/proc/pressure/memory")
LEAST_AVAILABLE = 256 * 2**20
MOST_STALLED = 10.0
"""Percent of the last ten seconds in which some task waited for memory."""
SHRINK = 0.75
"""Of what a step takes: the budget under pressure, or less where more is missing."""
EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class Pressure:
    """``available_bytes`` that programs can still have; ``stalled`` in percent of ten seconds."""

    available_bytes: int
    stalled: float


Probe = Callable[[], Pressure]


def read_pressure(meminfo: Path = MEMINFO, stalls: Path = STALLS) -> Pressure:
    """The pressure now; kernels that tell nothing of stalls have none.

    Raises:
        UsageError: the system does not tell what is available.
    """
    available = available_bytes(meminfo)
    try:
        found = re.search(r"^some avg10=([\d.]+)", stalls.read_text(), re.MULTILINE)
    except OSError:  # no kernel option, or no right to read it: what is available decides alone
        found = None
    return Pressure(available, float(found[1]) if found else 0.0)


@dataclass
class PressureWatch:
    """Looks at the pressure now and then, and says by how much a training should shrink.

    ``least_available`` bytes and ``most_stalled`` percent are the thresholds. It looks every
    ``every_seconds`` of ``clock`` at most.
    """

    probe: Probe = read_pressure
    clock: Callable[[], float] = time.monotonic
    least_available: int = LEAST_AVAILABLE
    most_stalled: float = MOST_STALLED
    every_seconds: float = EVERY_SECONDS
    _looked: float = float("-inf")

    def look(self, step_bytes: int) -> tuple[int, str] | None:
        """The budget for a training whose steps take ``step_bytes``, and why; none: as it is."""
        now = self.clock()
        if now - self._looked < self.every_seconds:
            return None
        self._looked = now
        pressure = self.probe()
        missing = self.least_available - pressure.available_bytes
        if missing <= 0 and pressure.stalled <= self.most_stalled:
            return None
        budget = max(min(int(SHRINK * step_bytes), step_bytes - missing), 1)
        return budget, (
            f"{bytes_text(pressure.available_bytes)} available, tasks waited for memory "
            f"{pressure.stalled:g} % of the time"
        )
