"""Arithmetic of the tables: what a peer's turns come to, and ratios with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median

from bench.case import BEST


def reduced(times: Sequence[float], statistic: str) -> float:
    """The best or the median: of the calls of a turn, or of turns."""
    return min(times) if statistic == BEST else median(times)


@dataclass(frozen=True)
class Ratio:
    """Our time over theirs; ``low`` and ``high`` are the extremes over pairs of turns."""

    value: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float], statistic: str) -> Ratio:
    """Of turns that alternated, paired in their order.

    The value is the median over pairs; where the best counts, best over best.
    """
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    value = min(ours) / min(theirs) if statistic == BEST else median(pairs)
    return Ratio(value, min(*pairs, value), max(*pairs, value))


def geomean(values: Sequence[float]) -> float:
    """Geometric mean of positive numbers.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no geometric mean of nothing")
    return exp(sum(map(log, values)) / len(values))
