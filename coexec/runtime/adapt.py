"""Noticing that processors do not take the time that a plan predicted.

For each processor an exponential moving average of measured over predicted busy time. It says how
many times slower than predicted a processor is now; a plan is out of date when these factors differ
between processors. If all are slower alike, another plan would divide the work in the same way.
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
    ``patience``: for so many steps in a row before it counts. ``keep_every``: steps between copies
    of the states to the host, from which steps are repeated if a processor takes its own with it.
    """

    weight: float = 0.4
    settle: int = 1
    tolerance: float = 0.2
    patience: int = 3
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
        for name, predicted in self.predicted_us.items():
            if predicted > 0 and name in busy_us:
                now = busy_us[name] / predicted
                before = self.factors.get(name, now)
                self.factors[name] = before + self.how.weight * (now - before)
        self._beyond = self._beyond + 1 if self._apart() else 0
        return self._beyond >= self.how.patience

    def _apart(self) -> bool:
        """Whether factors differ; a processor that has no work is as fast as predicted."""
        idle = {name for name, predicted in self.predicted_us.items() if predicted <= 0}
        found = [*self.factors.values(), *([1.0] if idle else [])]
        return bool(found) and max(found) > (1 + self.how.tolerance) * min(found)


def busy_us(events: Iterable[Event]) -> dict[str, float]:
    """Microseconds that each processor computed, from the events of a run."""
    found: dict[str, float] = {}
    for event in events:
        for leaf in event.parts or (event,):
            if leaf.track != HOST and leaf.kind in (LAUNCH, LAYOUT):
                found[leaf.track] = found.get(leaf.track, 0.0) + leaf.duration_ns / 1e3
    return found
