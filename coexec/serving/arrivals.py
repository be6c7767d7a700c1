"""When requests come: periodically, in bursts, at random, or as fast as they are served."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Periodic:
    """``fps`` requests a second, the first after ``start_ms``."""

    fps: float
    start_ms: float = 0.0

    def times_ms(self, until_ms: float, seed: int) -> Iterator[float]:
        """Arrivals before ``until_ms``, in order."""
        count = max(0, math.ceil((until_ms - self.start_ms) * self.fps / 1e3))
        return (self.start_ms + index * 1e3 / self.fps for index in range(count))


@dataclass(frozen=True)
class Burst:
    """``size`` requests at once, again every ``every_ms``, the first after ``start_ms``."""

    size: int
    every_ms: float
    start_ms: float = 0.0

    def times_ms(self, until_ms: float, seed: int) -> Iterator[float]:
        """Arrivals before ``until_ms``, in order."""
        for time in Periodic(1e3 / self.every_ms, self.start_ms).times_ms(until_ms, seed):
            yield from [time] * self.size


@dataclass(frozen=True)
class Poisson:
    """On average ``rate`` requests a second, independent of each other; the seed decides when."""

    rate: float

    def times_ms(self, until_ms: float, seed: int) -> Iterator[float]:
        """Arrivals before ``until_ms``, in order."""
        rng = np.random.default_rng(seed)
        time = rng.exponential(1e3 / self.rate)
        while time < until_ms:
            yield float(time)
            time += rng.exponential(1e3 / self.rate)


@dataclass(frozen=True)
class Stream:
    """``in_flight`` requests at the start, and a new one whenever one is done."""

    in_flight: int

    def times_ms(self, until_ms: float, seed: int) -> Iterator[float]:
        """The arrivals at the start; the others depend on the serving."""
        return iter([0.0] * self.in_flight if until_ms > 0 else [])


Arrivals = Periodic | Burst | Poisson | Stream
