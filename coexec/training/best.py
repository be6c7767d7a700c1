"""Evaluations of a training on held-out data, and the parameters of the best one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coexec.autodiff.average import AVERAGE
from coexec.base.errors import CheckpointError
from coexec.core.types import Array
from coexec.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from coexec.training.trainer import Trainer

BEST = "best"
"""Folder, among the checkpoints of a training, of its best parameters."""


class Validation(NamedTuple):
    """Loss and accuracy on held-out data after ``step`` steps."""

    step: int
    loss: float
    accuracy: float | None


class BestSoFar:
    """All evaluations of a training, and the parameters of the one with the lowest loss.

    With ``checkpoints``, the folder of the training's own, parameters are kept in files too, for a
    training that is resumed.
    """

    def __init__(self, trainer: Trainer, checkpoints: Path | None) -> None:
        self._trainer = trainer
        self._folder = None if checkpoints is None else checkpoints / BEST
        self.validations: list[Validation] = []
        self._parameters: dict[str, Array] = {}

    @property
    def validation(self) -> Validation | None:
        """The one with the lowest loss, the first of equal ones."""
        return min(self.validations, key=lambda each: _rank(each.loss), default=None)

    @property
    def step(self) -> int:
        """Steps that the best parameters have seen."""
        best = self.validation
        return 0 if best is None else best.step

    @property
    def waited(self) -> int:
        """Evaluations since the best one."""
        best = self.validation
        return 0 if best is None else len(self.validations) - 1 - self.validations.index(best)

    def add(self, validation: Validation) -> bool:
        """Take note of an evaluation; whether it is the best."""
        self.validations.append(validation)
        return self.validation is validation

    def keep(self, fingerprint: str) -> None:
        """Keep the parameters as they are now."""
        state = self._trainer.state()
        known = self._trainer.model.graph.initializers
        self._parameters = {n: a for n, a in state.items() if n.removesuffix(AVERAGE) in known}
        if self._folder is not None:
            steps = self._trainer.steps
            save_checkpoint(self._folder, Checkpoint(self._parameters, steps, fingerprint, {}))

    def put_back(self) -> bool:
        """Go back to the parameters that were kept; whether there are some."""
        if self._parameters:
            state = {**self._trainer.state(), **self._parameters}
            self._trainer.load_state(state, self._trainer.steps)
        return bool(self._parameters)

    def resume(self, validations: Iterable[Sequence[Any]], fingerprint: str) -> None:
        """Go on behind evaluations of a training that was interrupted.

        Raises:
            CheckpointError: the parameters of the best one are not there.
        """
        self.validations = [Validation(*each) for each in validations]
        if self._folder is None or not self.validations:
            return
        path = self._folder / f"checkpoint-{self.step:09d}.npz"
        if not path.exists():
            raise CheckpointError(
                f"the best parameters, those after step {self.step}, were not kept in "
                f"{self._folder}: resume without keeping the best"
            )
        kept = load_checkpoint(path)
        if kept.fingerprint != fingerprint:
            raise CheckpointError(f"checkpoint {path} belongs to another training")
        self._parameters = dict(kept.state)


def _rank(loss: float) -> float:
    """Losses in order; what is none comes last."""
    return loss if math.isfinite(loss) else math.inf
