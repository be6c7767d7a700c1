"""Predictions against measurements: as shipped, and with models or whole chips held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coexec.core.soc_file import find_soc, soc_names
from coexec.cost.calibration.families import family_of
from coexec.cost.calibration.fit import Memory, fit
from coexec.cost.calibration.sample import Sample
from coexec.cost.calibration.score import Baseline, Score, score
from coexec.cost.soc.coefficients import Coefficients
from coexec.cost.soc.defaults import Defaults
from coexec.cost.soc.estimate import LIKE, calls_us, network_us

Numbers = NDArray[np.float64]
SHIPPED, BY_MODEL, BY_SOC = "as shipped", "models held out", "chips held out"
BY_FAMILY = "families held out"
BY_DATA_SHEET = "data sheet alone"
"""Chips held out, with what was measured on them taken out of their files too."""
FOLDS = 5
SEED = 0
Observer = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """Predictions of one split in the order of ``samples``."""

    split: str
    samples: tuple[Sample, ...]
    predicted: Numbers
    baseline: Numbers

    def scores(self) -> list[Score]:
        """One for each dataset and group, and one for all of a dataset with its ranking."""
        places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place, sample in enumerate(self.samples):
            places[sample.dataset, sample.group].append(place)
            places[sample.dataset, "all"].append(place)
        return [self._score(dataset, group, picked) for (dataset, group), picked in places.items()]

    def of_chip(self, name: str) -> list[Score]:
        """Scores of one chip."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, sample in enumerate(self.samples):
            if sample.soc.name == name:
                places[sample.dataset].append(place)
        return [self._score(dataset, name, picked) for dataset, picked in places.items()]

    def _score(self, dataset: str, group: str, places: Sequence[int]) -> Score:
        picked = [self.samples[place] for place in places]
        return score(
            self.split, dataset, group, picked, self.predicted[places], self.baseline[places]
        )


def predict_samples(coefficients: Coefficients, samples: Sequence[Sample]) -> Numbers:
    """Microseconds of each sample, by the way that ``predict`` goes too."""
    found = np.zeros(len(samples))
    batches: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for place, each in enumerate(samples):
        if each.whole:
            found[place] = network_us(
                coefficients, each.soc, each.processor, each.precision, each.engine, each.calls
            )
        else:
            key = (each.soc.name, each.processor, each.precision, each.engine)
            batches[key].append(place)
    for (_, processor, precision, engine), places in batches.items():
        calls = [samples[place].calls[0] for place in places]
        soc = samples[places[0]].soc
        found[places] = calls_us(coefficients, soc, processor, precision, engine, calls)
    return found


def as_shipped(coefficients: Coefficients, samples: Sequence[Sample]) -> Outcome:
    """With coefficients that exist; the baseline is fitted on the samples themselves."""
    predicted = predict_samples(coefficients, samples)
    return Outcome(SHIPPED, tuple(samples), predicted, Baseline(samples).predict(samples))


def cross_validate(samples: Sequence[Sample], split: str, observe: Observer) -> Outcome | None:
    """Every sample predicted by a fit that saw nothing of its model, family of models or chip.

    Never split by row. What was measured in one engine on one chip alone is left out where that
    chip is held out. ``None`` if there are fewer than two parts, or nothing can be predicted so.
    """
    folds = list(_folds(samples, split))
    if len(folds) < 2:
        return None
    memory = Memory()
    predicted, baseline = np.full(len(samples), np.nan), np.zeros(len(samples))
    for name, held_out in folds:
        observe(f"{split}: {name}")
        places, guesses, base = _held_out(samples, held_out, memory)
        predicted[places], baseline[places] = guesses, base
    return _outcome(split, samples, predicted, baseline)


def from_data_sheets(samples: Sequence[Sample], observe: Observer) -> Outcome | None:
    """As :func:`cross_validate` by chip, but the chip that is held out has no measured figures.

    What all chips have by default comes from the others then. NPUs are left out: their files have
    no figures that would be replaced. ``None`` if there are fewer than two chips, or too few on
    which such figures were measured.
    """
    here = [sample for sample in samples if sample.kind != "npu"]
    folds = list(_folds(here, BY_SOC))
    chips = {sample.soc.name: sample.soc for sample in here}
    predicted, baseline = np.full(len(here), np.nan), np.zeros(len(here))
    for name, held_out in folds if len(folds) > 1 else ():
        observe(f"{BY_DATA_SHEET}: {name}")
        defaults = Defaults(map(find_soc, soc_names()), without=name)
        filled = {
            each: defaults.fill(soc, replace_measured=each == name) for each, soc in chips.items()
        }
        moved = [replace(sample, soc=filled[sample.soc.name]) for sample in here]
        places, guesses, base = _held_out(moved, held_out, Memory())
        predicted[places], baseline[places] = guesses, base
    return _outcome(BY_DATA_SHEET, here, predicted, baseline) if len(folds) > 1 else None


def _held_out(
    samples: Sequence[Sample], held_out: NDArray[np.bool_], memory: Memory
) -> tuple[list[int], Numbers, Numbers]:
    """Places of what is held out and can be predicted, predictions and those of the baseline."""
    inside = [sample for sample, out in zip(samples, held_out, strict=True) if not out]
    fitted = {sample.group for sample in inside}
    places = [i for i, out in enumerate(held_out) if out and _predictable(samples[i], fitted)]
    if not places:
        return places, np.zeros(0), np.zeros(0)
    outside = [samples[place] for place in places]
    guesses = predict_samples(fit(inside, memory), outside)
    return places, guesses, Baseline(inside).predict(outside)


def _outcome(
    split: str, samples: Sequence[Sample], predicted: Numbers, baseline: Numbers
) -> Outcome | None:
    """Of the samples that were predicted; None where none was."""
    kept = [place for place, guess in enumerate(predicted) if not np.isnan(guess)]
    return (
        None
        if not kept
        else Outcome(split, tuple(samples[i] for i in kept), predicted[kept], baseline[kept])
    )


def _predictable(sample: Sample, fitted: set[str]) -> bool:
    """Whether its engine, and the one that this is a multiple of, were measured elsewhere.

    A GPU without measured kernels still has its roofline.
    """
    like = f"{LIKE[sample.kind]} {sample.kind} "
    known = sample.kind == "gpu" or any(group.startswith(like) for group in fitted)
    return known and (sample.engine == LIKE[sample.kind] or sample.group in fitted)


def _folds(samples: Sequence[Sample], split: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Which samples are held out, fold by fold."""
    if split in _NAMES:
        names = np.array([_NAMES[split](sample) for sample in samples])
        for name in np.unique(names):
            yield str(name), names == name
        return
    elsewhere = {sample.model for sample in samples if sample.kind != "npu"}
    # What is measured on NPUs has no part in the draw of what is fitted to other processors.
    on_npus = {sample.model for sample in samples} - elsewhere
    fold_of = _drawn(elsewhere) | _drawn(on_npus)
    parts = max(fold_of.values(), default=-1) + 1
    for number in range(parts):
        held_out = np.array([fold_of[sample.model] == number for sample in samples])
        yield f"part {number + 1} of {parts}", held_out


_NAMES: Mapping[str, Callable[[Sample], str]] = {
    BY_SOC: lambda sample: sample.soc.name,
    BY_FAMILY: lambda sample: family_of(sample.model),
}
"""What is held out together, of splits that are not drawn."""


def _drawn(models: Collection[str]) -> dict[str, int]:
    """A part of :data:`FOLDS` for each model."""
    names = sorted(models)
    order = np.random.default_rng(SEED).permutation(len(names))
    return {names[place]: number % FOLDS for number, place in enumerate(order)}
