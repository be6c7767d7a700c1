"""Whether measured ratios of two processors can come from sums of costs at all.

Every model here adds up: a step's time is a combination, with factors that are not negative, of
what the step consists of. Which combination comes closest to all rows at once is a linear program
(minimising the largest relative error); what it misses, no calibration can reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coexec.cost.calibration.libraries import library
from coexec.cost.calibration.sample import Sample

FEATURES = ("step", "calls", "arithmetic", "activations", "weights", "time on the CPU")


@dataclass(frozen=True)
class Closest:
    """The least that the worst row is off, and the factors of :data:`FEATURES` that lead to it.

    ``rounded`` is the same where each printed time may be half of its last digit off.
    """

    ratio: str
    rows: int
    error: float
    rounded: float
    factors: Mapping[str, float]


def closest(
    samples: Iterable[Sample], predicted: Iterable[float], digit_us: float
) -> list[Closest]:
    """For each processor beside the CPU: see :class:`Closest`. ``digit_us`` is the last digit.

    Times on the CPU are those predicted: only ratios to them count.
    """
    steps: dict[tuple[str, str], dict[str, tuple[Sample, float]]] = {}
    for sample, guess in zip(samples, predicted, strict=True):
        steps.setdefault((sample.soc.name, sample.model), {})[sample.processor] = (sample, guess)
    steps = {key: row for key, row in steps.items() if "cpu" in row}
    processors = dict.fromkeys(name for row in steps.values() for name in row if name != "cpu")
    return [
        _closest(name, [row for row in steps.values() if name in row], digit_us)
        for name in processors
    ]


def _closest(
    processor: str, rows: Sequence[Mapping[str, tuple[Sample, float]]], digit_us: float
) -> Closest:
    features, exact, spans = [], [], []
    for row in rows:
        (cpu, guess), (other, _) = row["cpu"], row[processor]
        features.append(_features(cpu, guess))
        exact.append((guess * other.measured_us / cpu.measured_us,) * 2)
        half = digit_us / 2
        spans.append(
            (
                guess * (other.measured_us - half) / (cpu.measured_us + half),
                guess * (other.measured_us + half) / (cpu.measured_us - half),
            )
        )
    error, factors = _least_worst(features, exact)
    rounded, _ = _least_worst(features, spans)
    named = {name: factor for name, factor in zip(FEATURES, factors, strict=True) if factor > 0}
    return Closest(f"{processor}/cpu", len(rows), error, rounded, named)


def _features(cpu: Sample, guess: float) -> list[float]:
    calls = cpu.calls
    activations = sum(call.in_elements + call.out_elements for call in calls)
    weights = sum(call.weights for call in calls)
    return [1.0, len(calls), cpu.flop, activations, weights, guess]


def _least_worst(
    features: Sequence[Sequence[float]], spans: Sequence[tuple[float, float]]
) -> tuple[float, list[float]]:
    """Factors whose sums are within (1 - e) low and (1 + e) high of each row, for the least e."""
    table = np.array(features, float)
    scale = table.max(axis=0)
    scale[scale == 0] = 1.0
    low, high = np.array(spans).T
    one = -np.ones((len(table), 1))
    above, below = table / scale / high[:, None], -table / scale / low[:, None]
    found = library("scipy.optimize").linprog(
        [0.0] * table.shape[1] + [1.0],
        np.block([[above, one], [below, one]]),
        [1.0] * len(table) + [-1.0] * len(table),
    )
    factors: list[float] = (found.x[:-1] / scale).tolist()
    return float(found.x[-1]), factors
