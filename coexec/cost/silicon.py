"""Which processors occupy the same silicon: ``cpu`` is all of it, ``cpu:0`` one core of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def occupied(resources: Sequence[str], all_resources: Iterable[str]) -> frozenset[str]:
    """``resources`` with the parts that others name of them: ``cpu`` occupies ``cpu:0`` too.

    Two processors share silicon if what they occupy, among the resources of both, overlaps.
    """
    parts = (name for name in all_resources for whole in resources if name.startswith(f"{whole}:"))
    return frozenset((*resources, *parts))


def shared(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether processors with these resources can never be busy at once."""
    everything = (*first, *second)
    return bool(occupied(first, everything) & occupied(second, everything))
