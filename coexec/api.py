"""The pipeline, one call a line: load, compile, run; and its training counterpart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from pathlib import Path
from types import UnionType
from typing import Any

import onnx_ir as ir

from coexec.autodiff.losses import Loss
from coexec.autodiff.optimizers import Optimizer
from coexec.base.arguments import check_count, check_texts
from coexec.base.errors import ModelError, UsageError
from coexec.base.knobs import PROCESSOR
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.frontend import load as load_model
from coexec.frontend.from_torch import from_torch as convert_torch
from coexec.passes.compress_activations import Activations
from coexec.passes.float16 import in_precision, precision_of
from coexec.placement.save import load_plan
from coexec.processors.find import open_processors
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.session import Session
from coexec.steps.builder import BatchStatistics, Precision, Recipe, Updates
from coexec.training.trainer import Trainer as BaseTrainer
from coexec.training.trainer import TrainerOptions

LAST_RESORT = "reference"
"""Nodes that no processor named by the user supports run here; sessions report them."""


def load(
    source: str | Path | bytes | ir.Model | Any,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> ir.Model:
    """Load, check and normalise an ONNX model (a path, bytes, an ``onnx.ModelProto``, an IR model).

    ``shapes`` binds inputs: ``{"x": (32, 1, 28, 28)}``. What stays open is bound by the data.

    Raises:
        ModelError: unreadable, unsafe or unsupported; the message lists every reason.
        UsageError: ``source`` is nothing of that kind, or ``shapes`` no whole numbers by name.
    """
    return load_model(source, _bound({} if shapes is None else shapes))


def _bound(shapes: object) -> dict[str, tuple[int, ...]]:
    """Shapes by name, as the front end takes them.

    Raises:
        UsageError: they are none.
    """
    try:
        if not isinstance(shapes, Mapping):
            raise TypeError("no mapping")
        return {name: tuple(index(size) for size in shape) for name, shape in shapes.items()}
    except TypeError as error:
        raise UsageError(
            f"shapes is {shapes!r}; it has to be whole numbers by name, such as "
            "{'x': (32, 1, 28, 28)}"
        ) from error


def from_torch(module: Any, example_inputs: tuple[Any, ...], **options: Any) -> ir.Model:
    """A PyTorch module as a model, through ``torch.onnx.export`` (needs PyTorch)."""
    return convert_torch(module, example_inputs, **options)


def compile(
    model: ir.Model,
    processors: Sequence[str] = (),
    mode: ExecutionMode = DEFAULT,
    plan: Plan | str | Path | None = None,
    carried: Mapping[str, str] | None = None,
    precision: str = "",
) -> Session:
    """Compile a model for inference on the named processors, in order of preference.

    With a ``plan`` of this model, or a file that ``coexec plan --save`` wrote of it, nodes and
    shares of nodes go where that says; no ``processors`` then means those of the plan.

    ``precision`` is ``float32`` or ``float16``, by default that of the file with the plan, else
    float32. In float16 compute what keeps its accuracy in it; inputs and outputs of the model keep
    their types (:class:`coexec.passes.float16.Conversion`).

    Outputs that are ``carried`` to inputs, ``{"present.0.key": "past_key_values.0.key"}``, stay on
    the processors from run to run (:meth:`coexec.session.Session.reset`).

    Raises:
        UsageError: ``model``, ``processors``, ``mode``, ``plan``, ``carried`` or ``precision`` is
            none, or the first processor has no float16 and that was asked for.
        ModelError: the plan is not of this model, or a carried output does not fit its input.
        ProcessorError: a processor is not there, or does not support its part of the plan.
    """
    _require_model(model)
    _require("mode", mode, ExecutionMode, "coexec.ExecutionMode()")
    _require("carried", carried or {}, Mapping, "{'state_out': 'state_in'}")
    if plan is None:
        asked = in_precision(model, precision or precision_of(model))
        return Session(asked, open_all(processors), mode, carried=carried)
    followed, specs, planned = _followed(plan, processors)
    if precision and planned and precision != planned:
        raise ModelError(
            f"the plan is not of this model in {precision}: it was made in {planned}; "
            f"leave the precision out, or make a plan in {precision}"
        )
    asked = in_precision(model, precision or planned or precision_of(model))
    return Session(asked, open_all(specs), mode, followed, carried=carried)


def _followed(
    plan: Plan | str | Path, processors: Sequence[str]
) -> tuple[Plan, Sequence[str], str]:
    """A plan, maybe from its file, the processors to open for it, and the precision of that file.

    A plan that comes without a file has no precision, ``""``: it is of what it is followed for.
    """
    _require("plan", plan, Plan | str | Path, "'plan.json', which coexec plan --save wrote,")
    if isinstance(plan, Plan):
        followed, precision = plan, ""
    else:
        planned, followed = load_plan(Path(plan))
        precision = precision_of(planned)
    named = [name for name in followed.named if name != LAST_RESORT]
    return followed, processors or named or [LAST_RESORT], precision


class Trainer(BaseTrainer):
    """Train a model on the named processors; see :class:`coexec.training.trainer.Trainer`.

    What a step computes is said by fields of :class:`coexec.steps.builder.Recipe`. With a ``plan``
    of the training step, or a file that ``coexec plan --train --save`` wrote of it, no
    ``processors`` means those of the plan.
    """

    def __init__(  # noqa: PLR0913  options by keyword
        self,
        model: ir.Model,
        loss: Loss,
        optimizer: Optimizer,
        processors: Sequence[str] = (),
        *,
        trainable: Sequence[str] = (),
        clip_norm: float | None = None,
        clip_value: float | None = None,
        ema: float | None = None,
        micro_batches: int = 1,
        seed: int = 0,
        mode: ExecutionMode = DEFAULT,
        precision: Precision = "float32",
        activations: Activations = "full",
        memory: str | int | None = None,
        batch_statistics: BatchStatistics = "whole",
        updates: Updates = "together",
        paging: float = 0.0,
        lossy: bool = False,
        plan: Plan | str | Path | None = None,
    ) -> None:
        _require_model(model)
        _require("loss", loss, Loss, "coexec.losses.SoftmaxCrossEntropy()")
        _require("optimizer", optimizer, Optimizer, "coexec.optim.SGD(0.01)")
        _require("mode", mode, ExecutionMode, "coexec.ExecutionMode()")
        check_texts("trainable", trainable, "['fc1.*']")
        check_count("seed", seed, least=0)
        followed, specs = (None, processors) if plan is None else _followed(plan, processors)[:2]
        recipe = Recipe(
            loss,
            optimizer,
            trainable=tuple(trainable),
            clip_norm=clip_norm,
            clip_value=clip_value,
            ema=ema,
            micro_batches=micro_batches,
            seed=seed,
            precision=precision,
            activations=activations,
            batch_statistics=batch_statistics,
            updates=updates,
            paging=paging,
        )
        how: TrainerOptions = {"mode": mode, "memory": memory, "lossy": lossy}
        super().__init__(model, recipe, open_all(specs), plan=followed, **how)


def _require_model(model: object) -> None:
    _require("model", model, ir.Model, "coexec.load('model.onnx')")


def _require(name: str, given: object, kind: type | UnionType, example: str) -> None:
    """Refuse an argument of another kind, such as a path for a model.

    Raises:
        UsageError: with what would do.
    """
    if not isinstance(given, kind):
        raise UsageError(f"{name} is {given!r}; it has to be as {example} gives it")


def open_all(specs: Sequence[str]) -> dict[str, Processor]:
    """Processors by their own name, in order, with the reference as last resort."""
    check_texts("processors", specs, "['opencl']")
    opened = open_processors((*(specs or (PROCESSOR.text,)), LAST_RESORT))
    return {processor.describe().name: processor for processor in opened}
