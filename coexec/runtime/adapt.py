"""Noticing that processors do not take the time that a plan predicted.

How many times slower than predicted a processor is now is measured over predicted busy time. A plan
is out of date when these factors differ between processors: if all are slower alike, another one
would divide the work in the same way. :class:`Drift` watches for that by a moving average of runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coexec.core.events import HOST, LAUNCH, LAYOUT, Event


@dataclass(frozen=True)
class AdaptOptions:
    """When to plan again.

    ``weight``: of the newest step in the average. ``settle``: steps after a change of plan that are
    not counted, since first runs take longer. ``tolerance``: factors may differ by this share.
    ``patience``: for so many steps in a row before it counts. ``ready``: plans beside the one that
    is followed that stay compiled, each with memory of its own. ``keep_every``: steps between
    copies of the states to the host, from which steps are repeated if a processor takes its own
    with it.
    """

    weight: float = 0.4
    settle: int = 1
    tolerance: float = 0.2
    patience: int = 3
    ready: int = 4
    keep_every: int = 20


DEFAULT = AdaptOptions()


class Drift:
    """How far each processor is from what was predicted of it."""

    def __init__(self, predicted_us: Mapping[str, float], how: AdaptOptions) -> None:
        self.how = how
        self.predicted_us = predicted_us
        self.factors: dict[str, float] = {}
        self._steps = 0
        self._beyond = 0

    def observe(self, busy_us: Mapping[str, float]) -> bool:
        """Count a step with what each processor was busy; whether it is time for another plan."""
        self._steps += 1
        if self._steps <= self.how.settle:
            return False
        for name, now in factors_of(busy_us, self.predicted_us).items():
            before = self.factors.get(name, now)
            self.factors[name] = before + self.how.weight * (now - before)
        beyond = are_apart(self.factors, self.predicted_us, self.how.tolerance)
        self._beyond = self._beyond + 1 if beyond else 0
        return self._beyond >= self.how.patience


def factors_of(busy_us: Mapping[str, float], predicted_us: Mapping[str, float]) -> dict[str, float]:
    """Measured over predicted time, of processors that have work."""
    return {
        name: busy_us[name] / predicted
        for name, predicted in predicted_us.items()
        if predicted > 0 and name in busy_us
    }


def are_apart(
    factors: Mapping[str, float], predicted_us: Mapping[str, float], tolerance: float
) -> bool:
    """Whether factors differ; a processor that has no work is as fast as predicted."""
    idle = any(predicted <= 0 for predicted in predicted_us.values())
    found = [*factors.values(), *([1.0] if idle else [])]
    return bool(found) and max(found) > (1 + tolerance) * min(found)


def busy_us(events: Iterable[Event]) -> dict[str, float]:
    """Microseconds that each processor computed, from the events of a run.

    Not what waited for others meanwhile: nobody knows for how long.
    """
    found: dict[str, float] = {}
    for event in events:
        for leaf in event.parts or (event,):
            if leaf.track != HOST and leaf.kind in (LAUNCH, LAYOUT) and not leaf.meets:
                found[leaf.track] = found.get(leaf.track, 0.0) + leaf.duration_ns / 1e3
    return found
