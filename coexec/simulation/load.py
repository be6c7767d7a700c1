"""Other apps: load that comes and goes in spells of random length."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np
import simpy

from coexec.simulation.condition import Load
from coexec.simulation.device import Device
from coexec.simulation.energy import LOAD, Ledger

Change = Callable[[Callable[[], None]], None]
"""Makes a change at the present instant, with all that follows from it."""


class LoadState:
    """A load that is there now or not; ``gbps`` is the bandwidth that it has while it is."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.on = False

    def book(self, ledger: Ledger, device: Device, gbps: float, seconds: float) -> float:
        """Joules of a span in which nothing changed and the load had ``gbps``."""
        if not self.on:
            return 0.0
        # Exact: the order of a set differs from process to process, and so would a plain sum.
        full = math.fsum(device.full_w.get(block, 0.0) for block in self.load.silicon)
        watts = self.load.share * full
        watts += gbps * 1e9 * device.joule_per_byte
        return ledger.add(LOAD, watts * seconds)

    def switch(self) -> None:
        """Come or go."""
        self.on = not self.on


def come_and_go(
    env: simpy.Environment, state: LoadState, rng: np.random.Generator, change: Change
) -> Generator[simpy.Event, None, None]:
    """A process that switches a load for ever; it begins with a pause."""
    while True:
        mean_ms = state.load.mean_on_ms if state.on else state.load.mean_off_ms
        yield env.timeout(float(rng.exponential(mean_ms * 1e3)))
        change(state.switch)
