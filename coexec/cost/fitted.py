"""Times of calls that were not measured, from those that were: boosted regression trees.

One regression per processor over logarithms of work and sizes, trained on how many times as long as
its limits allow (:mod:`coexec.cost.roofline`) the calls took that its store has. Trees repeat what
they have seen: trained on times, they would give a large call that of the largest one measured. It
is used only where there are enough times, and only for operators that are among them; how far it is
off is known from cross-validation. Source of the idea: nn-Meter (MobiSys 2021).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from coexec.core.machine import Rates
from coexec.core.types import OpCall, compute_dtype
from coexec.cost.distribution import Distribution
from coexec.cost.forest import Forest
from coexec.cost.roofline import limit_us, roofline_us
from coexec.cost.store import Entry
from coexec.ops.table import opdef

LEAST_ENTRIES, LEAST_OF_OPERATOR = 40, 4
FOLDS, MANY = 5, 1000
"""Of so many samples one fold tells how far predictions are off: each takes nearly as long to train
as the regression that predicts, which for thousands of samples is a second."""
SEED = 0
SETTINGS = {"n_estimators": 120, "max_depth": 4, "subsample": 0.8}
Row = tuple[float, ...]
"""The operator's number and its features."""
TYPES = {16.0: "float16", 64.0: "float64"}
"""Element types by the bits among the features; all others count as float32."""


@dataclass(frozen=True)
class FittedCosts:
    """A trained regression. ``error`` is the median relative error in cross-validation.

    ``known`` are predictions by row, in multiples of what the limits allow: a plan asks for the
    same ones again and again.
    """

    model: Forest
    operators: Mapping[str, int]
    error: float
    samples: int
    sigma: float
    known: dict[Row, Distribution] = field(default_factory=dict, compare=False, repr=False)

    def predict(self, call: OpCall, rates: Rates) -> Distribution | None:
        """Microseconds of a call; ``None`` for an operator that was hardly ever measured."""
        call = call.like or call
        if call.identifier not in self.operators:
            return None
        return self._times_limit(call).scaled(roofline_us(call, rates))

    def _times_limit(self, call: OpCall) -> Distribution:
        row = (float(self.operators[call.identifier]), *features(call))
        if row not in self.known:
            median = math.exp(self.model.predict(row))
            spread = math.exp(1.2816 * self.sigma)
            self.known[row] = Distribution(median, median / spread, median * spread)
        return self.known[row]


def features(call: OpCall) -> tuple[float, ...]:
    """Logarithms of FLOP, bytes and operand sizes, last dimensions, and bits of an element."""
    call = call.like or call
    work = opdef(call).work(call)
    sizes = [kind.size if kind is not None else 0 for kind in call.inputs[:3]]
    sizes += [0] * (3 - len(sizes))
    result = next((kind for kind in call.outputs if kind is not None), None)
    dims = [*(result.shape[-3:] if result is not None else ())]
    dims += [1] * (3 - len(dims))
    kernel = next((k.shape[2:] for k in call.inputs[1:2] if k is not None and k.rank > 2), ())
    numbers = [work.flop, work.bytes, *sizes, result.size if result is not None else 0, *dims]
    return (
        *(math.log1p(number) for number in numbers),
        float(math.prod(kernel)),
        math.log1p(int(call.attribute("group", 1))),
        8.0 * np.dtype(compute_dtype(call) or "float32").itemsize,
    )


def fit(entries: Mapping[str, Entry], rates: Rates, path: Path | None = None) -> FittedCosts | None:
    """Train on times measured on a processor of these limits, or read what was trained on them.

    That is kept at a ``path``, if there is one, until there are other times. ``None`` without
    scikit-learn or with too few of them.
    """
    usable = [entry for entry in entries.values() if entry.features and entry.time.median_us > 0]
    counts: dict[str, int] = {}
    for entry in usable:
        counts[entry.operator] = counts.get(entry.operator, 0) + 1
    known = sorted(name for name, count in counts.items() if count >= LEAST_OF_OPERATOR)
    numbers = {name: number for number, name in enumerate(known)}
    rows = [
        (
            (float(numbers[entry.operator]), *entry.features),
            entry.time.median_us / _limit_us(entry.features, rates),
        )
        for entry in usable
        if entry.operator in numbers
    ]
    if len(rows) < LEAST_ENTRIES or importlib.util.find_spec("sklearn") is None:
        return None
    return _fitted(tuple(known), tuple(sorted(rows)), path)


def _limit_us(row: Sequence[float], rates: Rates) -> float:
    """What the limits allow a call of these features, in microseconds."""
    kind = TYPES.get(row[-1], "float32")
    return limit_us(math.expm1(row[0]), math.expm1(row[1]), kind, rates)


@lru_cache(maxsize=8)
def _fitted(
    operators: tuple[str, ...], samples: tuple[tuple[Row, float], ...], path: Path | None
) -> FittedCosts:
    """The regression of rows to multiples: the same for each plan from the same times."""
    digest = _digest(operators, samples)
    forest = None if path is None else Forest.load(path, digest)
    if forest is None:
        forest = _trained(samples)
        if path is not None:
            forest.save(path, digest)
    errors = forest.errors
    return FittedCosts(
        model=forest,
        operators={name: number for number, name in enumerate(operators)},
        error=float(np.median(np.abs(np.expm1(errors)))),
        samples=len(samples),
        sigma=float(np.median(np.abs(errors)) * 1.4826),
    )


def _digest(operators: tuple[str, ...], samples: tuple[tuple[Row, float], ...]) -> str:
    """Of all that a regression is made of."""
    how = [version("scikit-learn"), SETTINGS, FOLDS, MANY, SEED]
    return hashlib.sha256(json.dumps([how, operators, samples]).encode()).hexdigest()


def _trained(samples: Sequence[tuple[Row, float]]) -> Forest:
    ensemble = importlib.import_module("sklearn.ensemble")
    selection = importlib.import_module("sklearn.model_selection")
    rows = np.array([row for row, _ in samples])
    logs = np.log([multiple for _, multiple in samples])

    def trained(chosen: Any) -> Any:
        regression = ensemble.GradientBoostingRegressor(**SETTINGS, random_state=SEED)
        return regression.fit(rows[chosen], logs[chosen])

    folds = list(selection.KFold(FOLDS, shuffle=True, random_state=SEED).split(rows))
    errors = np.concatenate(
        [
            trained(known).predict(rows[left_out]) - logs[left_out]
            for known, left_out in (folds if len(rows) < MANY else folds[:1])
        ]
    )
    return Forest.of(trained(slice(None)), errors)
