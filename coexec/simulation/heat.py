"""Heat as one resistance and one capacity: C dT/dt = P - (T - T_ambient) / R.

Power is constant between two events of the simulation, so that each step has a closed form and the
result does not depend on how time is divided. One thermal node is the simplest model of a phone
whose case bounds its sustained power: Skadron et al., "Temperature-aware microarchitecture" (ISCA
2003) reduce their networks to it.
"""

from __future__ import annotations

import math

from coexec.simulation.device import HeatSink


def temperature_after(sink: HeatSink, celsius: float, watts: float, seconds: float) -> float:
    """Temperature after ``seconds`` at constant power, from ``celsius`` at first."""
    settled = sink.ambient_celsius + watts * sink.kelvin_per_watt
    decay = math.exp(-seconds / (sink.kelvin_per_watt * sink.joule_per_kelvin))
    return settled + (celsius - settled) * decay


def seconds_to_throttle(sink: HeatSink, celsius: float, watts: float) -> float:
    """Until throttling begins at constant power: the inverse of :func:`temperature_after`."""
    if celsius >= sink.throttle_celsius:
        return 0.0
    settled = sink.ambient_celsius + watts * sink.kelvin_per_watt
    if settled <= sink.throttle_celsius:
        return math.inf
    share = (settled - celsius) / (settled - sink.throttle_celsius)
    return sink.kelvin_per_watt * sink.joule_per_kelvin * math.log(share)
