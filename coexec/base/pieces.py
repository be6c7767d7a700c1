"""Where parts of a value come from that exists in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Place = TypeVar("Place")
Bounds = tuple[Place, int, int, int, int]
"""Of a piece: where it is, the first element that is its own and the one behind the last of them,
and the same of all elements that it has."""


def sources(
    pieces: Sequence[Bounds[Place]], start: int, stop: int, reader: Place
) -> Iterator[tuple[int, int, int]]:
    """Which pieces elements ``start`` to ``stop`` come from: number, first and last of each.

    The reader's own piece gives what it has; the rest comes from those whose own it is.
    """
    low, high = stop, stop
    for place, _, _, first, last in pieces:
        if place == reader and max(start, first) < min(stop, last):
            low, high = max(start, first), min(stop, last)
    for number, (place, first, last, _, _) in enumerate(pieces):
        before = (number, max(start, first), min(low, last))
        after = (number, max(high, first), min(stop, last))
        found = [before, (number, low, high), after] if place == reader else [before, after]
        yield from (part for part in found if part[1] < part[2])
