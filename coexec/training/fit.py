"""The training loop: epochs over a dataset with checkpoints, validation and exact resume."""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from types import FrameType

import numpy as np

from coexec.autodiff.losses import Loss
from coexec.autodiff.selection import shared
from coexec.base.errors import CheckpointError, DataError, NonFiniteLoss
from coexec.core.events import Trace
from coexec.core.timeline import clock_of
from coexec.core.types import Array, TensorType
from coexec.ops.node import type_of
from coexec.passes.compress_activations import EXACT
from coexec.session import check_feeds
from coexec.training.checkpoint import (
    Checkpoint,
    digest_of,
    latest_checkpoint,
    save_checkpoint,
)
from coexec.training.data import LABELS, Dataset, batches
from coexec.training.trainer import Trainer

log = logging.getLogger(__name__)
NAMED = 3
"""Parameters that a warning names."""


@dataclass
class Progress:
    """Where a training stands; passed to the observer after every step.

    ``step_ms`` are milliseconds of virtual time on simulated processors.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float = float("nan")
    losses: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    accuracy: float | None = None


@dataclass(frozen=True)
class FitOptions:
    """What :func:`fit` does: epochs, batches, checkpoints every so many steps (0: every epoch).

    ``trace`` collects the events of the first ``traced_steps`` steps.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_every: int = 0
    resume: bool = False
    trace: Trace | None = None
    traced_steps: int = 10


@dataclass(frozen=True)
class Result:
    """Outcome of a training: ``steps`` in all, ``steps_run`` of them in this process.

    ``accuracy`` is that of the validation data, if there is any.
    """

    steps: int
    steps_run: int
    loss_first: float
    loss_last: float
    step_ms_median: float
    accuracy: float | None
    notes: tuple[str, ...] = ()


Observer = Callable[[Progress], None]


def fit(
    trainer: Trainer,
    train: Dataset,
    validation: Dataset | None,
    how: FitOptions,
    observer: Observer = lambda progress: None,
) -> Result:
    """Train; an interrupted run with the same arguments and ``resume`` continues bit-exactly.

    Ctrl-C takes effect between two steps: the state is saved (if there is a checkpoint folder) and
    KeyboardInterrupt raised; before the first step is done there is nothing to save, and it is
    raised at once. On a non-finite loss the state before that step is saved.
    """
    return _Fit(trainer, train, validation, how, observer).run()


class _Fit:
    def __init__(
        self,
        trainer: Trainer,
        train: Dataset,
        validation: Dataset | None,
        how: FitOptions,
        observer: Observer,
    ) -> None:
        if how.batch_size > len(train):
            raise DataError(
                f"--batch-size {how.batch_size} exceeds the {len(train)} samples of the data"
            )
        if validation is not None:
            # A held-out set that does not fit must not come to light after hours of training.
            check_feeds(trainer.model, validation.take(np.zeros(how.batch_size, int)).inputs)
            _check_early(trainer, validation)
        self.trainer, self.train, self.validation = trainer, train, validation
        self.how, self.observer = how, observer
        self.per_epoch = len(train) // how.batch_size
        self.progress = Progress(total_steps=self.per_epoch * how.epochs)
        self.notes: list[str] = []
        _tell_shared(trainer)
        self.saved_at = -1
        self.whole = True
        self.interrupted = threading.Event()

    def run(self) -> Result:
        if self.how.checkpoint is not None and self.how.resume:
            self._resume(self.how.checkpoint)
        with _interrupts(at_once=lambda: not self.progress.step_ms) as interrupted:
            self.interrupted = interrupted
            try:
                for epoch in range(self.trainer.steps // self.per_epoch, self.how.epochs):
                    self._epoch(epoch)
            finally:
                # Also after Ctrl-C and a bad loss: the state is that after the last whole step.
                if self.whole:
                    self._save()
        losses = self.progress.losses
        return Result(
            steps=self.trainer.steps,
            steps_run=len(self.progress.step_ms),
            loss_first=losses[0] if losses else float("nan"),
            loss_last=losses[-1] if losses else float("nan"),
            step_ms_median=median(self.progress.step_ms) if self.progress.step_ms else float("nan"),
            accuracy=self._validate(),
            notes=tuple(self.notes),
        )

    def _epoch(self, epoch: int) -> None:
        done = self.trainer.steps - epoch * self.per_epoch
        self.progress.epoch = epoch
        clock = clock_of(self.trainer.processors.values())
        for batch in batches(self.train, self.how.batch_size, self.how.seed, epoch, done):
            start = clock()
            loss = self._step(batch)
            self.progress.step_ms.append((clock() - start) * 1e3)
            self.progress.losses.append(loss)
            self.progress.loss = loss
            self.progress.step = self.trainer.steps
            self.observer(self.progress)
            every = self.how.checkpoint_every or self.per_epoch
            if self.trainer.steps % every == 0:
                self._save()
            if self.interrupted.is_set():
                raise KeyboardInterrupt

    def _step(self, batch: Dataset) -> float:
        """One step; anything but a bad loss that ends it may leave parameters half updated."""
        self.whole = False
        try:
            loss = self.trainer.step(batch.inputs, batch.labels, self._trace())
        except NonFiniteLoss:
            self.whole = True
            raise
        self.whole = True
        return loss

    def _trace(self) -> Trace | None:
        return self.how.trace if len(self.progress.step_ms) < self.how.traced_steps else None

    def _save(self) -> None:
        steps = self.trainer.steps
        if self.how.checkpoint is None or not steps or steps == self.saved_at:
            return
        first = self.progress.losses[:1]
        checkpoint = Checkpoint(
            self.trainer.state(), self.trainer.steps, self._fingerprint(), {"loss_first": first}
        )
        save_checkpoint(self.how.checkpoint, checkpoint)
        self.saved_at = steps

    def _resume(self, folder: Path) -> None:
        checkpoint, refused = latest_checkpoint(folder, self._fingerprint())
        self.notes.extend(refused)
        for note in refused:
            log.warning("%s; the one before it is used", note)
        if checkpoint is None:
            if refused:
                raise CheckpointError(f"no usable checkpoint in {folder}: {'; '.join(refused)}")
            self.notes.append(f"no checkpoint in {folder}: starting from the beginning")
            return
        self.trainer.load_state(checkpoint.state, checkpoint.steps)
        self.progress.losses.extend(checkpoint.progress.get("loss_first", []))
        self.progress.step = checkpoint.steps
        self.notes.append(f"resumed after step {checkpoint.steps}")

    def _fingerprint(self) -> str:
        """What must be equal for a resumed run to be the same run."""
        trainer, how = self.trainer, self.how
        digest = hashlib.sha256()
        parts = (trainer.loss, trainer.optimizer, trainer.trainable, trainer.clip_norm)
        # Whether exact techniques are used makes no difference to a run.
        lossy = () if trainer.activations in EXACT else (trainer.activations,)
        for part in (*parts, trainer.precision, *lossy):
            digest.update(repr(part).encode())
        numbers = (trainer.micro_batches, trainer.seed, how.batch_size, how.seed, len(self.train))
        digest.update(repr(numbers).encode())
        for name, value in sorted(trainer.model.graph.initializers.items()):
            digest.update(f"{name}|{type_of(value)}".encode())
        for node in trainer.model.graph:
            operands = [value.name if value is not None else "" for value in node.inputs]
            digest.update(f"{node.op_identifier()}|{operands}".encode())
        digest.update(self._data.encode())
        return digest.hexdigest()

    @cached_property
    def _data(self) -> str:
        """What tells this data from other data of the same shape."""
        return digest_of({**self.train.inputs, LABELS: self.train.labels})

    def _validate(self) -> float | None:
        if self.validation is None:
            return None
        accuracy = evaluate(self.trainer, self.validation, self.how.batch_size)
        self.progress.accuracy = accuracy
        return accuracy


def _tell_shared(trainer: Trainer) -> None:
    """Warn of parameters that several nodes read: that may not be what was meant."""
    names = shared(trainer.model, trainer.trainable)
    if not names:
        return
    more = ", ..." if len(names) > NAMED else ""
    log.warning(
        "parameters that several nodes read are trained as one for them: %d (%s%s). PyTorch's "
        "exporter makes one of equal parameters, such as norms that are new; coexec.from_torch "
        "keeps them apart",
        len(names),
        ", ".join(names[:NAMED]),
        more,
    )


@contextmanager
def _interrupts(at_once: Callable[[], bool]) -> Iterator[threading.Event]:
    """Ctrl-C sets an event, so that no step is cut in half; a second Ctrl-C interrupts at once.

    While ``at_once()``, the first one does.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(_number: int, _frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)
        if at_once():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


def evaluate(trainer: Trainer, dataset: Dataset, batch_size: int) -> float | None:
    """Accuracy on all samples in inference form; ``None`` for losses that are not about classes."""
    predictions = []
    output = str(trainer.model.graph.outputs[0].name)
    for start in range(0, len(dataset), batch_size):
        rows = np.arange(start, start + batch_size)
        # The last batch is filled up with its last sample: one program serves all batches.
        batch = dataset.take(np.minimum(rows, len(dataset) - 1))
        prediction = trainer.predict(batch.inputs)[output]
        predictions.append(prediction[: len(dataset) - start])
    predicted = np.concatenate(predictions)
    _check_held_out(trainer.loss, dataset.labels, TensorType.of(predicted))
    return trainer.loss.accuracy(predicted, dataset.labels)


def _check_early(trainer: Trainer, validation: Dataset) -> None:
    """Look at held-out labels before training, if the model leaves only its batch size open."""
    output = trainer.model.graph.outputs[0]
    sizes = output.shape.dims[1:] if output.shape is not None else (None,)
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if len(fixed) == len(sizes) and output.dtype is not None:
        kind = TensorType((len(validation), *fixed), np.dtype(output.dtype.numpy()))
        _check_held_out(trainer.loss, validation.labels, kind)


def _check_held_out(loss: Loss, labels: Array, prediction: TensorType) -> None:
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
