"""How good predictions are: relative errors, and the ranking of processors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coexec.cost.calibration.least_squares import fit_factors
from coexec.cost.calibration.libraries import library
from coexec.cost.calibration.sample import Sample
from coexec.cost.soc.limits import limits_of

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Shares are parts of 1. ``tau`` is NaN where no network was measured on two processors.

    ``mape`` is the mean absolute relative error; ``baseline_mape`` that of FLOP over peak. ``bias``
    is the median of predicted over measured, less 1.
    """

    dataset: str
    split: str
    group: str
    rows: int
    mape: float
    within_10: float
    within_20: float
    baseline_mape: float
    bias: float
    tau: float = float("nan")

    @property
    def gain(self) -> float:
        """How many times smaller the error is than the baseline's; NaN if there is none."""
        return self.baseline_mape / self.mape if self.mape > 0 else float("nan")


def score(
    split: str,
    dataset: str,
    group: str,
    samples: Sequence[Sample],
    predicted: Numbers,
    baseline: Numbers,
) -> Score:
    """Errors of one set of predictions, and of the baseline on the same samples."""
    measured = np.array([sample.measured_us for sample in samples])
    signed = predicted / measured - 1
    errors = np.abs(signed)
    return Score(
        dataset,
        split,
        group,
        len(samples),
        float(errors.mean()),
        float((errors <= 0.1).mean()),
        float((errors <= 0.2).mean()),
        float(np.abs(baseline / measured - 1).mean()),
        float(np.median(signed)),
        ranking(samples, predicted),
    )


def ranking(samples: Sequence[Sample], predicted: Numbers) -> float:
    """Kendall's tau of processors by time, averaged over networks and chips; NaN without any.

    A processor counts once for each element type. Only whole networks are ranked.
    """
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        if sample.whole:
            groups[sample.model, sample.soc.name, sample.engine].append(place)
    kendalltau = library("scipy.stats").kendalltau
    found = []
    for places in groups.values():
        if len(places) > 1:
            measured = [samples[place].measured_us for place in places]
            found.append(kendalltau(measured, predicted[places]).statistic)
    kept = [value for value in found if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


class Baseline:
    """Time = a + b * FLOP / peak, with a and b fitted for each group of samples."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        groups: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            groups[sample.group].append(sample)
        self.factors: dict[str, Numbers] = {
            group: fit_factors(
                np.array([_flop_over_peak(sample) for sample in members]),
                np.array([sample.measured_us for sample in members]),
                np.zeros(2),
                1e-6,
            )
            for group, members in groups.items()
        }

    def predict(self, samples: Sequence[Sample]) -> Numbers:
        """One time for each sample; a group that was not fitted counts as all of them."""
        mean: Numbers = np.mean(list(self.factors.values()), axis=0)
        return np.array(
            [float(_flop_over_peak(s) @ self.factors.get(s.group, mean)) for s in samples]
        )


def _flop_over_peak(sample: Sample) -> Numbers:
    """A microsecond, and FLOP over the nominal peak: what a data sheet alone would say."""
    peak = limits_of(sample.soc, sample.processor, sample.precision).peak_gflops
    return np.array([1.0, sample.flop / peak / 1e3])
