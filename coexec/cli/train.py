"""``coexec train``: train a model on a .npz file, with checkpoints and exact resume."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coexec.api import Trainer, load
from coexec.base.errors import UsageError
from coexec.budget.placing import JOINT
from coexec.cli.options import (
    BatchStatisticsOption,
    JsonFlag,
    LossOption,
    LossOutputOption,
    MemoryLossyOption,
    MemoryOption,
    OptimizerOption,
    ProcessorOption,
)
from coexec.cli.output import (
    notes,
    print_json,
    require_folder,
    require_writable,
)
from coexec.cli.train_parts import (
    ClassWeightsOption,
    ClipNormOption,
    ClipValueOption,
    EmaOption,
    IgnoreIndexOption,
    LastBatchOption,
    NoDecayOption,
    PosWeightOption,
    RateOfOption,
    ScheduleOption,
    check_above_0,
    check_choice,
    check_companions,
    groups_of,
    last_batch_of,
    loss_of,
    loss_options,
    optimizer_of,
    schedule_of,
)
from coexec.cli.train_plan import plan_options, plan_record, planned
from coexec.cli.train_table import show_training, training_record
from coexec.cli.trained_parameters import (
    choice_record,
    chosen_to_fit,
    items_to_train,
    with_adapters,
)
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.placement.policies.table import AUTO, NAMES
from coexec.report.perfetto_trace import write_perfetto
from coexec.training.data import Dataset, batch_count, load_npz
from coexec.training.fit import FitOptions, Result, fit
from coexec.training.fit import Progress as FitProgress
from coexec.training.trainer import Trainer as BaseTrainer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "train",
        epilog="Example: coexec train lenet.onnx --data train.npz --validation test.npz "
        "--optimizer sgd --learning-rate 0.01 --epochs 10 --out trained.onnx",
    )(train)


def train(
    model: Annotated[Path, typer.Argument(help="ONNX file to start from.")],
    data: Annotated[
        Path,
        typer.Option(
            help=".npz with an array per model input and, but for --loss model, 'labels'."
        ),
    ],
    validation: Annotated[
        Path | None, typer.Option(help="Held-out .npz for loss and accuracy.")
    ] = None,
    validate_every: Annotated[
        int, typer.Option(min=0, help="Epochs between evaluations; 0: at the end alone.")
    ] = 1,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after so many evaluations without a lower loss.")
    ] = 0,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="--out has the parameters of the lowest loss.")
    ] = False,
    loss: LossOption = "cross-entropy",
    loss_output: LossOutputOption = "",
    label_smoothing: Annotated[float, typer.Option(help="For cross-entropy, in [0, 1).")] = 0.0,
    class_axis: Annotated[int, typer.Option(help="Axis of classes in the output.")] = 1,
    ignore_index: IgnoreIndexOption = None,
    class_weights: ClassWeightsOption = "",
    pos_weight: PosWeightOption = "",
    huber_delta: Annotated[
        float | None, typer.Option(help="For huber: where it becomes linear; by default 1.")
    ] = None,
    optimizer: OptimizerOption = "sgd",
    learning_rate: Annotated[float, typer.Option(help="Learning rate.")] = 0.01,
    momentum: Annotated[
        float | None, typer.Option(help="For sgd, by default 0.9, and rmsprop, by default 0.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Default: the optimizer's own.")
    ] = None,
    no_decay: NoDecayOption = None,
    rate_of: RateOfOption = None,
    optimizer_state: Annotated[
        str, typer.Option(help="float32, or 8bit: a quarter of the bytes, for large parameters.")
    ] = "float32",
    schedule: ScheduleOption = "constant",
    warmup_steps: Annotated[int, typer.Option(min=0, help="Linear warm-up.")] = 0,
    clip_norm: ClipNormOption = None,
    clip_value: ClipValueOption = None,
    ema: EmaOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per step.")] = 32,
    last_batch: LastBatchOption = "drop",
    micro_batches: Annotated[int, typer.Option(min=1, help="Parts of a batch in memory.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 10,
    precision: Annotated[
        str, typer.Option(help="float32, or mixed: float16 with a loss scale.")
    ] = "float32",
    activations: Annotated[
        str,
        typer.Option(help="Kept for backward: full, mask, bits, int8, int4, pooled or auto."),
    ] = "full",
    paging: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of activations off the device between the passes (exact)."
        ),
    ] = 0.0,
    trainable: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="Train these only: a PATTERN of names, PATTERN[A:B] (output channels), bias, "
            "last:K (layers), layers:NAME,...; may be repeated. auto:BYTES: what contributes "
            "most and fits.",
        ),
    ] = None,
    lora: Annotated[
        str,
        typer.Option(
            metavar="RANK[:PATTERN]",
            help="Train adapters of this rank beside the weights of Gemm and MatMul instead of the "
            "weights themselves; --out has them merged.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Order of samples, dropout masks.")] = 0,
    processor: ProcessorOption = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of checkpoints.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=0, help="Steps; 0: every epoch.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from --checkpoint.")] = False,
    out: Annotated[Path | None, typer.Option(help="Trained ONNX file to write.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Perfetto trace of the first steps.")] = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="PLAN.onnx", help="Follow a plan (coexec plan --train --save)."),
    ] = None,
    processors: Annotated[
        str, typer.Option(metavar="A,B", help="Plan for these processors, then train on them.")
    ] = "",
    policy: Annotated[
        str,
        typer.Option(
            help=f"Of the plan for --processors: {', '.join(NAMES)}; with --memory: {JOINT}."
        ),
    ] = AUTO,
    budget: Annotated[
        str, typer.Option(help="Time for measuring what the plan needs: 30s, 2m; 0: none.")
    ] = "30s",
    adapt: Annotated[
        bool,
        typer.Option("--adapt", help="Plan again when one of --processors slows down or is lost."),
    ] = False,
    memory: MemoryOption = "",
    memory_lossy: MemoryLossyOption = False,
    batch_statistics: BatchStatisticsOption = "whole",
    as_json: JsonFlag = False,
) -> None:
    """Train a model from an ONNX file and write the trained ONNX file."""
    require_writable(out, "--out")
    require_writable(trace, "--trace")
    if resume and checkpoint is None:
        raise UsageError("--resume needs --checkpoint DIR: the folder to continue from")
    require_folder(checkpoint, "--checkpoint")
    judged = loss_of(
        loss,
        **loss_options(
            label_smoothing,
            class_axis,
            ignore_index,
            class_weights,
            pos_weight,
            huber_delta,
            loss_output,
        ),
    )
    groups = groups_of(no_decay, rate_of)
    check_choice(validation, validate_every, chooses=bool(patience or keep_best))
    train_data = load_npz(data, labelled=judged.labelled)
    held_out = None
    if validation is not None:
        held_out = load_npz(validation, labelled=judged.labelled)
    last = last_batch_of(last_batch, one_size=bool(plan or processors or memory))
    steps = epochs * batch_count(len(train_data), batch_size, last)
    rate = schedule_of(schedule, learning_rate, steps, warmup_steps)
    check_above_0("--clip-norm", clip_norm)
    check_above_0("--clip-value", clip_value)
    if sum(map(bool, (plan, processors, processor))) > 1:
        raise UsageError("give one of --processor, --plan and --processors")
    check_companions(
        {
            "--adapt": (adapt, "--processors A,B: what it may plan with", processors),
            "--policy": (policy != AUTO, "--processors A,B: what it plans with", processors),
            "--memory-lossy": (memory_lossy, "--memory: the budget that it helps to keep", memory),
            "--checkpoint-every": (checkpoint_every, "--checkpoint DIR: where they go", checkpoint),
        }
    )
    specs = [spec.strip() for spec in processors.split(",") if spec.strip()]

    items: Sequence[str] = items_to_train(trainable, lora)

    def trainer_on(
        specs: Sequence[str], items: Sequence[str], plan: Plan | Path | None = None
    ) -> Trainer:
        return Trainer(
            # Shapes stay as open as the file has them: the trained file serves any batch again.
            with_adapters(load(model), lora, seed),
            judged,
            optimizer_of(optimizer, rate, momentum, weight_decay, optimizer_state, groups),
            specs,
            trainable=items,
            clip_norm=clip_norm,
            clip_value=clip_value,
            ema=ema,
            micro_batches=micro_batches,
            seed=seed,
            precision=precision,  # type: ignore[arg-type]  # the trainer checks it
            activations=activations,  # type: ignore[arg-type]  # as well
            paging=paging,
            memory=memory or None,
            batch_statistics=batch_statistics,  # type: ignore[arg-type]  # as well
            lossy=memory_lossy,
            plan=plan,
        )

    on = specs or processor or ()
    choice = chosen_to_fit(items, lambda some: trainer_on(on, some), train_data, batch_size)
    trainer: BaseTrainer = trainer_on(on, choice.trainable if choice else items, plan)
    tried: dict[str, float] = {}
    forms: list[dict[str, Any]] = []
    if specs:
        how = plan_options(policy, budget, specs)
        keep = (checkpoint, resume)
        trainer, tried, forms = planned(trainer, train_data, batch_size, how, keep, adapt=adapt)
    events = Trace() if trace is not None else None
    options = FitOptions(
        *(epochs, batch_size, seed, checkpoint, checkpoint_every, resume),
        trace=events,
        validate_every=validate_every,
        patience=patience,
        keep_best=keep_best,
        last_batch=last,
    )
    result, losses = _fit(trainer, train_data, held_out, options)
    if out is not None:
        trainer.save(out)
    if trace is not None and events is not None:
        write_perfetto(events, trace, trainer.program if events.events else None)
    record = training_record(trainer, result, out) | {
        "plan": plan_record(trainer.followed, tried, forms, batch_size),
        "choice": choice_record(choice),
    }
    print_json(record) if as_json else show_training(record, losses)


def _fit(
    trainer: BaseTrainer, data: Dataset, validation: Dataset | None, options: FitOptions
) -> tuple[Result, list[float]]:
    """Train under a progress bar on stderr, which is there from the first step on."""
    losses: list[float] = []
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}{task.fields[held_out]}"),
        TextColumn("{task.fields[step_ms]:.1f} ms/step"),
        TimeRemainingColumn(),
    )
    bar, preparing = Progress(*columns, console=notes), notes.status("preparing the first step")
    with ExitStack() as shown:
        shown.enter_context(preparing)

        def observe(progress: FitProgress) -> None:
            losses.append(progress.loss)
            found = progress.validation_loss
            fields: dict[str, Any] = {
                "total": progress.total_steps,
                "completed": progress.step,
                "epoch": progress.epoch + 1,
                "loss": progress.loss,
                "held_out": "" if found is None else f" (held out {found:.4f})",
                "step_ms": progress.step_ms[-1],
            }
            if bar.tasks:
                bar.update(bar.task_ids[0], **fields)
            else:
                preparing.stop()
                bar.add_task("train", **fields)
                shown.enter_context(bar)

        return fit(trainer, data, validation, options, observe), losses
