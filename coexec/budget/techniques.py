"""Techniques that make a training step smaller: a list that grows by a line each.

A technique offers other recipes for the same training. Rematerialisation is not in the list: it
needs no other recipe and goes on top of every one (:mod:`coexec.memory.choose`). Techniques that
change what is computed are offered only where the user allows that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import onnx_ir as ir

from coexec.autodiff.losses import Loss, ModelLoss
from coexec.autodiff.optimizers import Optimizer
from coexec.base.units import bytes_text
from coexec.core.types import Array
from coexec.inputs import model_inputs
from coexec.memory.problem import StepProblem
from coexec.passes.batch_statistics import nodes_with_batch_statistics
from coexec.passes.compress_activations import Activations
from coexec.steps.builder import Recipe
from coexec.steps.pager import Pager

REMATERIALISATION = "rematerialisation"


@dataclass(frozen=True)
class Question:
    """What is to be trained: the model, the recipe as asked for, and a batch.

    ``lossy`` techniques may be used; ``half``: the processor has arithmetic in float16.
    ``pager`` plans what leaves the processor; ``unpaged`` says why nothing can, "" if it can.
    """

    model: ir.Model
    recipe: Recipe
    arrays: Mapping[str, Array]
    lossy: bool = False
    half: bool = False
    pager: Pager | None = None
    unpaged: str = ""


@dataclass(frozen=True)
class Offer:
    """Another recipe; ``detail`` says in words what its technique is set to.

    A ``last_resort`` is looked at only where nothing fits without.
    """

    recipe: Recipe
    detail: str
    last_resort: bool = False


class Technique(Protocol):
    """``exact``: gradients stay what they are, but for the order of sums.

    ``changes`` names the field of a recipe that it sets; of two for one field, one is used.
    """

    @property
    def name(self) -> str: ...

    @property
    def changes(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    def refusal(self, question: Question) -> str:
        """Why it cannot be used on this training; "" if it can."""

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        """What it makes of a recipe (that asked for, or another technique's), mildest first."""


@dataclass(frozen=True)
class Masks:
    """Bits where only a comparison reads an activation, taps instead of pooled operands.

    The second offer makes bits of every comparison: where activations are recomputed, the gradient
    of a normalisation then needs two tensors of its size instead of three.
    """

    name: str = "masks"
    changes: str = "activations"
    exact: bool = True

    def refusal(self, question: Question) -> str:
        return _kept_otherwise(question.recipe)

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        return [
            Offer(replace(recipe, activations="mask"), "of Relu, dropout, pooling"),
            Offer(replace(recipe, activations="bits"), "of all activations that cut off"),
        ]


@dataclass(frozen=True)
class MicroBatches:
    """Parts of the batch one after the other, their gradients added up.

    With ghost statistics, each part is normalised by its own: Hoffer, Hubara, Soudry, "Train
    longer, generalize better", 2017 (arXiv 1705.08741).
    """

    counts: tuple[int, ...] = (2, 4, 8, 16)
    name: str = "micro-batches"
    changes: str = "micro_batches"
    exact: bool = True

    def refusal(self, question: Question) -> str:
        recipe = question.recipe
        if recipe.micro_batches > 1:
            return f"{recipe.micro_batches} are asked for already"
        if fixed := fixed_batch(question.model) or loss_refusal(recipe.loss):
            return fixed
        if recipe.batch_statistics == "whole":
            return statistics_refusal(question.model)
        return ""

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        sizes = {array.shape[0] if array.ndim else 1 for array in question.arrays.values()}
        fitting = [c for c in self.counts if all(s % c == 0 and s > c for s in sizes)]
        return [Offer(replace(recipe, micro_batches=c), f"{c} parts") for c in fitting]


@dataclass(frozen=True)
class EarlyUpdates:
    """Large parameters change as soon as they can (:mod:`coexec.passes.order_for_memory`).

    Their gradients need not wait for each other. A loss that is not finite still changes nothing:
    it is looked at before the backward pass.
    """

    name: str = "early updates"
    changes: str = "updates"
    exact: bool = True

    def refusal(self, question: Question) -> str:
        return question.recipe.looks_at_gradients

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        if recipe.looks_at_gradients:
            return []
        return [Offer(replace(recipe, updates="early"), "of large parameters")]


@dataclass(frozen=True)
class DividedLayers:
    """The widest layers go back in parts of the batch (:mod:`coexec.passes.divide_backward`).

    Wide is what has at least such a share of the elements of the largest activation.
    """

    shares: tuple[float, ...] = (0.8, 0.35)
    name: str = "divided layers"
    changes: str = "divided"
    exact: bool = True

    def refusal(self, question: Question) -> str:
        if question.recipe.divided:
            return "asked for already"
        if question.recipe.precision == "mixed":
            return "its sums over the batch would be in float16"
        return ""

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        if recipe.precision == "mixed":
            return []
        words = "with activations of {:.0%} of the largest or more"
        return [
            Offer(replace(recipe, divided=share), words.format(share), last_resort=index > 0)
            for index, share in enumerate(self.shares)
        ]


@dataclass(frozen=True)
class RoundedActivations:
    """Activations kept in blocks of integers (:mod:`coexec.passes.compress_activations`)."""

    ways: tuple[Activations, ...] = ("int8", "int4")
    name: str = "rounded activations"
    changes: str = "activations"
    exact: bool = False

    def refusal(self, question: Question) -> str:
        return _kept_otherwise(question.recipe)

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        return [Offer(replace(recipe, activations=way), way) for way in self.ways]


@dataclass(frozen=True)
class SmallStates:
    """States of the optimizer in 8 bits (``ops/optim_8bit.py``)."""

    name: str = "8-bit optimizer state"
    changes: str = "optimizer"
    exact: bool = False

    def refusal(self, question: Question) -> str:
        bits = state_bits(question.recipe.optimizer)
        if bits is None:
            return "this optimizer keeps its states as they are"
        return "asked for already" if bits == 8 else ""

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        return [Offer(with_state_bits(recipe, 8), "of large parameters")]


@dataclass(frozen=True)
class HalfPrecision:
    """Activations and gradients in float16, with a loss scale."""

    name: str = "half precision"
    changes: str = "precision"
    exact: bool = False

    def refusal(self, question: Question) -> str:
        if question.recipe.precision == "mixed":
            return "asked for already"
        return "" if question.half else "the processor has no arithmetic in float16"

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        if recipe.updates == "early":
            return []  # a gradient too large for float16 would come to light too late
        return [Offer(replace(recipe, precision="mixed"), "float16")]


@dataclass(frozen=True)
class Paging:
    """Activations leave the device between the passes (:mod:`coexec.memory.paging`)."""

    shares: tuple[float, ...] = (0.5, 1.0)
    name: str = "paging"
    changes: str = "paging"
    exact: bool = True

    def refusal(self, question: Question) -> str:
        return "asked for already" if question.recipe.paging else question.unpaged

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        return [Offer(replace(recipe, paging=s), f"{s:.0%} of what is kept") for s in self.shares]


@dataclass(frozen=True)
class SmallWorkspace:
    """Kernels that work in much memory beside their operands do with less, which takes longer.

    Only those beyond ``limit`` bytes, and only where nothing fits without.
    """

    limit: int = 1 << 19
    name: str = "small working memory"
    changes: str = "workspace"
    exact: bool = True

    def refusal(self, question: Question) -> str:
        return "asked for already" if question.recipe.workspace else ""

    def offers(self, question: Question, recipe: Recipe) -> Sequence[Offer]:
        detail = f"of kernels that take more than {bytes_text(self.limit)}"
        return [Offer(replace(recipe, workspace=self.limit), detail, last_resort=True)]


EXACT: tuple[Technique, ...] = (Masks(), MicroBatches())
LOSSY: tuple[Technique, ...] = (RoundedActivations(), SmallStates(), HalfPrecision())
TECHNIQUES = (*EXACT, *LOSSY, DividedLayers(), EarlyUpdates(), Paging(), SmallWorkspace())
"""What stands behind others goes on top of them."""


def state_bits(optimizer: Optimizer) -> int | None:
    """Bits of the states of an optimizer that lets one choose; none: it does not."""
    found = getattr(optimizer, "state_bits", None)
    return found if isinstance(found, int) else None


def with_state_bits(recipe: Recipe, bits: int) -> Recipe:
    """The recipe with states of so many bits, for an optimizer that lets one choose."""
    optimizer = replace(recipe.optimizer, state_bits=bits)  # type: ignore[call-arg]
    return replace(recipe, optimizer=optimizer)


def fixed_batch(model: ir.Model) -> str:
    """Why a batch of this model has one size only; "" if its inputs leave it open."""
    for value in model_inputs(model):
        if value.shape is not None and len(value.shape) and isinstance(value.shape[0], int):
            size = value.shape[0]
            return f"input {value.name!r} has a fixed batch of {size}; load the model without it"
    return ""


def loss_refusal(loss: Loss) -> str:
    """Why the mean of a loss over parts need not be that over the batch; "" if it is."""
    if isinstance(loss, ModelLoss):
        return "the loss is the model's own, of a whole batch; --micro-batches takes that of parts"
    return ""


def statistics_refusal(model: ir.Model) -> str:
    """Why a batch of this model must stay whole; "" if it need not."""
    nodes = nodes_with_batch_statistics(model)
    if not nodes:
        return ""
    return (
        f"{len(nodes)} BatchNormalization nodes ({nodes[0]!r}, ...) take statistics over the whole "
        "batch; --batch-statistics ghost takes those of each part, frozen the stored ones"
    )


def not_worth(question: Question, problem: StepProblem, recipe: Recipe) -> str:
    """Why the pages of a recipe are never better than recomputing; "" if they may be.

    ``problem`` is that of the step as asked for. Never better is what takes as much time as the
    whole forward pass once more.
    """
    if question.pager is None or recipe.paging == question.recipe.paging:
        return ""
    lost_us = question.pager.lost_us(problem, recipe.paging)
    again_us = sum(node.cost_us for node in problem.nodes if node.forward)
    if lost_us < again_us:
        return ""
    link = question.pager.link
    return (
        f"the way to {link.to} and back is too slow ({1e-3 / link.out_us_per_byte:.2g} and "
        f"{1e-3 / link.in_us_per_byte:.2g} GB/s): a step would take {lost_us / 1e3:.1f} ms longer, "
        f"by computing its whole forward pass again {again_us / 1e3:.1f} ms"
    )


def _kept_otherwise(recipe: Recipe) -> str:
    way = recipe.activations
    return "" if way == "full" else f"activations are kept as asked for ({way})"
