"""What a training leaves as it is: states that would change it are refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.autodiff.selection import select
from coexec.base.errors import CheckpointError
from coexec.core.types import Array
from coexec.ops.batch_norm import statistics_of
from coexec.ops.node import constant_of
from coexec.steps.builder import Recipe

NAMED = 3
"""Names that an error lists."""


def check_held(model: ir.Model, recipe: Recipe, state: Mapping[str, Array]) -> None:
    """Refuse values for what is constant in the steps of ``recipe``: they would not get there.

    Raises:
        CheckpointError: parameters that are not trained, or statistics that are frozen, have
            others in ``state`` than in ``model``.
    """
    changed = {each.name for each in select(model, recipe.trainable)}
    if recipe.batch_statistics != "frozen":
        changed |= {str(value.name) for value in statistics_of(model.graph)}
    known = {
        name: constant_of(value)
        for name, value in model.graph.initializers.items()
        if name in state and name not in changed
    }
    held = [n for n, a in known.items() if a is not None and not np.array_equal(a, state[n])]
    if held:
        more = ", ..." if len(held) > NAMED else ""
        raise CheckpointError(
            f"the state has other values than the model for what this training leaves as it is: "
            f"{', '.join(held[:NAMED])}{more}. Start from a model with these values (what the "
            "other training saved), or train them, too"
        )
