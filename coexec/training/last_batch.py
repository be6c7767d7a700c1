"""What a training needs for steps on a batch that is smaller than the others."""

from __future__ import annotations

from typing import get_args

from coexec.base.errors import DataError, UsageError
from coexec.training.data import LastBatch
from coexec.training.evaluation import is_open
from coexec.training.trainer import Trainer


def check_last_batch(trainer: Trainer, samples: int, batch_size: int, last: LastBatch) -> None:
    """Refuse to keep a last batch that this training has no step for.

    Raises:
        UsageError: no way to treat it, or steps are made for one size: by a plan, or within a
            budget that the memory of a second program would not keep.
        DataError: the model takes batches of one size alone, or parts do not divide the last one.
    """
    if last not in get_args(LastBatch):
        known = ", ".join(get_args(LastBatch))
        raise UsageError(f"last batch {last!r} is unknown; known: {known}")
    rest, parts = samples % batch_size, trainer.recipe.micro_batches
    if last == "drop" or not rest:
        return
    what = f"the last batch of {rest} samples cannot be kept"
    if not is_open(trainer):
        raise DataError(f"{what}: the model has a fixed batch")
    if rest % parts:
        raise DataError(f"{what}: it does not split into {parts} micro-batches")
    if trainer.followed is not None:
        raise UsageError(f"{what}: the plan that steps follow is for batches of {batch_size}")
    if trainer.memory.steps is not None:
        raise UsageError(f"{what}: the budget of memory is for one program, this takes a second")
