"""``coexec profile``: where the time of a run or a training step goes, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from coexec.api import Trainer, load
from coexec.api import compile as compile_model
from coexec.autodiff.optimizers import OPTIMIZERS
from coexec.base.errors import UsageError
from coexec.base.units import bytes_text
from coexec.cli.options import (
    BatchSizeOption,
    JsonFlag,
    LossOption,
    LossOutputOption,
    OptimizerOption,
    PrecisionOption,
    ProcessorOption,
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
from coexec.passes.float16 import Conversion
from coexec.profile import Profile, ProfileOptions, profile_session, profile_training
from coexec.report.attribution import CATEGORIES
from coexec.report.bars import bar
from coexec.report.html import write_html
from coexec.report.perfetto_trace import write_perfetto
from coexec.report.record import ProfileRecord, RowRecord
from coexec.report.wording import counted
from coexec.runtime.mode import DEFAULT, ExecutionMode

SEED = 0
BAR = 28
"""Width of a full bar."""
NAME, LONG_NAME = 16, 30
"""Columns of a terminal that names have at least, and at most."""
GAP = 2
"""Between two columns of a table."""
BOUND = "bound by"
ROWS = 8
"""Operators and layers shown."""
RESIDUAL, OVERHEAD = 0.02, 0.05
"""What attribution and profiling may be off by before the report warns."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "profile",
        epilog="Example: coexec profile resnet18.onnx --train --batch-size 32 -p opencl "
        "--html report.html",
    )(profile)


def profile(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    train: Annotated[bool, typer.Option("--train", help="Training steps, not inference.")] = False,
    loss: LossOption = "cross-entropy",
    loss_output: LossOutputOption = "",
    class_axis: Annotated[int, typer.Option(help="Axis of classes in the output.")] = 1,
    optimizer: OptimizerOption = "sgd",
    learning_rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    batch_size: BatchSizeOption = 1,
    shape: ShapeOption = None,
    processor: ProcessorOption = None,
    precision: PrecisionOption = "",
    steps: Annotated[
        int, typer.Option(min=1, help="Traced steps at least; the median is shown.")
    ] = 10,
    residency: Annotated[
        str, typer.Option(help="Tensors between operators stay on the device, or go to the host.")
    ] = DEFAULT.residency,
    synchronise: Annotated[
        str, typer.Option(help="The host waits once a step, or after every operator.")
    ] = DEFAULT.synchronise,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Perfetto trace of the step.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Profile a model on random data: every millisecond attributed, with advice."""
    require_writable(html, "--html")
    require_writable(trace, "--trace")
    specs = processor or ()
    chosen_loss = loss_on(
        loss, loss_output, **({} if class_axis == 1 else {"class_axis": class_axis})
    )
    require_known("--optimizer", optimizer, OPTIMIZERS)
    if not learning_rate > 0:
        raise UsageError(f"--learning-rate must be above 0, not {learning_rate}")
    mode = ExecutionMode(residency, synchronise)  # type: ignore[arg-type]  # checked there
    loaded = load(model)
    loaded = load(model, bind_batch(loaded, batch_size, parse_shapes(shape)))
    rng = np.random.default_rng(SEED)
    feeds = random_feeds(loaded, rng)
    with notes.status("compiling") as status:

        def observe(stage: str) -> None:
            status.update(escape(stage))

        options: dict[str, Any] = {} if mode == DEFAULT else {**vars(mode)}
        if precision:
            options["precision"] = precision
        if train:
            options = {"loss": loss, "optimizer": optimizer, **options}
            chosen_optimizer = OPTIMIZERS[optimizer](learning_rate)
            kind: Any = precision or "float32"  # the trainer checks it
            trainer = Trainer(
                loaded, chosen_loss, chosen_optimizer, specs, mode=mode, precision=kind
            )
            labels = random_labels(chosen_loss, loaded, rng)
            how = ProfileOptions(steps, options=options, observe=observe)
            profiled = profile_training(trainer, feeds, labels, str(model), how)
            conversions: tuple[Conversion, ...] = ()
        else:
            session = compile_model(loaded, specs, mode, precision=precision)
            how = ProfileOptions(steps, options=options, observe=observe)
            profiled = profile_session(session, feeds, str(model), how)
            conversions = session.conversions
    _write(profiled, html, trace)
    if as_json:
        print_json(profiled.record)
    else:
        show_conversions(conversions)
        show(profiled.record)


def _write(profiled: Profile, html: Path | None, trace: Path | None) -> None:
    if trace is not None:
        write_perfetto(profiled.trace, trace, profiled.program)
    if html is not None:
        write_html(profiled.record, html)
    for path in (trace, html):
        if path is not None:
            notes.print(f"written {escape(str(path))} ({bytes_text(path.stat().st_size)})")


def show(record: ProfileRecord) -> None:
    """The record for people: verdict, bars, worst operators and layers, advice."""
    console.print(f"[bold]{escape(record['verdict'])}[/]", highlight=False)
    for track in record["categories"]:
        _show_track(record, track)
    show_rows("Operators", record["operators"])
    show_rows("Layers", record["layers"])
    show_rows("Phases", record["phases"])
    _show_memory(record)
    for advice in record["advice"]:
        console.print(f"\n[bold yellow]{escape(advice['title'])}[/]", highlight=False)
        console.print(f"  {escape(advice['evidence'])}", highlight=False)
        console.print(f"  [green]->[/] {escape(advice['suggestion'])}", highlight=False)
    for line in record["fallbacks"]:
        notes.print(f"[yellow]fallback:[/] {escape(line)}")
    for line in record.get("in_floats", []):
        notes.print(f"[yellow]in floats:[/] {escape(line)}")
    _show_quality(record)


def _show_track(record: ProfileRecord, track: str) -> None:
    wall = record["wall_ms"]
    times: dict[str, float] = dict(record["categories"][track])  # type: ignore[arg-type]
    console.print(f"\n[bold]{escape(track)}[/]  {wall:.3f} ms a step", highlight=False)
    for name, meaning in CATEGORIES.items():
        share = times[name] / wall if wall else 0.0
        console.print(
            f"  {meaning:<23} [cyan]{bar(share, BAR)}[/] {share:6.1%} {times[name]:9.3f} ms",
            highlight=False,
        )
    transfers = record["transfers"][track]
    if transfers["count"]:
        console.print(
            f"  [dim]{counted(transfers['count'], 'copy')}, {bytes_text(transfers['bytes'])}; "
            f"{transfers['latency_ms']:.3f} ms of the transfer is latency[/]",
            highlight=False,
        )


def show_rows(title: str, rows: list[RowRecord]) -> None:
    """A table of rows; a narrow terminal has no room for rates, and names are folded there."""
    shown = rows[:ROWS]
    cells = [_cells(row, narrow=False) for row in shown]
    narrow = console.width - _width(cells) < NAME
    if narrow:
        cells = [_cells(row, narrow=True) for row in shown]
    room = max(NAME, min(LONG_NAME, console.width - _width(cells)))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(
        "", no_wrap=not narrow, overflow="fold" if narrow else "ellipsis", max_width=room
    )
    for column in cells[0] if cells else ():
        table.add_column(column, justify="left" if column == BOUND else "right", no_wrap=True)
    for row, figures in zip(rows, cells, strict=False):
        table.add_row(escape(row["name"].removeprefix("coexec::")), *figures.values())
    console.print()
    console.print(table)
    if len(rows) > ROWS:
        console.print(f"[dim]... and {len(rows) - ROWS} more[/]", highlight=False)


def _width(rows: Sequence[Mapping[str, str]]) -> int:
    """Columns of a terminal that figures take, with what keeps them apart."""
    columns = rows[0] if rows else ()
    return sum(GAP + max(len(name), *(len(row[name]) for row in rows)) for name in columns)


def _cells(row: RowRecord, *, narrow: bool) -> dict[str, str]:
    """What a row says behind its name, by column; without its rates if ``narrow``."""
    times = {"ms": f"{row['ms']:.3f}", "share": f"{row['share']:.1%}"}
    rates = {
        "runs": str(row["launches"]),
        "GFLOP/s": f"{row['gflops']:.1f}",
        "GB/s": f"{row['gbps']:.1f}",
    }
    roof = {"roofline": "-" if row["roofline"] is None else f"{row['roofline']:.0%}"}
    return times | roof if narrow else times | rates | roof | {BOUND: row["bound"]}


def _show_memory(record: ProfileRecord) -> None:
    """Per track, what the fullest moment holds; all of it planned, beside what was allocated."""
    for track in dict.fromkeys(entry["track"] for entry in record["memory"]):
        entries = [entry for entry in record["memory"] if entry["track"] == track]
        fullest = max(entries, key=lambda entry: entry["bytes"])
        console.print(
            f"\n[bold]Memory[/] {escape(track)}: {bytes_text(fullest['bytes'])} in use at "
            f"{fullest['t_ms']:.3f} ms",
            highlight=False,
        )
        for kind, nbytes in sorted(fullest["kinds"].items(), key=lambda item: -item[1]):
            share = nbytes / fullest["bytes"]
            console.print(
                f"  {kind:<23} [cyan]{bar(share, BAR)}[/] {share:6.1%} {bytes_text(nbytes):>12}",
                highlight=False,
            )
        if track in record["allocated_bytes"]:
            allocated = bytes_text(record["allocated_bytes"][track])
            console.print(f"  [dim]allocated in this process: {allocated}[/]", highlight=False)
    console.print(f"  [dim]planned: {bytes_text(record['peak_bytes'])} in all[/]", highlight=False)


def _show_quality(record: ProfileRecord) -> None:
    """How far to trust the figures."""
    overhead = record["overhead"]
    if any(each["clock"] == "virtual" for each in record["processors"]):
        costs = f"virtual time, the median of {record['steps']} steps"
    else:
        costs = (
            f"profiling costs {overhead['fraction']:+.1%} ({overhead['traced_ms']:.3f} ms traced, "
            f"{overhead['untraced_ms']:.3f} ms not; fastest of {record['steps']})"
        )
    console.print(
        f"\n{costs}, parts add up to the step within {record['residual']:.2%}", highlight=False
    )
    for each in record["processors"]:
        if each["clock"] == "host" and each["name"] != "reference":
            notes.print(
                f"[yellow]note:[/] {escape(each['name'])} has no profiling events: its times are "
                "the host's clock around each kernel"
            )
    if overhead["fraction"] > OVERHEAD:
        notes.print(f"[yellow]note:[/] profiling slows this step by more than {OVERHEAD:.0%}")
    if record["residual"] > RESIDUAL:
        notes.print(f"[yellow]note:[/] parts differ from the step by more than {RESIDUAL:.0%}")
