"""Frequencies of a unit: the step that a governor and the heat leave it.

``schedutil`` is Linux's rule: 1.25 times the load, measured at the present frequency, every
``PERIOD_US``. Heat is Linux's ``step_wise``: above the trip point one step down at each look while
it still gets hotter, below it one step up while it gets cooler, so that a phone hovers there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from coexec.base.errors import UsageError
from coexec.base.names import known_names
from coexec.simulation.device import HeatSink, Unit

PERIOD_US = 10_000.0
"""Time between two decisions of ``schedutil``."""
HEAT_PERIOD_US = 100_000.0
"""Time between two looks at the temperature (Linux's polling-delay on phones)."""
HEADROOM = 1.25
PERFORMANCE, SCHEDUTIL = "performance", "schedutil"
GOVERNORS = (PERFORMANCE, SCHEDUTIL)


class Frequency:
    """The frequency of one unit: a step within a limit by condition and a limit by heat."""

    def __init__(self, unit: Unit, governor: str, speed_limit: float) -> None:
        if governor not in GOVERNORS:
            raise UsageError(
                f"governor {governor!r} is unknown; {known_names(governor, GOVERNORS)}"
            )
        self.unit = unit
        self.governor = governor
        self.most = max(bisect_right(unit.speeds, speed_limit + 1e-9) - 1, 0)
        self.hot_limit = self.most
        self.step = self.most if governor == PERFORMANCE else 0

    @property
    def speed(self) -> float:
        """Relative to the top frequency."""
        return self.unit.speeds[self.step]

    @property
    def busy_w(self) -> float:
        return self.unit.busy_w[self.step]

    @property
    def throttled(self) -> bool:
        """Whether heat bounds it."""
        return self.hot_limit < self.most

    def settled(self, busy: bool) -> bool:
        """Whether the governor would change nothing if the load stayed as it is."""
        if self.governor == PERFORMANCE:
            return True
        return self.step == (self.hot_limit if busy else 0)

    def follow(self, load: float) -> None:
        """Decide by the share of the last period that the unit was busy."""
        if self.governor == SCHEDUTIL:
            wanted = HEADROOM * load * self.speed
            step = bisect_left(self.unit.speeds, wanted - 1e-9)
            # A full period asks for more, however fine the steps are.
            step = max(step, self.step + 1) if load > 0.999 else step
            self.step = min(step, self.hot_limit)

    def look(self, sink: HeatSink, celsius: float, before_celsius: float) -> None:
        """Decide by the temperature now and at the look before."""
        if celsius > sink.throttle_celsius and celsius > before_celsius:
            self.hot_limit = max(self.hot_limit - 1, 0)
        elif celsius < sink.throttle_celsius and celsius < before_celsius:
            self.hot_limit = min(self.hot_limit + 1, self.most)
        at_most = self.hot_limit
        self.step = at_most if self.governor == PERFORMANCE else min(self.step, at_most)
