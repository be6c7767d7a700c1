"""From measured samples to coefficients: one fit, used for shipping and for cross-validation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coexec.base.errors import UsageError
from coexec.cost.calibration.engines import fit_mixes, tells_kinds
from coexec.cost.calibration.least_squares import fit_factors
from coexec.cost.calibration.libraries import library
from coexec.cost.calibration.npu_fit import fit_npu, npu_row
from coexec.cost.calibration.sample import Sample
from coexec.cost.soc.coefficients import SPEEDS, Coefficients, levels
from coexec.cost.soc.estimate import LIKE, RUN, calls_us, mixable, network_us
from coexec.cost.soc.features import gpu_roofline_us, shape_features
from coexec.cost.soc.limits import limits_of
from coexec.cost.soc.terms import (
    DENSE_WEIGHTS,
    LEAST,
    PRIOR,
    TERMS,
    TIED,
    run_terms,
    terms,
)
from coexec.cost.soc.trees import Trees

Numbers = NDArray[np.float64]
Levels = dict[str, Numbers]
Fitted = TypeVar("Fitted")
TREES = "tflite gpu"
"""Group of the only kernels that were measured one by one."""
STRENGTHS = (1.0, 0.5, 0.5, 0.5, 0.5)
"""How many samples the prior is worth at each level: the limits, then the level above."""
FIRST = 64.0
"""How many times as much the limits are worth where at least :data:`ENOUGH` were measured."""
STIFFNESS = np.where(np.array(TERMS) == DENSE_WEIGHTS, 1000.0, 1.0)
"""How many times as strongly factors are drawn. In most networks products of one row take too
little to tell their factor from what other terms lack; that of memory's rate is known."""
GENERAL_TREES = {
    "n_estimators": 60,
    "learning_rate": 0.15,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 40,
}
FAMILY_TREES = GENERAL_TREES | {"min_samples_leaf": 20}
FAMILY = 1
"""Place of a GPU's family among its levels."""
OWN_TREES = {"n_estimators": 60, "learning_rate": 0.2, "max_leaf_nodes": 15, "min_samples_leaf": 5}
ENOUGH = 100
"""Fewer samples than that cannot tell all terms apart."""
LEAST_KERNELS = 100
"""A chip with fewer measured kernels gets no trees of its own."""


class Memory:
    """Parts of fits that others need again: cross-validation leaves most samples as they were."""

    def __init__(self) -> None:
        self.terms: dict[int, Numbers] = {}
        self.parts: dict[tuple[str, tuple[int, ...]], Any] = {}

    def terms_of(self, sample: Sample) -> Numbers:
        """Terms of all calls of a sample, summed."""
        if id(sample) not in self.terms:
            limits = limits_of(sample.soc, sample.processor, sample.precision)
            rows = [terms(call, limits, sample.precision) for call in sample.calls]
            self.terms[id(sample)] = np.sum(rows, axis=0)
        return self.terms[id(sample)]

    def npu_row(self, sample: Sample) -> Numbers:
        """As :meth:`terms_of`, of a sample on an NPU."""
        if id(sample) not in self.terms:
            self.terms[id(sample)] = npu_row(sample)
        return self.terms[id(sample)]

    def part(self, name: str, samples: Sequence[Sample], make: Callable[[], Fitted]) -> Fitted:
        """What ``make`` returns, made once for one set of samples."""
        key = name, tuple(map(id, samples))
        if key not in self.parts:
            self.parts[key] = make()
        found: Fitted = self.parts[key]
        return found


def fit(samples: Sequence[Sample], memory: Memory | None = None) -> Coefficients:
    """Coefficients from samples of any engines and processors.

    ``memory`` serves several fits to subsets of the same sample objects.

    Raises:
        UsageError: scikit-learn is not there, or there is nothing to fit.
    """
    if not samples:
        raise UsageError("no measurements to fit: the folder has no file that is known")
    memory = memory if memory is not None else Memory()
    kernels = [sample for sample in samples if not sample.whole]
    trees = {}
    if kernels:
        trees[TREES] = memory.part("trees", kernels, lambda: _fit_trees(kernels))
    wholes = [sample for sample in samples if sample.whole and sample.engine == LIKE[sample.kind]]
    others = [sample for sample in samples if sample.whole and sample.engine != LIKE[sample.kind]]
    # A multiple of an engine that nothing is known of on this kind of processor says nothing; of
    # GPUs without measured kernels there still is the roofline.
    known = {sample.kind for sample in wholes} | {"gpu"}
    others = [sample for sample in others if sample.kind in known]
    used = [*kernels, *wholes, *others]
    if not used:
        raise UsageError(f"no measurements to fit: of {' and '.join(LIKE.values())} there are none")
    factors = _fit_processors(wholes, memory)
    if kernels:
        factors |= _fit_runs(Coefficients(trees=trees), wholes)
    fitted = Coefficients(factors=factors, trees=trees)
    telling = tells_kinds(others)
    mixed = [sample for sample, tells in zip(others, telling, strict=True) if tells]
    single = [sample for sample, tells in zip(others, telling, strict=True) if not tells]
    counts = Counter(sample.group for sample in used)
    return replace(
        fitted,
        mixes=fit_mixes(mixed, partial(_mix_row, fitted)),
        engines=_fit_engines(fitted, single),
        rows=dict(counts),
    )


def _fit_processors(wholes: Sequence[Sample], memory: Memory) -> dict[str, Levels]:
    """Factors of terms, for kinds of processors whose kernels were not measured one by one."""
    found = {}
    kinds = _grouped(wholes, lambda sample: sample.kind)
    for group, members in _grouped(wholes, lambda sample: sample.group).items():
        kin = kinds[members[0].kind]
        if members[0].kind == "npu":
            found[group] = memory.part(group, kin, partial(_fit_npu, members, kin, memory))
        elif members[0].kind != "gpu":
            found[group] = memory.part(group, kin, partial(_fit_terms, members, kin, memory))
    return found


def _fit_terms(members: Sequence[Sample], kin: Sequence[Sample], memory: Memory) -> Levels:
    """Factors of each term; where there are few samples, of a few sums of terms.

    Those few are drawn towards the proportions that ``kin`` have: all element types together.
    """
    table = np.array([memory.terms_of(sample) for sample in members])
    if len(members) >= ENOUGH:
        return _fit_levels(members, table, PRIOR, LEAST, [FIRST * STIFFNESS, STIFFNESS])
    whole = np.array([memory.terms_of(sample) for sample in kin]) @ TIED
    times = np.array([sample.measured_us for sample in kin])
    limits = np.ones(TIED.shape[1]) * float(np.median(times / whole.sum(axis=1)))
    shared = fit_factors(whole, times, limits, STRENGTHS[0])
    tied = _fit_levels(members, table @ TIED, shared)
    return {level: TIED @ factors for level, factors in tied.items()}


def _fit_npu(members: Sequence[Sample], kin: Sequence[Sample], memory: Memory) -> Levels:
    rows, kin_rows = (np.array([memory.npu_row(s) for s in each]) for each in (members, kin))
    return fit_npu(members, rows, kin, kin_rows)


def _fit_runs(fitted: Coefficients, wholes: Sequence[Sample]) -> dict[str, Levels]:
    """What a whole run costs beyond its kernels, where those were fitted one by one."""
    found = {}
    gpu = [sample for sample in wholes if sample.kind == "gpu"]
    for group, members in _grouped(gpu, lambda s: f"{s.engine} {s.kind} {RUN}").items():
        table = np.array([_run_row(fitted, sample) for sample in members])
        found[group] = _fit_levels(members, table, np.ones(table.shape[1]))
    return found


def _fit_engines(fitted: Coefficients, others: Sequence[Sample]) -> dict[str, float]:
    """One multiple for each other engine, kind of processor and element type: the median.

    For engines of which few networks were measured.
    """
    found = {}
    for group, members in _grouped(others, lambda sample: sample.group).items():
        ratios = [
            sample.measured_us
            / network_us(
                fitted,
                sample.soc,
                sample.processor,
                sample.precision,
                LIKE[sample.kind],
                sample.calls,
            )
            for sample in members
        ]
        found[group] = float(np.median(ratios))
    return found


def _mix_row(fitted: Coefficients, sample: Sample) -> Numbers:
    return mixable(fitted, sample.soc, sample.processor, sample.precision, sample.calls).row


def _run_row(fitted: Coefficients, sample: Sample) -> Numbers:
    busy = calls_us(
        fitted, sample.soc, sample.processor, sample.precision, sample.engine, sample.calls
    ).sum()
    return run_terms(sample.soc, sample.processor, float(busy), len(sample.calls))


def _fit_levels(
    members: Sequence[Sample],
    table: Numbers,
    prior: Numbers,
    least: Numbers | None = None,
    stiffness: Sequence[Numbers | None] = (None,),
) -> Levels:
    """Factors of each level, each drawn towards those of the level above it.

    ``stiffness`` of levels beyond its end is the last one.
    """
    times = np.array([sample.measured_us for sample in members])
    # What is known beforehand are proportions: an engine is some times slower than the limits.
    start = prior * float(np.median(times / (table @ prior)))
    found: Levels = {}
    chains = [levels(sample.soc, sample.processor, sample.precision) for sample in members]
    for depth, strength in enumerate(STRENGTHS):
        stiff = stiffness[min(depth, len(stiffness) - 1)]
        places = defaultdict(list)
        for place, chain in enumerate(chains):
            if depth < len(chain):
                places[chain[: depth + 1]].append(place)
        for chain, picked in places.items():
            above = found[chain[-2]] if depth else start
            rows, measured = table[picked], times[picked]
            found[chain[-1]] = (
                _fit_speed(rows, measured, above, strength, least)
                if chain[-1] in SPEEDS
                else fit_factors(rows, measured, above, strength, least, stiff)
            )
    return found


def _fit_speed(
    rows: Numbers, measured: Numbers, prior: Numbers, strength: float, least: Numbers | None
) -> Numbers:
    """As :func:`fit_factors`, but all factors are one multiple of the prior, down to ``least``."""
    times = fit_factors((rows @ prior)[:, None], measured, np.ones(1), strength)
    factors: Numbers = prior * times
    return factors if least is None else np.maximum(factors, least)


def _fit_trees(kernels: Sequence[Sample]) -> dict[str, Trees]:
    """What a kernel's shape does to its time on any chip, in each family, on each chip.

    Each is fitted to what is left of those before. Of what sets a family of n chips apart, n / (n +
    1) is believed: the mean of all chips counts as one more.
    """
    rooflines = np.array([_roofline(sample) for sample in kernels])
    rows = np.array([shape_features(sample.calls[0]) for sample in kernels])
    residual = np.log([sample.measured_us for sample in kernels]) - np.log(rooflines)
    found: dict[str, Trees] = {}
    names = [levels(sample.soc, sample.processor, sample.precision) for sample in kernels]
    for depth, options in enumerate((GENERAL_TREES, FAMILY_TREES, OWN_TREES)):
        for name in sorted({each[depth] for each in names}):
            own = np.array([each[depth] == name for each in names])
            if own.sum() < LEAST_KERNELS and depth:
                continue
            trees = _train(rows[own], residual[own], options)
            if depth == FAMILY:
                chips = len({each[-1] for each in names if each[depth] == name})
                trees = trees.scaled(chips / (chips + 1))
            residual[own] -= trees.predict(rows[own])
            found[name] = trees
    return found


def _roofline(sample: Sample) -> float:
    limits = limits_of(sample.soc, "gpu", sample.precision)
    return gpu_roofline_us(sample.calls[0], limits, sample.soc, sample.precision)


def _train(rows: Numbers, target: Numbers, options: Mapping[str, float]) -> Trees:
    """Boosted trees of what ``target`` is beyond its mean."""
    ensemble = library("sklearn.ensemble")
    model = ensemble.GradientBoostingRegressor(
        init="zero", max_depth=None, random_state=0, **options
    )
    mean = float(target.mean())
    return replace(Trees.of_sklearn(model.fit(rows, target - mean)), constant=mean)


def _grouped(samples: Iterable[Sample], name: Callable[[Sample], str]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[name(sample)].append(sample)
    return groups
