"""Warnings of parameters that are one for several nodes, or were before they were exported."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from coexec.autodiff.selection import copies, shared
from coexec.training.trainer import Trainer

log = logging.getLogger(__name__)
NAMED = 3
"""Parameters that a warning names."""


def tell_shared(trainer: Trainer) -> None:
    """Warn of parameters that several nodes read: that may not be what was meant."""
    names = shared(trainer.model, trainer.recipe.trainable)
    if names:
        log.warning(
            "parameters that several nodes read are trained as one for them: %s. PyTorch's "
            "exporter makes one of equal parameters, such as norms that are new; coexec.from_torch "
            "keeps them apart",
            _listed(names),
        )


def tell_copies(trainer: Trainer) -> None:
    """Warn of parameters that are others transposed: they were one, and now go their own ways."""
    pairs = copies(trainer.model, trainer.recipe.trainable)
    if pairs:
        log.warning(
            "parameters with the same values, transposed, are trained apart: %s. Where they were "
            "one weight, as tied embeddings are, export with do_constant_folding=False and "
            "training=TrainingMode.TRAINING, or by coexec.from_torch",
            _listed([f"{first} and {second}" for first, second in pairs]),
        )


def _listed(names: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    more = ", ..." if len(names) > NAMED else ""
    return f"{len(names)} ({', '.join(names[:NAMED])}{more})"
