"""Work as the simulation sees it: phases of arithmetic, memory traffic and fixed time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Timing:
    """Phases one after the other at one speed, when nobody else uses the memory.

    ``phases_us`` by phase, ``ends_us`` from the start of the first.
    """

    def __init__(self, durations_us: Floats, moved: list[float]) -> None:
        # Lists: the engine reads them one by one, which takes NumPy ten times as long.
        self.phases_us: list[float] = durations_us.tolist()
        self.ends_us: list[float] = durations_us.cumsum().tolist()
        self._moved = moved
        self._gbps: list[float] | None = None
        self._most_gbps = -1.0

    @property
    def gbps(self) -> list[float]:
        """What each phase takes of the memory's bandwidth."""
        if self._gbps is None:  # by hand: the lock of a cached property takes as long as the rest
            phases = zip(self._moved, self.phases_us, strict=True)
            self._gbps = [moved / us * 1e-3 if us else 0.0 for moved, us in phases]
        return self._gbps

    @property
    def most_gbps(self) -> float:
        """The highest bandwidth that any phase takes."""
        if self._most_gbps < 0:
            self._most_gbps = max(self.gbps)
        return self._most_gbps


class Work:
    """Phases (kernels) in order, each a sum of three times in microseconds.

    ``fixed_us`` is the same at any frequency (handing over), ``compute_us`` that at the top
    frequency, ``memory_us`` the wait for ``moved`` bytes with the bandwidth of the unit alone.
    ``bytes_before`` are those of the phases before each phase and, at last, of all (``moved``).
    """

    def __init__(
        self,
        fixed_us: Sequence[float],
        compute_us: Sequence[float],
        memory_us: Sequence[float],
        moved: Sequence[float],
    ) -> None:
        self.fixed_us = np.asarray(fixed_us, float)
        self.compute_us = np.asarray(compute_us, float)
        self.memory_us = np.asarray(memory_us, float)
        self.bytes = np.asarray(moved, float)
        for numbers in (self.fixed_us, self.compute_us, self.memory_us, self.bytes):
            if not 0 < len(numbers) == len(self.bytes):
                raise ValueError("work needs at least one phase, with four numbers each")
            if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
                raise ValueError("work has a phase that is negative or no number")
        self.phase_bytes: list[float] = self.bytes.tolist()
        self.bytes_before: list[float] = [0.0, *np.cumsum(self.bytes).tolist()]
        self.moved = self.bytes_before[-1]
        self._timings: dict[float, Timing] = {}

    def with_fixed(self, fixed_us: Floats) -> Work:
        """The same with other fixed times, which are taken to be possible."""
        other = Work.__new__(Work)
        other.__dict__.update(self.__dict__)
        other.fixed_us, other._timings = fixed_us, {}
        return other

    def __len__(self) -> int:
        return len(self.bytes)

    def alone(self, speed: float) -> Timing:
        """Times at a relative speed (kept: they are asked for again)."""
        known = self._timings.get(speed)
        if known is None:
            us = self.fixed_us + self.compute_us / speed + self.memory_us
            known = self._timings[speed] = Timing(us, self.phase_bytes)
        return known


class Progress:
    """How far some work has come.

    ``phase`` is the one under way, ``left`` the share of it that is left to do, ``moved`` the bytes
    so far, and ``ends_us`` when each phase ended (NaN before).
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.phase = 0
        self.left = 1.0
        self.ends_us = [math.nan] * len(work)
        self.moved = 0.0

    def move_to(self, phase: int, left: float) -> None:
        """It has come so far; ``phase`` is the number of phases where all are over."""
        self.phase, self.left = phase, left
        work = self.work
        self.moved = work.bytes_before[phase]
        if left < 1.0 and phase < len(work.phase_bytes):
            self.moved += work.phase_bytes[phase] * (1.0 - left)

    @property
    def end_us(self) -> float:
        """When the last phase ended."""
        return self.ends_us[-1]

    @property
    def finished(self) -> bool:
        return self.phase >= len(self.ends_us)


class Job(Progress):
    """Work in the queue of a unit. ``done`` happens when its last phase ends.

    ``begin_us`` is when its first phase started (NaN before).
    """

    def __init__(self, unit: str, work: Work, done: simpy.Event) -> None:
        super().__init__(work)
        self.unit = unit
        self.done = done
        self.ready = False
        self.begin_us = math.nan

    def begin(self, now_us: float) -> None:
        """It is at work from now on; once begun it stays so."""
        if self.begin_us != self.begin_us:
            self.begin_us = now_us

    def release(self) -> None:
        """What it waited for has happened."""
        self.ready = True
