"""What a training computes: graphs of a step, of accumulation and update, of inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, get_args

import onnx_ir as ir

from coexec.autodiff.average import average_name
from coexec.autodiff.losses import Loss
from coexec.autodiff.optimizers import Optimizer, matches
from coexec.autodiff.states import UpdateRule
from coexec.autodiff.step import (
    StepGraph,
    build_accumulation,
    build_inference,
    build_step,
    build_update,
)
from coexec.base.arguments import check_count, check_number
from coexec.base.collection import collection_paused
from coexec.base.errors import UsageError
from coexec.core.plan import Plan
from coexec.core.processor import Processor, require_float16
from coexec.core.types import Array
from coexec.frontend.specialise import specialise
from coexec.ops.batch_norm import statistics_of
from coexec.ops.node import is_parameter, type_of
from coexec.ops.table import OPERATORS
from coexec.passes.compress_activations import Activations, compress_activations
from coexec.passes.divide_backward import divide_backward
from coexec.passes.expand import expand
from coexec.passes.inference_mode import inference_mode, stored_statistics
from coexec.passes.keep_gates import keep_gates
from coexec.passes.kept import kept_bytes
from coexec.passes.mixed_precision import mixed_precision
from coexec.passes.training_mode import training_mode

Precision = Literal["float32", "mixed"]
BatchStatistics = Literal["whole", "ghost", "frozen"]
"""What batch normalisation goes by in training: the statistics of the whole batch, those of each
part that a memory budget makes of it, or the stored ones, which stay as they are."""
Updates = Literal["together", "early"]
"""Whether parameters change once all gradients are there, or each as soon as it can."""
Kind = Literal["step", "accumulate", "update", "inference"]
TRAINING: tuple[Kind, ...] = ("step", "accumulate")
"""Kinds with a loss and gradients."""


class _Gradients(TypedDict):
    """What a step and an accumulation have in common."""

    trainable: tuple[str, ...]
    scaled: bool


@dataclass(frozen=True)
class Recipe:
    """What a training step computes.

    ``trainable`` says what is trained (:mod:`coexec.autodiff.selection`; all if empty).
    ``clip_value`` bounds each number of the gradients, ``clip_norm`` their joint norm. ``ema`` is
    the decay of exponential moving averages of all that is trained: predictions and saved models
    have those. ``micro_batches`` splits each batch along its first axis, adds up gradients and
    updates once: by the loss of the whole batch, where parts may have more labels that count than
    others. ``seed`` draws dropout masks.

    ``precision`` ``mixed`` computes products, convolutions and what is between them in float16,
    with float32 parameters and a dynamic loss scale; a step whose gradients overflow changes
    nothing but that scale.

    ``activations`` says how what the backward pass needs is kept until then (all ways:
    :mod:`coexec.passes.compress_activations`): ``full``, exactly in fewer bytes (``mask``), or with
    an error of the gradients (``int8``, ``int4``, ``pooled``, ``auto``). ``batch_statistics`` are
    those of :data:`BatchStatistics`. With ``early`` ``updates``, large parameters change in the
    backward pass: gradients do not wait for each other. ``paging`` is the share of activations
    that leave the device between the two passes, ``divided`` that of the widest layers whose
    backward pass goes by parts of the batch (:mod:`coexec.passes.divide_backward`). Kernels that
    take more than ``workspace`` bytes to work in do with less where they can (0: as they like).

    Raises:
        UsageError: a way to keep activations, to take batch statistics or to update that is not
            known, early updates where gradients are looked at together first, or a norm, number
            of micro-batches or share that is none.
    """

    loss: Loss
    optimizer: Optimizer
    trainable: tuple[str, ...] = ()
    clip_norm: float | None = None
    clip_value: float | None = None
    ema: float | None = None
    micro_batches: int = 1
    seed: int = 0
    precision: Precision = "float32"
    activations: Activations = "full"
    batch_statistics: BatchStatistics = "whole"
    updates: Updates = "together"
    paging: float = 0.0
    divided: float = 0.0
    workspace: int = 0

    def __post_init__(self) -> None:
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        if self.ema is not None:
            check_number("ema", self.ema, below=1)
        check_count("micro_batches", self.micro_batches)
        check_number("paging", self.paging)
        check_number("workspace", self.workspace)
        _require("activations", self.activations, get_args(Activations))
        _require("batch statistics", self.batch_statistics, get_args(BatchStatistics))
        _require("updates", self.updates, get_args(Updates))
        if not 0 <= self.paging <= 1:
            raise UsageError(f"paging is a share of the activations, from 0 to 1: {self.paging}")
        if not 0 <= self.divided <= 1:
            raise UsageError(f"divided is a share of the widest, from 0 to 1: {self.divided}")
        if self.updates == "early" and (reason := self.looks_at_gradients):
            raise UsageError(f"updates cannot come early: {reason}")

    @property
    def rule(self) -> UpdateRule:
        """What is done with gradients."""
        return UpdateRule(self.optimizer, self.clip_norm, self.clip_value, self.ema)

    @property
    def looks_at_gradients(self) -> str:
        """Why all gradients must be there before the first parameter changes; "" if need not be."""
        if self.micro_batches > 1:
            return ""  # what comes early is their addition to sums, which a bad step clears
        if self.clip_norm is not None:
            return "clipping takes the norm of all gradients together"
        if self.precision == "mixed":
            return "a step with one gradient too large for float16 must change nothing"
        return ""


def in_training_form(model: ir.Model, seed: int, statistics: BatchStatistics = "whole") -> ir.Model:
    """``model`` (specialised; it may be changed) as training runs it: all that can be has a rule.

    Operators without a gradient rule are replaced by their bodies.

    Raises:
        UsageError: statistics are to be frozen, and the model itself reads new ones.
    """
    frozen = statistics == "frozen"
    if frozen and (left := stored_statistics(model)):
        raise UsageError(
            f"batch statistics cannot be frozen: the model reads the new ones of {left[0]!r}"
        )
    training_mode(model, seed, new_statistics=not frozen)
    while expand(model, lambda call: OPERATORS[call.identifier].gradient is None):
        model = specialise(model, {}, {})
    keep_gates(model.graph)
    return model


class StepBuilder:
    """Builds the graphs of a training of ``model``; nothing is placed or compiled."""

    def __init__(self, model: ir.Model, recipe: Recipe) -> None:
        self.model = model
        self.recipe = recipe
        check_patterns(model, recipe.optimizer)
        self._states: dict[str, str] = {}

    def of(self, recipe: Recipe) -> StepBuilder:
        """The builder of the same training by another recipe."""
        return self if recipe == self.recipe else StepBuilder(self.model, recipe)

    @collection_paused()
    def build(self, kind: Kind, arrays: Mapping[str, Array]) -> StepGraph:
        """The graph of ``kind`` (all but ``update``) on inputs of these shapes."""
        model = specialise(self.model, {name: a.shape for name, a in arrays.items()}, {})
        if kind == "inference":
            inference_mode(model)
            return build_inference(model, self._read_states(arrays))
        recipe = self.recipe
        model = in_training_form(model, recipe.seed, recipe.batch_statistics)
        scaled = recipe.precision == "mixed"
        if scaled:
            mixed_precision(model)
        how: _Gradients = {"trainable": recipe.trainable, "scaled": scaled}
        if kind == "accumulate":
            graph = build_accumulation(model, recipe.loss, **how)
        else:
            graph = build_step(model, recipe.loss, recipe.rule, **how)
        self._states = self._states or self._states_of(graph)
        full = kept_bytes(graph.model.graph)
        if recipe.divided:
            divide_backward(graph.model.graph, recipe.divided)
        compress_activations(
            graph.model, recipe.activations, (graph.labels,) if graph.labels else ()
        )
        early = recipe.updates == "early"
        return replace(
            graph,
            uncompressed_bytes=full,
            early=early,
            paging=recipe.paging,
            workspace=recipe.workspace,
        )

    def build_all(self, kind: Kind, arrays: Mapping[str, Array]) -> dict[Kind, StepGraph]:
        """All graphs of a training step: one, or that of an accumulation and its update."""
        first = self.build(kind, arrays)
        return {kind: first} | ({"update": self.build_update(first)} if kind != "step" else {})

    def build_update(self, accumulation: StepGraph) -> StepGraph:
        """The optimizer alone, on the gradients that ``accumulation`` leaves behind."""
        recipe = self.recipe
        parameters = {name: accumulation.initial[name] for name in accumulation.trainable}
        opset = accumulation.model.graph.opset_imports.get("", 21)
        return build_update(parameters, recipe.rule, opset, accumulation.channels)

    def _states_of(self, graph: StepGraph) -> dict[str, str]:
        """States that a prediction reads, by the initializers that they stand for."""
        found = {name: name for name in graph.parameters}
        if self.recipe.ema is not None:
            found |= {name: average_name(name) for name in graph.trainable}
        return found

    def _read_states(self, arrays: Mapping[str, Array]) -> dict[str, str]:
        """Those of initializers that training changes; before any step, of those that it would."""
        if not self._states:
            self.build("step" if self.recipe.micro_batches == 1 else "accumulate", arrays)
        return self._states


def check_followed(plan: Plan | None, recipe: Recipe) -> None:
    """Refuse a plan that steps by a recipe cannot follow.

    Raises:
        UsageError: with the reason.
    """
    if plan is None:
        return
    if recipe.micro_batches > 1 or recipe.updates == "early" or recipe.paging:
        raise UsageError(
            "a plan is of whole, unpaged steps and says when they update: leave it out"
        )
    if plan.early and (reason := recipe.looks_at_gradients):
        raise UsageError(f"the plan updates early: {reason}")


def check_patterns(model: ir.Model, optimizer: Optimizer) -> None:
    """Refuse patterns of an optimizer that are about no parameter.

    Raises:
        UsageError: with the pattern.
    """
    initializers, statistics = model.graph.initializers, statistics_of(model.graph)
    known = [(n, v) for n, v in initializers.items() if is_parameter(v) and v not in statistics]
    for pattern in optimizer.patterns:
        if not any(matches(pattern, name, type_of(value)) for name, value in known):
            names = ", ".join(name for name, _ in known)
            raise UsageError(f"{pattern!r} matches no parameter; known: {names}")


def check_precision(precision: str, processors: Mapping[str, Processor]) -> None:
    """Refuse an unknown precision, or one that the first processor has no arithmetic for.

    Raises:
        UsageError: with what is known, or the processor that lacks float16.
    """
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise UsageError(f"precision {precision!r} is unknown for training; known: {known}")
    if precision == "mixed":
        require_float16(processors, "precision 'mixed'")


def _require(what: str, chosen: str, known: tuple[str, ...]) -> None:
    if chosen not in known:
        raise UsageError(f"{what} {chosen!r} are unknown; known: {', '.join(known)}")
