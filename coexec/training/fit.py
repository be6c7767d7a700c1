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

from coexec.base.errors import CheckpointError, DataError, NonFiniteLoss, UsageError
from coexec.core.events import Trace
from coexec.core.timeline import clock_of
from coexec.ops.node import type_of
from coexec.passes.compress_activations import EXACT
from coexec.training.best import BestSoFar, Validation
from coexec.training.checkpoint import (
    Checkpoint,
    digest_of,
    latest_checkpoint,
    require_new,
    save_checkpoint,
)
from coexec.training.computed import Earlier, choose_as_before, record_of
from coexec.training.data import Dataset, LastBatch, batch_count, batches
from coexec.training.evaluation import check_early, evaluate
from coexec.training.indices import check_indices
from coexec.training.last_batch import check_last_batch
from coexec.training.probabilities import tell_probabilities
from coexec.training.tied import tell_copies, tell_shared
from coexec.training.trainer import Trainer

log = logging.getLogger(__name__)


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
    validation_loss: float | None = None


@dataclass(frozen=True)
class FitOptions:
    """What :func:`fit` does: epochs, batches, checkpoints every so many steps (0: every epoch).

    Held-out data are evaluated every ``validate_every`` epochs (0: at the end alone) and at the
    end. With ``patience``, training ends when so many evaluations in a row had no lower loss than
    the best before; with ``keep_best``, the parameters of the lowest one are what is left in the
    end. ``last_batch`` says whether samples that do not fill a batch are left out of an epoch
    (``drop``) or are a batch of their own (``keep``). ``trace`` collects the events of the first
    ``traced_steps`` steps.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_every: int = 0
    resume: bool = False
    trace: Trace | None = None
    traced_steps: int = 10
    validate_every: int = 1
    patience: int = 0
    keep_best: bool = False
    last_batch: LastBatch = "drop"


@dataclass(frozen=True)
class Result:
    """Outcome of a training: ``steps`` in all, ``steps_run`` of them in this process.

    ``accuracy`` and ``validation_loss`` are those of the held-out data, if there are any, with the
    parameters that are left: those after step ``kept_step``. ``validations`` are all there were.
    """

    steps: int
    steps_run: int
    loss_first: float
    loss_last: float
    step_ms_median: float
    accuracy: float | None
    notes: tuple[str, ...] = ()
    validation_loss: float | None = None
    validations: tuple[Validation, ...] = ()
    kept_step: int = 0


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
        check_indices(trainer.model, train.inputs, "training data")
        if validation is not None:
            check_indices(trainer.model, validation.inputs, "held-out data")
        _check_evaluations(trainer, validation, how)
        check_last_batch(trainer, len(train), how.batch_size, how.last_batch)
        self.trainer, self.train, self.validation = trainer, train, validation
        self.how, self.observer = how, observer
        self.per_epoch = batch_count(len(train), how.batch_size, how.last_batch)
        self.progress = Progress(total_steps=self.per_epoch * how.epochs)
        self.notes: list[str] = []
        tell_shared(trainer)
        tell_copies(trainer)
        tell_probabilities(trainer)
        self.earlier = Earlier({})
        self.saved_at = -1
        self.whole = True
        self.best = BestSoFar(trainer, how.checkpoint if how.keep_best else None)
        self.interrupted = threading.Event()

    def run(self) -> Result:
        if self.how.checkpoint is not None and self.how.resume:
            self._resume(self.how.checkpoint)
        elif self.how.checkpoint is not None:
            require_new(self.how.checkpoint)
        with _interrupts(at_once=lambda: not self.progress.step_ms) as interrupted:
            self.interrupted = interrupted
            try:
                for epoch in range(self.trainer.steps // self.per_epoch, self.how.epochs):
                    if self._hopeless():
                        break
                    self._epoch(epoch)
            finally:
                # Also after Ctrl-C and a bad loss: the state is that after the last whole step.
                if self.whole:
                    self._save()
        losses, last = self.progress.losses, self._last_validation()
        return Result(
            steps=self.trainer.steps,
            steps_run=len(self.progress.step_ms),
            loss_first=losses[0] if losses else float("nan"),
            loss_last=losses[-1] if losses else float("nan"),
            step_ms_median=median(self.progress.step_ms) if self.progress.step_ms else float("nan"),
            accuracy=None if last is None else last.accuracy,
            notes=tuple(self.notes),
            validation_loss=None if last is None else last.loss,
            validations=tuple(self.best.validations),
            kept_step=self.trainer.steps if last is None else last.step,
        )

    def _epoch(self, epoch: int) -> None:
        done = self.trainer.steps - epoch * self.per_epoch
        self.progress.epoch = epoch
        clock = clock_of(self.trainer.processors.values())
        how = self.how
        for batch in batches(self.train, how.batch_size, how.seed, epoch, done, how.last_batch):
            start = clock()
            loss = self._step(batch)
            self.progress.step_ms.append((clock() - start) * 1e3)
            self._tell(self.earlier.differences(self.trainer))
            self.progress.losses.append(loss)
            self.progress.loss = loss
            self.progress.step = self.trainer.steps
            self.observer(self.progress)
            improved = self._validate_epoch(epoch)
            every = self.how.checkpoint_every or self.per_epoch
            if self.trainer.steps % every == 0 or improved:
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
        progress = {"loss_first": self.progress.losses[:1], "validations": self.best.validations}
        progress |= self.earlier.completed(record_of(self.trainer))
        checkpoint = Checkpoint(
            self.trainer.state(), self.trainer.steps, self._fingerprint(), progress
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
        self._tell(choose_as_before(self.trainer, checkpoint.progress))
        self.earlier = Earlier(checkpoint.progress)
        self.trainer.load_state(checkpoint.state, checkpoint.steps)
        self.progress.losses.extend(checkpoint.progress.get("loss_first", []))
        self.progress.step = checkpoint.steps
        self.best.resume(checkpoint.progress.get("validations", []), self._fingerprint())
        self.notes.append(f"resumed after step {checkpoint.steps}")

    def _tell(self, notes: list[str]) -> None:
        """Warn of something, and say it again in the end."""
        self.notes.extend(notes)
        for note in notes:
            log.warning("%s", note)

    def _fingerprint(self) -> str:
        """What must be equal for a resumed run to be the same run."""
        trainer, how = self.trainer, self.how
        digest = hashlib.sha256()
        recipe = trainer.recipe
        parts = (recipe.loss, recipe.optimizer, recipe.trainable, recipe.clip_norm)
        # Whether exact techniques are used makes no difference to a run.
        lossy = () if recipe.activations in EXACT else (recipe.activations,)
        more: list[object] = [] if recipe.ema is None else [recipe.ema]
        if recipe.clip_value is not None:
            more.append(("clip_value", recipe.clip_value))
        if recipe.batch_statistics == "frozen":
            more.append("frozen")
        if how.last_batch != "drop":
            more.append(how.last_batch)
        for part in (*parts, recipe.precision, *lossy, *more):
            digest.update(repr(part).encode())
        numbers = (recipe.micro_batches, recipe.seed, how.batch_size, how.seed, len(self.train))
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
        return digest_of(self.train.arrays)

    def _validate_epoch(self, epoch: int) -> bool:
        """Evaluate, if it is time; whether the parameters are the best so far and were kept."""
        how, every = self.how, self.how.validate_every
        ends = self.trainer.steps % self.per_epoch == 0
        due = every and (not (epoch + 1) % every or epoch + 1 == how.epochs)
        if self.validation is None or not due or not ends:
            return False
        best = self._validate(self.validation)
        if best and how.keep_best:
            self.best.keep(self._fingerprint())
        return best and how.keep_best

    def _validate(self, held_out: Dataset) -> bool:
        """Evaluate now; whether no evaluation before had as low a loss."""
        found = evaluate(self.trainer, held_out, self.how.batch_size)
        self.progress.accuracy, self.progress.validation_loss = found.accuracy, found.loss
        return self.best.add(Validation(self.trainer.steps, *found))

    def _hopeless(self) -> bool:
        """Whether the loss on held-out data has not become lower for too long."""
        patience = self.how.patience
        if not patience or self.best.waited < patience:
            return False
        self.notes.append(
            f"stopped after step {self.trainer.steps}: {self.best.waited} evaluations without a "
            f"lower loss than after step {self.best.step}"
        )
        return True

    def _last_validation(self) -> Validation | None:
        """That of the parameters that are left, after the best ones are back in their place."""
        if self.validation is None:
            return None
        if self.how.keep_best and self.best.put_back():
            return self.best.validation
        done = self.best.validations[-1:]
        if not done or done[0].step != self.trainer.steps:
            self._validate(self.validation)
        return self.best.validations[-1]


def _check_evaluations(trainer: Trainer, validation: Dataset | None, how: FitOptions) -> None:
    """Refuse held-out data that do not fit, and choices among evaluations that there are none of.

    Raises:
        DataError: there are no held-out data for them, or not such as the model takes.
        UsageError: there would be one evaluation alone.
    """
    chooses = how.patience or how.keep_best
    if validation is not None:
        check_early(trainer, validation, how.batch_size)
    elif chooses:
        raise DataError("patience and keep_best go by the loss on held-out data: give some")
    if chooses and not how.validate_every:
        raise UsageError(
            "patience and keep_best compare evaluations, and with validate_every 0 there is one, "
            "at the end: set it to the epochs between them"
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
