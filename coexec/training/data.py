"""Training data: named arrays of equal length with labels, in a repeatable order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from coexec.autodiff.losses import LABELS, Loss
from coexec.autodiff.step import StepGraph
from coexec.base.errors import DataError
from coexec.base.npz import read_npz
from coexec.core.types import Array
from coexec.inputs import check_array
from coexec.ops.node import type_of


@dataclass(frozen=True)
class Dataset:
    """Inputs by name, each ``(samples, ...)``, and ``labels`` ``(samples, ...)``.

    No labels where the loss is the model's own: they are inputs then.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"arrays differ in length: {lengths}")
        if not len(self):
            raise DataError("the data has no samples")

    @property
    def arrays(self) -> dict[str, Array]:
        """Inputs, and labels if there are some."""
        return {**self.inputs, **({} if self.labels is None else {LABELS: self.labels})}

    @property
    def truth(self) -> Array:
        """The labels.

        Raises:
            DataError: there are none.
        """
        if self.labels is None:
            raise DataError("the data has no labels")
        return self.labels

    def __len__(self) -> int:
        return next((len(array) for array in self.arrays.values()), 0)

    def take(self, rows: Array) -> Dataset:
        """The samples at ``rows``."""
        labels = None if self.labels is None else self.labels[rows]
        return Dataset({name: array[rows] for name, array in self.inputs.items()}, labels)


def check_given(loss: Loss, feeds: Mapping[str, Array], labels: Array | None) -> None:
    """Refuse a batch without the labels that its loss takes, with others, or without samples.

    Raises:
        DataError: it is such.
    """
    if loss.labelled and labels is None:
        raise DataError("this loss takes labels: trainer.step(inputs, labels)")
    if not loss.labelled and labels is not None:
        raise DataError("the loss is the model's own: its labels are inputs of the model")
    # The loss of a batch without samples would be a mean of nothing.
    if labels is not None and not np.size(labels):
        raise DataError("labels are empty: a step needs a batch of at least one sample")
    empty = [name for name, array in feeds.items() if labels is None and not array.size]
    if empty:
        raise DataError(f"inputs {empty} are empty: a step needs a batch of at least one sample")


def labels_of(loss: Loss, graph: StepGraph, labels: Array | None) -> dict[str, Array]:
    """Labels as the graph of a step takes them, by name; none if they are inputs of the model.

    Raises:
        DataError: of another shape or type, or with values that the loss has no meaning for.
    """
    if labels is None:
        return {}
    wanted = next(v for v in graph.model.graph.inputs if v.name == graph.labels)
    prediction = type_of(next(v for v in graph.model.graph.outputs if v.name == graph.prediction))
    kind, given = type_of(wanted), getattr(labels, "shape", None)
    if given == prediction.shape != kind.shape and kind.dtype.kind == "i":
        raise DataError(
            f"labels are {'x'.join(map(str, given))}, as the output is; this loss wants the number "
            "of a class for each sample: of one-hot labels their argmax over the classes"
        )
    checked = check_array(wanted, labels)
    loss.check_labels(checked, prediction)
    return {graph.labels: checked}


def part_shares(loss: Loss, parts: Sequence[Array | None]) -> list[float]:
    """What the loss of each part of a batch is of the whole one's, by the labels of the parts.

    Equal shares without labels, and where no label of any part counts. ``parts`` are labels that
    :func:`labels_of` let pass.
    """
    weights = [1.0 if labels is None else loss.weight(labels) for labels in parts]
    if not sum(weights):
        weights = [1.0] * len(parts)
    return [weight / sum(weights) for weight in weights]


def load_npz(path: Path, *, labelled: bool = True) -> Dataset:
    """Read a ``.npz`` with one array per model input and, if ``labelled``, ``labels``.

    Raises:
        DataError: not such a file, or arrays of different lengths.
    """
    arrays = read_npz(path)
    if labelled and LABELS not in arrays:
        raise DataError(f"{path} has no array {LABELS!r}; it has {sorted(arrays)}")
    scalars = [name for name, array in arrays.items() if not array.ndim]
    if scalars:
        raise DataError(f"{path}: {scalars} have no sample axis")
    return Dataset(arrays, arrays.pop(LABELS) if labelled else None)


def epoch_order(samples: int, seed: int, epoch: int) -> Array:
    """Order of samples in an epoch: a function of seed and epoch only, so it can be resumed."""
    return np.random.default_rng((seed, epoch)).permutation(samples)


LastBatch = Literal["drop", "keep"]
"""What becomes of the samples of an epoch that do not fill a batch: left out, or a smaller one."""


def batch_count(samples: int, batch_size: int, last: LastBatch) -> int:
    """Batches of an epoch."""
    full, rest = divmod(samples, batch_size)
    return full + (last == "keep" and rest > 0)


def batches(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int,
    last: LastBatch = "drop",
) -> Iterator[Dataset]:
    """Batches of an epoch in its order, without the first ``skip``.

    Samples that are left out of this epoch need not be of the next: its order is another.
    """
    order = epoch_order(len(dataset), seed, epoch)
    for index in range(skip, batch_count(len(dataset), batch_size, last)):
        yield dataset.take(order[index * batch_size : (index + 1) * batch_size])
