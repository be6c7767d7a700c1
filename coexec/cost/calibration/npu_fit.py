"""Factors of the terms of NPUs (:mod:`coexec.cost.soc.npu_terms`), from whole networks.

They are multiples that stay positive, of any element type first, then of one drawn towards those,
then times a number for each chip. Relative errors count, large ones less than by their square: a
few networks take several times what any sum of such terms can explain. Distances from what factors
are drawn to count by their squares.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coexec.cost.calibration.libraries import library
from coexec.cost.calibration.sample import Sample
from coexec.cost.soc.coefficients import GENERAL, levels
from coexec.cost.soc.limits import limits_of
from coexec.cost.soc.npu_terms import NPU_PRIOR, npu_rows

Numbers = NDArray[np.float64]

PRIOR_STRENGTH, KIN_STRENGTH = 0.5, 0.35
"""How far logarithms of factors are drawn, to the prior and to those of any element type."""
LARGE = 0.05
"""Relative error from which on errors count linearly: nearly all do."""
CHIP_PRIOR = 30.0
"""How many networks off by nothing a chip's own number is drawn by."""
SPEED_PRIOR = 1.0
"""The same for the speed of an element type."""


def npu_row(sample: Sample) -> Numbers:
    """Terms of all calls of a sample, summed."""
    limits = limits_of(sample.soc, "npu", sample.precision)
    row: Numbers = npu_rows(sample.calls, limits, sample.precision).sum(axis=0)
    return row


def fit_npu(
    members: Sequence[Sample], rows: Numbers, kin: Sequence[Sample], kin_rows: Numbers
) -> dict[str, Numbers]:
    """Factors by level of one element type; ``kin`` are samples of all of them.

    ``rows`` and ``kin_rows`` are those of :func:`npu_row`, shape (samples, terms).
    """
    times = _times(members)
    shared = _positive(kin_rows, _times(kin), NPU_PRIOR, PRIOR_STRENGTH)
    # What element types share are proportions: each has a speed of its own.
    shared *= _believed(times / (rows @ shared), SPEED_PRIOR)
    general = _positive(rows, times, shared, KIN_STRENGTH)
    found = {GENERAL: general}
    ratios: dict[str, list[float]] = defaultdict(list)
    for sample, guess in zip(members, rows @ general, strict=True):
        ratios[levels(sample.soc, "npu", sample.precision)[-1]].append(sample.measured_us / guess)
    for level, each in ratios.items():
        found[level] = general * _believed(np.array(each), CHIP_PRIOR)
    return found


def _believed(ratios: Numbers, worth: float) -> float:
    """The median of measured over predicted, drawn to 1 as if by ``worth`` networks."""
    drawn: float = float(np.median(ratios)) ** (len(ratios) / (len(ratios) + worth))
    return drawn


def _times(samples: Sequence[Sample]) -> Numbers:
    return np.array([sample.measured_us for sample in samples])


def _positive(rows: Numbers, measured: Numbers, prior: Numbers, strength: float) -> Numbers:
    """exp(x) with the least robust sum of relative errors, and of ``strength`` (x - log prior)."""
    relative, start = rows / measured[:, None], np.log(prior)

    def errors(x: Numbers) -> Numbers:
        return np.concatenate([relative @ np.exp(x) - 1, strength * (x - start)])

    def slopes(x: Numbers) -> Numbers:
        return np.vstack([relative * np.exp(x), strength * np.eye(len(x))])

    def loss(squares: Numbers) -> Numbers:
        """Of squared errors and distances, with two derivatives; shape (3, squares)."""
        found = np.stack([squares, np.ones(len(squares)), np.zeros(len(squares))])
        excess = 1 + squares[: len(rows)] / LARGE**2
        found[0, : len(rows)] = 2 * LARGE**2 * (np.sqrt(excess) - 1)
        found[1, : len(rows)] = excess**-0.5
        found[2, : len(rows)] = -0.5 * excess**-1.5 / LARGE**2
        return found

    solve = library("scipy.optimize").least_squares
    found: Numbers = solve(errors, start, jac=slopes, loss=loss, max_nfev=200).x
    return np.exp(found)
