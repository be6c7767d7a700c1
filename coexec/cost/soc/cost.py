"""What a call costs on a processor of a system on chip: the parts that a simulation needs."""

from __future__ import annotations

from dataclasses import dataclass

from coexec.cost.distribution import Distribution


@dataclass(frozen=True)
class SocCost:
    """One call alone on a cool processor at its top frequency.

    ``compute_us`` is how long the processor is busy; ``memory_us`` <= ``compute_us`` is the part
    that waits for DRAM: it grows as others take bandwidth and does not shrink with frequency.
    ``memory_bytes`` is DRAM traffic, ``flop`` counts a multiply-add as 2. ``dispatch`` is the
    host's and driver's cost of one more call in a GPU's queue (on other processors it is part of
    ``compute_us``), ``sync`` what the host pays to hear of its end (only where it waits).
    ``active_mw`` is drawn while busy, beside ``pj_per_byte`` of DRAM. ``spread`` is how the busy
    time varies from run to run: last decile to first. ``error`` is how far off such predictions are
    on networks that were held out, as a mean part of 1. ``source`` says how the figure came about.
    """

    compute_us: float
    memory_us: float
    memory_bytes: float
    flop: float
    dispatch: Distribution
    sync: Distribution
    active_mw: float
    pj_per_byte: float
    spread: float
    error: float
    source: str

    @property
    def energy_uj(self) -> float:
        """Microjoules of the call itself, without dispatch and idle power."""
        return self.compute_us * self.active_mw / 1e3 + self.memory_bytes * self.pj_per_byte / 1e6
