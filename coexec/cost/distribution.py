"""A time that varies from run to run: its median and the deciles around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DECILES = 2 * 1.2815515655446004
"""Standard deviations between the first and the last decile of a normal distribution."""


@dataclass(frozen=True)
class Distribution:
    """Microseconds: the median, the first decile ``low_us`` and the last decile ``high_us``."""

    median_us: float
    low_us: float
    high_us: float

    @classmethod
    def of(cls, samples_us: Sequence[float]) -> Distribution:
        """That of some measurements (at least one)."""
        low, median, high = np.quantile(samples_us, (0.1, 0.5, 0.9))
        return cls(float(median), float(low), float(high))

    @classmethod
    def exactly(cls, us: float) -> Distribution:
        """A time of which no spread is known."""
        return cls(us, us, us)

    @property
    def sigma(self) -> float:
        """Standard deviation of the time's logarithm, if that is normal; 0 without spread."""
        if self.low_us <= 0 or self.high_us <= self.low_us:
            return 0.0
        return math.log(self.high_us / self.low_us) / DECILES

    def scaled(self, factor: float) -> Distribution:
        """Of so many times as long."""
        return Distribution(factor * self.median_us, factor * self.low_us, factor * self.high_us)

    def plus(self, other: Distribution) -> Distribution:
        """One after the other, independent: medians add up, deviations as roots of squares."""
        below = math.hypot(self.median_us - self.low_us, other.median_us - other.low_us)
        above = math.hypot(self.high_us - self.median_us, other.high_us - other.median_us)
        median = self.median_us + other.median_us
        return Distribution(median, median - below, median + above)
