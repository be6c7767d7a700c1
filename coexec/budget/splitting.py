"""A step's programs by its recipe: one for a batch, or two for its parts and what they add up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.base.errors import DataError
from coexec.budget.settings import Setting
from coexec.core.types import Array
from coexec.steps.builder import Kind, Recipe, StepBuilder
from coexec.steps.resident import ResidentPrograms


def lay_out(
    programs: ResidentPrograms, model: ir.Model, setting: Setting, arrays: Mapping[str, Array]
) -> None:
    """Have all programs of a step on ``arrays`` ready, but for their memory."""
    builder = StepBuilder(model, setting.recipe)
    kind, pieces = part_of(setting.recipe, arrays)
    graph = builder.build(kind, pieces)
    programs.lay_out(kind, pieces, graph, setting.recompute)
    if kind == "accumulate":
        programs.lay_out("update", {}, builder.build_update(graph))


def part_of(recipe: Recipe, arrays: Mapping[str, Array]) -> tuple[Kind, dict[str, Array]]:
    """The graph that a step begins with, and what it computes on: a batch, or its first part.

    Raises:
        DataError: the batch does not divide.
    """
    count = recipe.micro_batches
    kind: Kind = "step" if count == 1 else "accumulate"
    return kind, {name: split(name, array, count)[0] for name, array in arrays.items()}


def split(name: str, array: Array, count: int) -> list[Array]:
    """``array`` in ``count`` parts of one size along its first axis.

    Raises:
        DataError: it does not divide.
    """
    if count == 1:
        return [array]
    if array.ndim == 0 or len(array) % count:
        raise DataError(
            f"{name!r}: a batch of {array.shape[:1]} does not split into {count} micro-batches"
        )
    return np.split(array, count)
