"""Techniques that make a training step smaller: a list that grows by a line each.

A technique offers other recipes for the same training. Rematerialisation is not in the list: it
needs no other recipe and goes on top of every one (:mod:`coexec.memory.choose`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import onnx_ir as ir

from coexec.core.types import Array
from coexec.passes.batch_statistics import nodes_with_batch_statistics
from coexec.step_builder import Recipe

REMATERIALISATION = "rematerialisation"


class Technique(Protocol):
    """``exact``: gradients stay what they are, but for the order of sums."""

    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    def refusal(self, model: ir.Model, recipe: Recipe, arrays: Mapping[str, Array]) -> str:
        """Why it cannot be used on this training; "" if it can."""

    def variants(self, recipe: Recipe, arrays: Mapping[str, Array]) -> Sequence[Recipe]:
        """The recipes that it offers, mildest first."""


@dataclass(frozen=True)
class MicroBatches:
    """Parts of the batch one after the other, their gradients added up.

    With ghost statistics, each part is normalised by its own: Hoffer, Hubara, Soudry, "Train
    longer, generalize better", 2017 (arXiv 1705.08741).
    """

    counts: tuple[int, ...] = (2, 4, 8, 16)
    name: str = "micro-batches"
    exact: bool = True

    def refusal(self, model: ir.Model, recipe: Recipe, arrays: Mapping[str, Array]) -> str:
        if recipe.micro_batches > 1:
            return f"{recipe.micro_batches} are asked for already"
        if recipe.batch_statistics == "whole":
            return statistics_refusal(model)
        return ""

    def variants(self, recipe: Recipe, arrays: Mapping[str, Array]) -> Sequence[Recipe]:
        sizes = {array.shape[0] if array.ndim else 1 for array in arrays.values()}
        fitting = [c for c in self.counts if all(s % c == 0 and s > c for s in sizes)]
        return [replace(recipe, micro_batches=count) for count in fitting]


TECHNIQUES: tuple[Technique, ...] = (MicroBatches(),)


def statistics_refusal(model: ir.Model) -> str:
    """Why a batch of this model must stay whole; "" if it need not."""
    nodes = nodes_with_batch_statistics(model)
    if not nodes:
        return ""
    return (
        f"{len(nodes)} BatchNormalization nodes ({nodes[0]!r}, ...) take statistics over the whole "
        "batch; batch_statistics='ghost' takes those of each part"
    )
