"""Mixes of other engines, fitted to whole networks: a hierarchy, each level drawn towards the last.

Few networks of an engine were measured on each chip, so that what sets engines apart from the one
whose kernels were measured is learned from all of them first, then from each engine, element type
and chip. Partial pooling as in Gelman and Hill, "Data Analysis Using Regression and Multilevel/
Hierarchical Models" (2007), as the most probable parameters of a model of logarithms.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from coexec.cost.calibration.families import OTHERS, family_of
from coexec.cost.calibration.libraries import library
from coexec.cost.calibration.sample import Sample
from coexec.cost.soc.engine_mix import KINDS, WIDTH, mix_levels, mix_of
from coexec.cost.soc.workload import DENSE

Numbers = NDArray[np.float64]

ENOUGH = 8
"""Fewer networks on a kind of processor cannot tell kinds of operators apart."""
PRIOR = np.ones(WIDTH)
SHAPES, SCALE = (0.1, 0.3, 1.0, 3.0), 0.1
"""How many networks off by e the distance e of a factor, or of all together, counts as much as. Of
the former each engine has the one that predicts best what is held out of the networks to be
fitted."""
STIFF = {DENSE: 10.0}
"""Kinds that are drawn so many times as strongly. A product of one row reads its weights once in
any engine, and in most networks takes too little to tell its multiple from chance."""
PARTS = 4
"""Parts of the networks, each held out once, to choose by: relatives are in one."""
FREE = 1e-4
"""The same for an engine's speed as a whole, of which nothing is known beforehand."""

STIFFNESS = np.array([STIFF.get(kind, 1.0) for kind in (*KINDS, "traffic", "calls")])


def tells_kinds(samples: Sequence[Sample]) -> list[bool]:
    """Whether enough networks were measured in the engine of each sample on its kind."""
    rows = Counter((sample.engine, sample.kind) for sample in samples)
    return [rows[sample.engine, sample.kind] >= ENOUGH for sample in samples]


def fit_mixes(samples: Sequence[Sample], row_of: Callable[[Sample], Numbers]) -> dict[str, Numbers]:
    """Mixes by level. ``row_of`` gives a network's time in the measured engine, by kind."""
    found: dict[str, Numbers] = {}
    for kind in dict.fromkeys(sample.kind for sample in samples):
        members = [sample for sample in samples if sample.kind == kind]
        table = np.array([row_of(sample) for sample in members])
        fits = {shape: _fit_levels(members, table, shape) for shape in SHAPES}
        shapes = best_shapes(members, table)
        for sample in members:
            mixes = fits[shapes[sample.engine]]
            found.update((name, mixes[name]) for name in _names(sample)[1:])
    return found


def best_shapes(samples: Sequence[Sample], table: Numbers) -> dict[str, float]:
    """By engine, the one of :data:`SHAPES` with the least error on families that no fit saw."""
    families = [_relatives(sample.model) for sample in samples]
    part_of = {family: n % PARTS for n, family in enumerate(sorted(set(families)))}
    parts = np.array([part_of[family] for family in families])
    errors: dict[str, dict[float, float]] = defaultdict(lambda: dict.fromkeys(SHAPES, 0.0))
    for part in range(PARTS):
        inside = np.flatnonzero(parts != part).tolist()
        known = [samples[place] for place in inside]
        for shape in SHAPES:
            mixes = _fit_levels(known, table[inside], shape)
            for place in np.flatnonzero(parts == part).tolist():
                sample = samples[place]
                mix = mix_of(mixes, _names(sample))
                guess = sample.measured_us if mix is None else table[place] @ mix
                errors[sample.engine][shape] += abs(guess / sample.measured_us - 1)
    return {engine: min(SHAPES, key=found.__getitem__) for engine, found in errors.items()}


def _relatives(model: str) -> str:
    """Its family; a network of none is alone."""
    family = family_of(model)
    return model if family == OTHERS else family


def _names(sample: Sample) -> tuple[str, ...]:
    return mix_levels(sample.engine, sample.precision, sample.soc.name, sample.processor)


def _fit_levels(samples: Sequence[Sample], table: Numbers, shape: float) -> dict[str, Numbers]:
    times = np.array([sample.measured_us for sample in samples])
    chains = [_names(sample) for sample in samples]
    found: dict[str, Numbers] = {}
    for places in _by_level(chains, 0).values():
        # What all engines share is the proportions of kinds: each one's speed is taken out.
        speeds = _speeds([samples[place] for place in places], table[places], times[places])
        found[chains[places[0]][0]] = fit_mix(
            table[places], times[places] / speeds, PRIOR, FREE, shape
        )
    for depth in range(1, len(chains[0]) if chains else 0):
        for places in _by_level(chains, depth).values():
            above = found[chains[places[0]][depth - 1]]
            scale = FREE if depth == 1 else SCALE
            mix = fit_mix(table[places], times[places], above, scale, shape)
            found[chains[places[0]][depth]] = mix
    return found


def fit_mix(table: Numbers, times: Numbers, above: Numbers, scale: float, shape: float) -> Numbers:
    """Factors w with the least sum of squares of log(table @ w) - log(times), near ``above``.

    ``table`` has shape (samples, factors). Factors stay positive: they are ``above`` times an
    exponential. ``scale`` is the weight of how far all of them together are from ``above``,
    ``shape`` that of each one's distance from the others.
    """
    rows, logs, count = table * above, np.log(times), len(above)
    pull = np.diag(np.sqrt([scale, *(shape * STIFFNESS)]))

    def residuals(steps: Numbers) -> Numbers:
        return np.concatenate([np.log(rows @ np.exp(steps[1:])) + steps[0] - logs, pull @ steps])

    def slopes(steps: Numbers) -> Numbers:
        parts = rows * np.exp(steps[1:])
        shares = parts / parts.sum(axis=1, keepdims=True)
        return np.vstack([np.hstack([np.ones((len(logs), 1)), shares]), pull])

    solve = library("scipy.optimize").least_squares
    steps = solve(residuals, np.zeros(count + 1), slopes).x
    mix: Numbers = above * np.exp(steps[0] + steps[1:])
    return mix


def _by_level(chains: Sequence[tuple[str, ...]], depth: int) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, chain in enumerate(chains):
        places[chain[depth]].append(place)
    return places


def _speeds(members: Sequence[Sample], table: Numbers, times: Numbers) -> Numbers:
    """How many times longer each one's engine takes in its element type, the median."""
    ratios = times / (table @ PRIOR)
    groups: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(members):
        groups[sample.group].append(place)
    speeds = np.ones(len(members))
    for places in groups.values():
        speeds[places] = np.median(ratios[places])
    return speeds
