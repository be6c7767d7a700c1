"""States that are not of a training, or would change what it leaves as it is, are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from coexec.autodiff.loss_scale import without_scale
from coexec.autodiff.selection import select
from coexec.base.errors import CheckpointError
from coexec.core.types import Array, TensorType
from coexec.ops.batch_norm import statistics_of
from coexec.ops.node import constant_of, type_of
from coexec.steps.builder import Recipe

NAMED = 3
"""Names that an error lists."""


def check_of_model(model: ir.Model, state: Mapping[str, Array]) -> None:
    """Refuse a state of another model; what is not in it begins as the model has it.

    Raises:
        CheckpointError: no name in ``state`` is one of ``model``, or a shape is another.
    """
    given = without_scale(state)
    known = {name: value for name, value in model.graph.initializers.items() if name in given}
    if given and not known:
        raise CheckpointError(
            f"the state is of another model: it has {_some(list(given))}; this one has "
            f"{_some(list(model.graph.initializers))}"
        )
    for name, value in known.items():
        kind, wanted = TensorType(given[name].shape, given[name].dtype), type_of(value)
        if kind.shape != wanted.shape:
            raise CheckpointError(
                f"the state is of another model: {name!r} is {kind}, this one's is {wanted}"
            )


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
        raise CheckpointError(
            f"the state has other values than the model for what this training leaves as it is: "
            f"{_some(held)}. Start from a model with these values (what the "
            "other training saved), or train them, too"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
