"""Non-negative factors that make relative errors small, drawn towards what is known already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coexec.cost.calibration.libraries import library

Numbers = NDArray[np.float64]


def fit_factors(
    rows: Numbers,
    measured: Numbers,
    prior: Numbers,
    strength: float,
    least: Numbers | None = None,
    stiffness: Numbers | None = None,
) -> Numbers:
    """Factors w >= ``least`` (0) with the least sum of squares of (rows @ w) / measured - 1.

    ``rows`` has shape (samples, terms). ``strength`` is how many samples the ``prior`` is worth:
    each factor's distance from it counts as much as the error that it causes in so many samples,
    so that terms which samples cannot tell apart stay together. ``stiffness`` (1) is how many times
    as strongly each factor is drawn. Method: Lawson and Hanson, "Solving Least Squares Problems"
    (1974), on rows augmented as in ridge regression.
    """
    relative = rows / measured[:, None]
    size = np.sqrt((relative**2).mean(axis=0))
    # A term that no sample has keeps its prior: any weight will do.
    size[size == 0] = 1.0
    scaled = relative / size
    floor = np.zeros(len(size)) if least is None else least
    pull = np.sqrt(strength * (np.ones(len(size)) if stiffness is None else stiffness))
    left = 1 - relative @ floor
    target = np.concatenate([left, pull * (prior - floor) * size])
    found, _ = library("scipy.optimize").nnls(np.vstack([scaled, np.diag(pull)]), target)
    factors: Numbers = floor + found / size
    return factors
