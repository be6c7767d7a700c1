"""Training data: named arrays of equal length with labels, in a repeatable order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coexec.base.errors import DataError
from coexec.base.npz import read_npz
from coexec.core.types import Array

LABELS = "labels"


@dataclass(frozen=True)
class Dataset:
    """Inputs by name, each ``(samples, ...)``, and ``labels`` ``(samples, ...)``."""

    inputs: Mapping[str, Array]
    labels: Array

    def __post_init__(self) -> None:
        lengths = {
            name: len(array) for name, array in (*self.inputs.items(), (LABELS, self.labels))
        }
        if len(set(lengths.values())) > 1:
            raise DataError(f"arrays differ in length: {lengths}")
        if not len(self.labels):
            raise DataError("the data has no samples")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Array) -> Dataset:
        """The samples at ``rows``."""
        return Dataset(
            {name: array[rows] for name, array in self.inputs.items()}, self.labels[rows]
        )


def refuse_empty(labels: Array) -> None:
    """Refuse the labels of a batch without samples: its loss would be a mean of nothing.

    Raises:
        DataError: they are such.
    """
    if not np.size(labels):
        raise DataError("labels are empty: a step needs a batch of at least one sample")


def load_npz(path: Path) -> Dataset:
    """Read a ``.npz`` with one array per model input and ``labels``.

    Raises:
        DataError: not such a file, or arrays of different lengths.
    """
    arrays = read_npz(path)
    if LABELS not in arrays:
        raise DataError(f"{path} has no array {LABELS!r}; it has {sorted(arrays)}")
    labels = arrays.pop(LABELS)
    scalars = [name for name, array in (*arrays.items(), (LABELS, labels)) if not array.ndim]
    if scalars:
        raise DataError(f"{path}: {scalars} have no sample axis")
    return Dataset(arrays, labels)


def epoch_order(samples: int, seed: int, epoch: int) -> Array:
    """Order of samples in an epoch: a function of seed and epoch only, so it can be resumed."""
    return np.random.default_rng((seed, epoch)).permutation(samples)


def batches(
    dataset: Dataset, batch_size: int, seed: int, epoch: int, skip: int
) -> Iterator[Dataset]:
    """Full batches of an epoch in its order, without the first ``skip``.

    Samples that do not fill a batch are left out of this epoch; the next epoch's order is another.
    """
    order = epoch_order(len(dataset), seed, epoch)
    for index in range(skip, len(dataset) // batch_size):
        yield dataset.take(order[index * batch_size : (index + 1) * batch_size])
