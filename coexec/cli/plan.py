"""``coexec plan``: which processor should execute which node, what that takes, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import onnx_ir as ir
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from coexec.api import LAST_RESORT, load, open_all
from coexec.autodiff.optimizers import OPTIMIZERS
from coexec.base.errors import UsageError
from coexec.base.units import bytes_text
from coexec.budget.placing import JOINT
from coexec.cli.memory_table import memory_record, show_memory
from coexec.cli.options import (
    BatchSizeOption,
    BatchStatisticsOption,
    JsonFlag,
    LossOption,
    LossOutputOption,
    MemoryLossyOption,
    MemoryOption,
    OptimizerOption,
    PrecisionOption,
    ShapeOption,
    require_known,
)
from coexec.cli.output import notes, parse_shapes, print_json, require_writable, show_conversion
from coexec.cli.plan_table import planning_record, show_planning
from coexec.cli.random_data import bind_batch, random_feeds, random_labels
from coexec.cli.train_parts import loss_on
from coexec.cli.train_plan import plan_options
from coexec.cli.verified_plans import runs_plans, show_verified, tried_steps, verified_record
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.passes.float16 import SINGLE, conversion_lines, in_precision
from coexec.placement.policies.table import ALL, AUTO, NAMES, PIPELINE
from coexec.placement.save import save_plan
from coexec.planning.planner import Planning, PlanOptions, plan_inference, plan_training
from coexec.planning.turns import SECONDS
from coexec.planning.verification import Verified, verify
from coexec.serving.balance import Balanced, balanced
from coexec.steps.builder import Recipe
from coexec.training.trainer import Trainer

SEED = 0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "plan",
        epilog='Example: coexec plan resnet18.onnx --processors "opencl:intel,opencl:pocl" '
        "--policy all --explain",
    )(plan)


def plan(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    processors: Annotated[
        str, typer.Option(metavar="A,B", help="Processors to plan for, separated by commas.")
    ] = "",
    train: Annotated[bool, typer.Option("--train", help="A training step, no inference.")] = False,
    loss: LossOption = "cross-entropy",
    loss_output: LossOutputOption = "",
    optimizer: OptimizerOption = "sgd",
    momentum: Annotated[float, typer.Option(help="For --optimizer sgd.")] = 0.9,
    batch_size: BatchSizeOption = 1,
    shape: ShapeOption = None,
    precision: PrecisionOption = "",
    policy: Annotated[
        str,
        typer.Option(
            help=f"One of: {', '.join(NAMES)}, with --memory {JOINT}; {ALL}: auto, exact if small."
        ),
    ] = AUTO,
    budget: Annotated[
        str, typer.Option(help="Time for measuring what is not known yet: 30s, 2m; 0: none.")
    ] = "30s",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure again what is known.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Each node with its cost on every processor.")
    ] = False,
    verified: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Run the best plans and each processor; take the fastest. Policy auto does.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="PLAN.onnx", help="Write the model with the plan in it.")
    ] = None,
    memory: MemoryOption = "",
    memory_lossy: MemoryLossyOption = False,
    batch_statistics: BatchStatisticsOption = "whole",
    as_json: JsonFlag = False,
) -> None:
    """Plan a model on several processors: times, load, moves, refusals, and other policies."""
    require_writable(save, "--save")
    judged = loss_on(loss, loss_output)
    require_known("--optimizer", optimizer, OPTIMIZERS)
    require_known("--policy", policy, (*NAMES, ALL, JOINT))
    if memory and not train:
        raise UsageError("--memory is the budget of a training step: give --train too")
    specs = [spec.strip() for spec in processors.split(",") if spec.strip()]
    how = replace(plan_options(policy, budget, specs), refresh=refresh)
    runs = runs_plans(verified, policy, how.seconds, specs, memory)
    opened = open_all(specs)
    shapes = parse_shapes(shape)
    loaded = load(model, bind_batch(load(model), batch_size, shapes))
    rng = np.random.default_rng(SEED)
    feeds = random_feeds(loaded, rng)
    if train:
        # As `coexec train` has it by default: the plan is that of its step.
        moved = {"momentum": momentum} if optimizer == "sgd" else {}
        recipe = Recipe(
            judged,
            OPTIMIZERS[optimizer](1e-3, **moved),
            precision=precision or SINGLE,  # type: ignore[arg-type]  # the trainer checks it
            batch_statistics=batch_statistics,  # type: ignore[arg-type]  # it checks that
        )
        # A step may divide its batch, of which the file says no size.
        whole = load(model, shapes)
        trainer = Trainer(whole, recipe, opened, memory=memory or None, lossy=memory_lossy)
        labels = random_labels(judged, loaded, rng)
        found = _planned_step(trainer, feeds, labels, how, runs=runs)
    else:
        asked = in_precision(loaded, precision or SINGLE)
        found = _planned_inference(asked, feeds, opened, how, runs=runs)
    if save is not None:
        save_plan(found.planning.model, found.planning.plan, save)
        notes.print(f"written {escape(str(save))} ({bytes_text(save.stat().st_size)})")
    print_json(_record(found)) if as_json else _show(found, explain=explain)


@dataclass(frozen=True)
class _Found:
    """A planning, and what came of running it.

    ``tried`` are plans that were run, ``pipeline`` the one that was balanced by running its
    stages, ``memory`` the record of how a training step keeps its budget.
    """

    planning: Planning
    tried: Verified | None = None
    pipeline: Balanced | None = None
    memory: dict[str, Any] | None = None


def _planned_step(
    trainer: Trainer,
    feeds: Mapping[str, Array],
    labels: Array | None,
    how: PlanOptions,
    *,
    runs: bool,
) -> _Found:
    """The plan of a training step; if plans are run, the one of the fastest steps."""
    with _Shown(how.seconds) as shown:
        planning = plan_training(trainer, feeds, replace(how, observe=shown.measuring))
        planned = trainer.with_plan(planning.plan) if planning.tried else trainer
        memory = memory_record(planned.plan_memory(feeds))
        tried = None
        if runs:
            shown.stage("running steps by the best plans")
            tried = tried_steps(trainer, feeds, labels, planning, min(SECONDS, how.seconds))
    return _Found(planning if tried is None else tried.planning, tried, memory=memory)


def _planned_inference(
    model: ir.Model,
    feeds: Mapping[str, Array],
    processors: Mapping[str, Processor],
    how: PlanOptions,
    *,
    runs: bool,
) -> _Found:
    """The plan of an inference; if plans are run, the fastest; a pipeline balanced by running it.

    A pipeline is taken as it is predicted where there is no time for measuring.
    """
    with _Shown(how.seconds) as shown:
        planning = plan_inference(model, feeds, processors, replace(how, observe=shown.measuring))
        if runs:
            shown.stage("running the best plans")
            tried = verify(model, feeds, processors, planning)
            return _Found(tried.planning, tried)
        if how.policy == PIPELINE and how.seconds:
            shown.stage("balancing the pipeline by running it")
            pipeline = balanced(planning, feeds, processors, LAST_RESORT)
            return _Found(replace(planning, plan=pipeline.plan), pipeline=pipeline)
    return _Found(planning)


class _Shown:
    """A bar on stderr of the ``seconds`` for measuring, with what is being done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        columns = BarColumn(), TextColumn("{task.description}")
        self._progress = Progress(*columns, console=notes, transient=True)
        self._task = self._progress.add_task("", total=max(seconds, 1e-9))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_ended: object) -> None:
        self._progress.stop()

    def measuring(self, passed: float, text: str) -> None:
        """So many seconds of the measuring have passed; ``text`` is what is measured."""
        completed = min(passed, self.seconds)
        self._progress.update(self._task, completed=completed, description=escape(text))

    def stage(self, text: str) -> None:
        """What comes after the measuring."""
        self._progress.update(self._task, description=text)


def _record(found: _Found) -> dict[str, Any]:
    return {
        **planning_record(found.planning, found.pipeline),
        "verified": found.tried and verified_record(found.tried),
        "memory": found.memory,
        "float16": conversion_lines(found.planning.model),
    }


def _show(found: _Found, *, explain: bool) -> None:
    show_conversion(conversion_lines(found.planning.model))
    show_planning(found.planning, found.pipeline, explain=explain)
    show_memory(found.memory)
    if found.tried is not None:
        show_verified(found.tried)
