"""What a model makes of data that it is not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coexec.autodiff.loss_value import loss_value
from coexec.autodiff.losses import Loss
from coexec.base.errors import DataError
from coexec.core.types import Array, TensorType
from coexec.inputs import check_feeds, model_inputs
from coexec.training.data import Dataset
from coexec.training.trainer import Trainer


class Evaluation(NamedTuple):
    """Loss and accuracy of a model in inference form, over all samples.

    ``accuracy`` is ``None`` for losses that are not about classes. A loss of the model's own is the
    mean over batches.
    """

    loss: float
    accuracy: float | None


@dataclass
class _Sums:
    """What has been added up: losses by their weights, right answers by how many there are."""

    loss: float = 0.0
    weight: float = 0.0
    right: int = 0
    answers: int = 0

    def add(self, loss: float, weight: float) -> None:
        self.loss += weight * loss
        self.weight += weight

    def result(self) -> Evaluation:
        loss = self.loss / self.weight if self.weight else float("nan")
        return Evaluation(loss, self.right / self.answers if self.answers else None)


def evaluate(trainer: Trainer, dataset: Dataset, batch_size: int) -> Evaluation:
    """Loss and accuracy on all samples in inference form, with the current parameters.

    Raises:
        DataError: inputs or labels that do not go with the model.
    """
    if not trainer.loss.labelled:
        return _own_loss(trainer, dataset, batch_size)
    loss, labels = trainer.loss, dataset.truth
    sums = _Sums()
    for start, prediction in _predictions(trainer, dataset, batch_size):
        if not start:
            whole = TensorType((len(dataset), *prediction.shape[1:]), prediction.dtype)
            check_held_out(loss, labels, whole)
        part = labels[start : start + len(prediction)]
        right, count = loss.answers(prediction, part)
        sums.right += right
        sums.answers += count
        weight = loss.weight(part)
        if weight:  # the mean of none would be none
            sums.add(loss_value(loss, prediction, part), weight)
    return sums.result()


def _predictions(
    trainer: Trainer, dataset: Dataset, batch_size: int
) -> Iterator[tuple[int, Array]]:
    """First sample and prediction of each batch, without what fills the last one up."""
    output = str(trainer.loss.prediction(trainer.model.graph.outputs).name)
    for start in range(0, len(dataset), batch_size):
        rows = np.arange(start, start + batch_size)
        # The last batch is filled up with its last sample: one program serves all batches.
        batch = dataset.take(np.minimum(rows, len(dataset) - 1))
        yield start, trainer.predict(batch.inputs)[output][: len(dataset) - start]


def _own_loss(trainer: Trainer, dataset: Dataset, batch_size: int) -> Evaluation:
    """By the model's own loss, which cannot be told for a part of a batch."""
    output = str(trainer.loss.prediction(trainer.model.graph.outputs).name)
    sums = _Sums()
    end = len(dataset) if is_open(trainer) else len(dataset) // batch_size * batch_size
    for start in range(0, end, batch_size):
        rows = np.arange(start, min(start + batch_size, end))
        batch = dataset.take(rows)
        sums.add(float(trainer.predict(batch.inputs)[output].reshape(())), len(rows))
    return sums.result()


def is_open(trainer: Trainer) -> bool:
    """Whether the model takes batches of any size."""
    shapes = [value.shape for value in model_inputs(trainer.model)]
    return all(shape is None or not isinstance(shape.dims[0], int) for shape in shapes)


def check_early(trainer: Trainer, validation: Dataset, batch_size: int) -> None:
    """Look at held-out data before training: what does not fit must not come to light after hours.

    At labels, if the model leaves only its batch size open.

    Raises:
        DataError: inputs or labels that do not go with the model.
    """
    check_feeds(trainer.model, validation.take(np.zeros(batch_size, int)).inputs)
    if not trainer.loss.labelled:
        if not is_open(trainer) and len(validation) < batch_size:
            raise DataError(f"held-out data: {len(validation)} samples are less than a batch")
        return
    output = trainer.loss.prediction(trainer.model.graph.outputs)
    sizes = output.shape.dims[1:] if output.shape is not None else (None,)
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if len(fixed) == len(sizes) and output.dtype is not None:
        kind = TensorType((len(validation), *fixed), np.dtype(output.dtype.numpy()))
        check_held_out(trainer.loss, validation.truth, kind)


def check_held_out(loss: Loss, labels: Array, prediction: TensorType) -> None:
    """Hold labels against the prediction for all samples: shape, kind of number, values.

    Raises:
        DataError: they do not go with it.
    """
    wanted, integers = loss.labels_type(prediction), "biu"
    fits = (labels.dtype.kind in integers) == (wanted.dtype.kind in integers)
    if labels.shape != wanted.shape or not fits:
        raise DataError(f"labels of the held-out data are {TensorType.of(labels)}, not {wanted}")
    try:
        loss.check_labels(labels, prediction)
    except DataError as error:
        raise DataError(f"held-out data: {error}") from error
