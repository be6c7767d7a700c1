"""Factors of the terms of NPUs (:mod:`coexec.cost.soc.npu_terms`), from whole networks.

They are multiples that stay positive, of any element type first, then of one drawn towards those,
then times a number for each chip. Relative errors count, large ones less than by their square: a
few networks take several times what any sum of such terms can explain.
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

PRIOR_STRENGTH, KIN_STRENGTH = 0.7, 0.7
"""How far logarithms of factors are drawn, to the prior and to those of any element type."""
LARGE = 0.2
"""Relative error from which on errors count linearly."""
CHIP_PRIOR = 3.0
"""How many networks of a chip its own number is worth none."""


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
    shared = _positive(kin_rows, _times(kin), NPU_PRIOR, PRIOR_STRENGTH)
    general = _positive(rows, _times(members), shared, KIN_STRENGTH)
    found = {GENERAL: general}
    ratios: dict[str, list[float]] = defaultdict(list)
    for sample, guess in zip(members, rows @ general, strict=True):
        ratios[levels(sample.soc, "npu", sample.precision)[-1]].append(sample.measured_us / guess)
    for level, each in ratios.items():
        believed = len(each) / (len(each) + CHIP_PRIOR)
        found[level] = general * float(np.median(each)) ** believed
    return found


def _times(samples: Sequence[Sample]) -> Numbers:
    return np.array([sample.measured_us for sample in samples])


def _positive(rows: Numbers, measured: Numbers, prior: Numbers, strength: float) -> Numbers:
    """exp(x) with the least robust sum of relative errors, and of ``strength`` (x - log prior)."""
    relative, start = rows / measured[:, None], np.log(prior)

    def errors(x: Numbers) -> Numbers:
        return np.concatenate([relative @ np.exp(x) - 1, strength * (x - start)])

    def slopes(x: Numbers) -> Numbers:
        return np.vstack([relative * np.exp(x), strength * np.eye(len(x))])

    solve = library("scipy.optimize").least_squares
    found: Numbers = solve(errors, start, jac=slopes, loss="soft_l1", f_scale=LARGE, max_nfev=200).x
    return np.exp(found)
