"""What the event simulation knows of a device: units, silicon, memory and heat as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Unit:
    """Something that executes one piece of work at a time.

    ``speeds`` are its frequency steps relative to the top one, rising to 1; ``busy_w`` is what it
    draws at each step while busy, beyond what its silicon draws at rest. Units that have a block of
    ``silicon`` in common take turns: each runs at its share.
    """

    name: str
    silicon: frozenset[str]
    speeds: tuple[float, ...]
    busy_w: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.speeds) != len(self.busy_w) or not self.speeds or self.speeds[-1] != 1.0:
            raise ValueError(f"{self.name}: speeds must rise to 1, with a power for each")
        if any(a >= b for a, b in zip(self.speeds, self.speeds[1:], strict=False)):
            raise ValueError(f"{self.name}: speeds {self.speeds} do not rise")
        if self.speeds[0] <= 0 or min(self.busy_w) < 0:
            raise ValueError(f"{self.name}: speeds are positive, powers not negative")


@dataclass(frozen=True)
class HeatSink:
    """One thermal mass; see :mod:`coexec.simulation.heat`. Temperatures in degrees Celsius."""

    kelvin_per_watt: float
    joule_per_kelvin: float
    ambient_celsius: float
    throttle_celsius: float


@dataclass(frozen=True)
class Device:
    """A phone. ``shared_gbps`` is what all units reach together, ``peak_gbps`` the DRAM's limit.

    ``idle_w`` is what each block of silicon draws at rest, ``full_w`` what it draws more when it is
    busy at the top frequency, ``base_w`` the rest of the phone (display, radio).
    ``usable_bytes`` is the memory that a process can have at most.
    """

    name: str
    shared_gbps: float
    peak_gbps: float
    joule_per_byte: float
    base_w: float
    battery_wh: float
    usable_bytes: int
    heat: HeatSink
    idle_w: Mapping[str, float] = field(default_factory=dict)
    full_w: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.shared_gbps <= self.peak_gbps:
            raise ValueError(f"{self.name}: shared bandwidth is above the DRAM's peak, or nothing")
