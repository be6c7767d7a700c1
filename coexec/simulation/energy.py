"""Where energy went: joules by part, which add up to the whole."""

from __future__ import annotations

from collections.abc import Mapping

BASE, IDLE_POWER, DRAM, LOAD = "rest of the phone", "idle silicon", "memory", "other apps"
"""Parts of the energy that no unit accounts for."""


class Ledger:
    """Joules by part: units by name, and the constants above."""

    def __init__(self) -> None:
        self._joules: dict[str, float] = {}

    def add(self, part: str, joules: float) -> float:
        """Book energy on a part, and hand it back."""
        self._joules[part] = self._joules.get(part, 0.0) + joules
        return joules

    @property
    def joules(self) -> dict[str, float]:
        """What every part took so far."""
        return dict(self._joules)

    @property
    def total_j(self) -> float:
        return sum(self._joules.values())


def energy_between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Joules by part of what happened between two states of a ledger."""
    return {part: joules - before.get(part, 0.0) for part, joules in after.items()}
