"""``coexec tune``: finds the fastest kernels for the calls of a model on this device."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from coexec.api import LAST_RESORT, load
from coexec.autodiff.losses import Loss
from coexec.autodiff.optimizers import OPTIMIZERS
from coexec.base.errors import UsageError
from coexec.base.knobs import PROCESSOR
from coexec.cli.options import (
    JsonFlag,
    LossOption,
    LossOutputOption,
    OptimizerOption,
    PrecisionOption,
    ShapeOption,
    require_known,
)
from coexec.cli.output import (
    console,
    notes,
    parse_shapes,
    print_json,
    require_writable,
    show_conversions,
)
from coexec.cli.random_data import bind_batch, random_feeds, random_labels
from coexec.cli.train_parts import loss_on
from coexec.core.processor import Processor
from coexec.core.tuning import TunedCall, TuneReport
from coexec.passes.float16 import SINGLE, in_precision
from coexec.processors.find import merge_tuned, open_processor, open_tuner
from coexec.report.wording import counted
from coexec.session import Session
from coexec.steps.builder import Recipe
from coexec.training.trainer import Trainer

SEED = 0
ROWS = 25
"""Calls shown; ``--json`` has all."""
BATCH_SIZES = (1, 8, 32)
"""Of the representative convolutions."""
SHOWN = ("kernel=", "strides=", "dilations=", "depthwise", "group=", "trans")
UNIT = ("strides=1", "strides=1x1", "strides=1x1x1")
DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h)?")
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "tune",
        epilog="Example: coexec tune resnet18.onnx --train --batch-size 32 -p opencl:intel "
        "--budget 60s",
    )(tune)


def tune(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL.onnx]",
            help="ONNX file; without, typical products and convolutions. With --merge: the files.",
        ),
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="The training step's calls.")] = False,
    loss: LossOption = "cross-entropy",
    loss_output: LossOutputOption = "",
    optimizer: OptimizerOption = "sgd",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Where the model leaves it open [1]; without a model [1, 8, 32]."),
    ] = None,
    shape: ShapeOption = None,
    processor: Annotated[
        str | None,
        typer.Option("--processor", "-p", metavar="SPEC", help="opencl, opencl:pocl, ..."),
    ] = None,
    precision: PrecisionOption = "",
    budget: Annotated[str, typer.Option(help="Time to spend: 60s, 10m, 1h.")] = "60s",
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write what this run finds here too.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge files of tuned values instead, into --out.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="With --merge.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tune kernels for a model's shapes on this device; later runs use what is found."""
    given = files or []
    if merge:
        _merge(given, out, as_json)
        return
    if out is not None:
        raise UsageError("--out goes with --merge; --save FILE.json keeps what tuning finds")
    if len(given) > 1:
        raise UsageError(f"tune takes one model, not {len(given)}; to merge files give --merge")
    seconds = parse_budget(budget)
    require_writable(save, "--save")
    for flag, value in (("--train", train), ("--shape", shape), ("--precision", precision)):
        if value and not given:
            raise UsageError(f"{flag} needs a model")
    judged = loss_on(loss, loss_output)
    require_known("--optimizer", optimizer, OPTIMIZERS)
    tuner = open_tuner(processor or PROCESSOR.text)
    if given:
        with notes.status("compiling"):
            model = load(given[0])
            model = load(given[0], bind_batch(model, batch_size or 1, parse_shapes(shape)))
            _compile(model, tuner.processor, precision, (judged, optimizer) if train else None)
    else:
        tuner.add_representative(BATCH_SIZES if batch_size is None else (batch_size,))
    with _progress() as progress:
        task = progress.add_task("", total=seconds)
        report = tuner.tune(
            seconds,
            lambda elapsed, text: progress.update(
                task, completed=min(elapsed, seconds), description=escape(text)
            ),
            save,
        )
    print_json(_record(report)) if as_json else _show(report)
    if save is not None and save not in report.files:
        notes.print(
            f"not written: {escape(str(save))}, as no call was tuned: give a larger --budget"
        )
    if report.interrupted:
        raise KeyboardInterrupt


def parse_budget(text: str) -> float:
    """``60s``, ``1.5m``, ``2min``, ``1h`` or plain seconds, in seconds.

    Raises:
        UsageError: anything else, or no time at all.
    """
    match = DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * SECONDS[match[2] or "s"] if match else 0.0
    if seconds <= 0:
        raise UsageError(f"--budget {text!r}: write it as 60s, 10m or 1h")
    return seconds


def _compile(
    model: Any, processor: Processor, precision: str, step: tuple[Loss, str] | None
) -> None:
    """Compile for inference, or for a training step with this loss and optimizer, and run once.

    The processor takes note of the calls that it compiles.
    """
    last = open_processor(LAST_RESORT)
    processors = {p.describe().name: p for p in (processor, last)}
    rng = np.random.default_rng(SEED)
    feeds = random_feeds(model, rng)
    if step is None:
        session = Session(in_precision(model, precision or SINGLE), processors)
        session.run(feeds)
        show_conversions(session.conversions)
        table = session.fallbacks
    else:
        loss, optimizer = step[0], OPTIMIZERS[step[1]](1e-3)
        kind: Any = precision or SINGLE  # the trainer checks it
        trainer = Trainer(model, Recipe(loss, optimizer, precision=kind), processors)
        trainer.step(feeds, random_labels(loss, model, rng))
        table = trainer.plan.table()
    for line in table.splitlines():
        notes.print(f"[yellow]fallback:[/] {escape(line)}")


def _merge(files: list[Path], out: Path | None, as_json: bool) -> None:
    if len(files) < 2:
        raise UsageError("--merge needs two files at least: --merge A.json B.json --out C.json")
    if out is None:
        raise UsageError("--merge needs --out FILE.json: where to write the merged file")
    require_writable(out, "--out")
    entries = merge_tuned(files, out)
    if as_json:
        print_json({"files": files, "out": out, "entries": entries})
    else:
        notes.print(f"written {escape(str(out))}: {entries} tuned calls")


def _progress() -> Progress:
    return Progress(
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=notes,
        transient=True,
    )


def _record(report: TuneReport) -> dict[str, Any]:
    return {
        "processor": report.processor,
        "device": report.device,
        "seconds": report.seconds,
        "default_ms": report.default_ms,
        "tuned_ms": report.ms,
        "calls": [asdict(call) for call in report.calls],
        "files": report.files,
        "stale": report.stale,
        "interrupted": report.interrupted,
    }


def _show(report: TuneReport) -> None:
    title = escape(f"{report.processor}, milliseconds")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("call", overflow="fold", min_width=28)
    for heading in ("runs", "default", "tuned", "less"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("change", overflow="fold", min_width=16)
    tuned = [call for call in report.calls if call.tried]
    for call in tuned[:ROWS]:
        table.add_row(
            escape(_call_text(call)),
            str(call.count),
            f"{call.default_ms:.3f}",
            f"{call.ms:.3f}",
            f"{1 - call.ms / call.default_ms:.0%}" if call.default_ms else "-",
            escape(_change_text(call)) if call.ms < call.default_ms else "[dim]none[/]",
        )
    console.print(table)
    if len(tuned) > ROWS:
        console.print(f"[dim]... and {len(tuned) - ROWS} more[/]", highlight=False)
    _show_rest(report)


def _show_rest(report: TuneReport) -> None:
    """Sums, what was not tuned, what was refused, and where the values are."""
    gain = 1 - report.ms / report.default_ms if report.default_ms else 0.0
    console.print(
        f"\nall kernels: {report.default_ms:.3f} ms -> {report.ms:.3f} ms predicted "
        f"([bold]{gain:.1%}[/] less), tuned for {report.seconds:.0f} s",
        highlight=False,
    )
    reasons: dict[str, int] = {}
    for call in report.calls:
        for reason, number in (call.refused or {}).items():
            reasons[reason] = reasons.get(reason, 0) + number
    for reason, number in reasons.items():
        notes.print(f"refused: {counted(number, 'candidate')} ({escape(reason)})", highlight=False)
    skipped: dict[str, int] = {}
    for call in report.calls:
        if call.note:
            skipped[call.note] = skipped.get(call.note, 0) + 1
    for note, number in skipped.items():
        notes.print(f"not tuned: {counted(number, 'call')} ({escape(note)})", highlight=False)
    for reason, number in report.stale.items():
        notes.print(f"dropped: {number} older values ({escape(reason)})", highlight=False)
    for path in report.files:
        notes.print(f"written {escape(str(path))}", highlight=False)


def _call_text(call: TunedCall) -> str:
    """Operator, sizes, and what of the kind tells calls of these sizes apart."""
    words = call.kind.split()
    fused = [word.removeprefix("of=") for word in words if word.startswith("of=")]
    name = (fused or [call.operator])[0].replace("coexec::", "")
    shown = [word for word in words if word.startswith(SHOWN) and not word.endswith(UNIT)]
    return " ".join((name, "x".join(map(str, call.sizes)), *shown))


def _change_text(call: TunedCall) -> str:
    """The chosen variant with its values; of the default variant, the values that differ."""
    default, chosen = call.default.split(), call.chosen.split()
    if default[0] != chosen[0]:
        return call.chosen
    return " ".join(word for word in chosen if word not in default)
