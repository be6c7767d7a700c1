"""``coexec serve-bench``: several models at once on several processors, under each scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from coexec.base.errors import UsageError
from coexec.cli.options import JsonFlag, require_known
from coexec.cli.output import console, notes, print_json, require_writable
from coexec.core.events import LAUNCH, Event, Trace
from coexec.report.gantt import row as gantt_row
from coexec.report.perfetto_trace import write_perfetto
from coexec.serving.compiled import (
    Compiled,
    clock_of_workload,
    compile_workload,
    cores_of_processors,
    services_by_given_times,
)
from coexec.serving.outcome import PERCENTILES, Outcome
from coexec.serving.picture import draw, require_matplotlib
from coexec.serving.request import Choice
from coexec.serving.schedulers.table import SCHEDULERS
from coexec.serving.serve import serve
from coexec.serving.virtual import Offered, simulate
from coexec.serving.workload import Workload, read_workload, with_duration

ALL = "all"
WIDTH, NUMBERS = 60, 30
"""Characters of a full timeline, and of the numbers behind it."""


@dataclass(frozen=True)
class Run:
    """What a scheduler came to; ``measured`` is absent in a dry run."""

    scheduler: str
    predicted: Outcome
    measured: Outcome | None

    @property
    def outcome(self) -> Outcome:
        """What was measured, else what is predicted."""
        return self.measured or self.predicted


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "serve-bench",
        epilog="Example: coexec serve-bench workload.toml --scheduler all --dry-run",
    )(serve_bench)


def serve_bench(
    workload: Annotated[Path, typer.Argument(help="TOML file; docs/serving.md tells its keys.")],
    scheduler: Annotated[
        str, typer.Option(help=f"One of: {', '.join(SCHEDULERS)}; or {ALL}.")
    ] = ALL,
    duration: Annotated[
        float | None, typer.Option(help="Seconds, instead of the workload's own.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Predict on a virtual clock instead of serving.")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Write a Perfetto trace of the serving (one scheduler).")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw timelines and latencies as SVG (needs Matplotlib).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve several models at once: latencies, missed deadlines, throughput, utilisation."""
    require_known("--scheduler", scheduler, (*SCHEDULERS, ALL))
    if trace is not None and scheduler == ALL:
        raise UsageError("--trace is of one scheduler: name it with --scheduler")
    require_writable(trace, "--trace")
    require_writable(picture, "--picture")
    if picture is not None:
        require_matplotlib()
    read = with_duration(read_workload(workload), duration)
    clock = _clock(read, dry_run=dry_run)
    names = list(SCHEDULERS) if scheduler == ALL else [scheduler]
    offered, compiled = _prepare(read, dry_run=dry_run)
    runs = _run_all(read, offered, compiled, names, dry_run=dry_run)
    if trace is not None:
        write_perfetto(_trace(runs[0].outcome), trace)
        notes.print(f"written {escape(str(trace))}")
    if picture is not None:
        outcomes = {run.scheduler: run.outcome for run in runs}
        draw([service for service, _ in offered], outcomes, picture)
        notes.print(f"written {escape(str(picture))}")
    record = {"clock": clock, **_record(read, offered, compiled, runs)}
    print_json(record) if as_json else _show(offered, compiled, runs, dry_run=dry_run)


def _clock(workload: Workload, *, dry_run: bool) -> str | None:
    """The clock of the processors; none where a dry run needs no processors.

    Raises:
        UsageError: what is to be served is simulated.
    """
    if dry_run and services_by_given_times(workload) is not None:
        return None
    clock = clock_of_workload(workload)
    if clock == "virtual" and not dry_run:
        raise UsageError(
            f"{', '.join(workload.processors)} run in virtual time, and requests come in real "
            "time: --dry-run predicts the serving"
        )
    return clock


def _prepare(workload: Workload, *, dry_run: bool) -> tuple[Offered, tuple[Compiled, ...]]:
    """Services with their arrivals; compiled, unless a dry run needs no more than given times."""
    services = services_by_given_times(workload) if dry_run else None
    compiled: tuple[Compiled, ...] = ()
    if services is None:
        with _progress() as progress:
            task = progress.add_task("", total=None)
            compiled = compile_workload(
                workload, lambda text: progress.update(task, description=escape(text))
            )
        services = tuple(each.service for each in compiled)
    arrivals = (asked.arrivals for asked in workload.models)
    return tuple(zip(services, arrivals, strict=True)), compiled


def _run_all(
    workload: Workload,
    offered: Offered,
    compiled: Sequence[Compiled],
    names: Sequence[str],
    *,
    dry_run: bool,
) -> list[Run]:
    by_name = {each.service.name: each for each in compiled}

    def work(choice: Choice) -> None:
        by_name[choice.request.service.name].work(choice)

    with _progress() as progress:
        task = progress.add_task("", total=workload.duration_ms)

        def observe(passed: float) -> None:
            progress.update(task, completed=passed)

        cores = () if dry_run else cores_of_processors(workload)
        runs = []
        for name in names:
            progress.update(task, description=name, completed=0)
            how = (offered, workload.processors, SCHEDULERS[name], workload.duration_ms)
            seed, drop = workload.seed, workload.drop_late
            predicted = simulate(*how, seed=seed, drop_late=drop)
            measured = None
            if not dry_run:
                measured = serve(
                    *how, work, seed=seed, drop_late=drop, cores=cores, observe=observe
                )
            runs.append(Run(name, predicted, measured))
    return runs


def _record(
    workload: Workload, offered: Offered, compiled: Sequence[Compiled], runs: Sequence[Run]
) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
        "duration_s": workload.duration_ms / 1e3,
        "processors": list(workload.processors),
        "dry_run": runs[0].measured is None,
        "times_ms": {
            service.name: [{o.name: o.ms for o in options} for options in service.steps]
            for service, _ in offered
        },
        "refused": {each.service.name: each.refused for each in compiled if each.refused},
        "schedulers": {
            run.scheduler: {
                "predicted": _outcome_record(offered, run.predicted),
                "measured": run.measured and _outcome_record(offered, run.measured),
            }
            for run in runs
        },
    }


def _outcome_record(offered: Offered, outcome: Outcome) -> dict[str, Any]:
    models = {}
    for service, _ in offered:
        record = asdict(outcome.model(service.name))
        del record["name"]
        values = zip(PERCENTILES, record.pop("latency_ms"), strict=True)
        models[service.name] = record | {f"p{n}_ms": value for n, value in values}
    return {
        "elapsed_s": outcome.elapsed_ms / 1e3,
        "models": models,
        "utilisation": dict(zip(outcome.processors, outcome.utilisation, strict=True)),
    }


def _show(
    offered: Offered, compiled: Sequence[Compiled], runs: Sequence[Run], *, dry_run: bool
) -> None:
    """Tables for people: a request alone, then what each scheduler came to."""
    for each in compiled:
        for name, table in each.refused.items():
            notes.print(f"[yellow]fallback:[/] {escape(f'{each.service.name} on {name}: {table}')}")
    for service, _ in offered:
        steps = " then ".join(
            " or ".join(f"{o.name} {o.ms:.2f} ms" for o in options) for options in service.steps
        )
        console.print(f"[dim]{escape(f'{service.name} alone: {steps}')}[/]", highlight=False)
    for run in runs:
        console.print()
        word = "predicted" if dry_run else "measured"
        console.print(f"[bold]{escape(run.scheduler)}[/], {word}", highlight=False)
        _show_models(offered, run)
        _show_timeline(run.outcome)


def _show_models(offered: Offered, run: Run) -> None:
    table = Table(box=None, pad_edge=False)
    percentiles = [f"p{n}" for n in PERCENTILES]
    for column in ("", "served", *percentiles, "missed", "dropped", "waiting", "per second"):
        table.add_column(column, overflow="fold", justify="right" if column else "left")
    if run.measured is not None:
        table.add_column("(predicted p50)", justify="right")
    for service, _ in offered:
        model = run.outcome.model(service.name)
        cells = [f"{ms:.2f}" for ms in model.latency_ms]
        counts = [str(model.missed), str(model.dropped), str(model.waiting)]
        row = [escape(model.name), str(model.served), *cells, *counts, f"{model.per_second:.1f}"]
        if run.measured is not None:
            row.append(f"{run.predicted.model(service.name).latency_ms[0]:.2f}")
        table.add_row(*row)
    console.print(table)


def _show_timeline(outcome: Outcome) -> None:
    longest = max(map(len, outcome.processors))
    width = max(10, min(WIDTH, console.width - NUMBERS - longest))
    table = Table(box=None, pad_edge=False)
    for column in ("", f"{outcome.elapsed_ms / 1e3:.2f} s", "busy"):
        table.add_column(column, no_wrap=True, justify="right" if column == "busy" else "left")
    for number, name in enumerate(outcome.processors):
        line = gantt_row(outcome.on(number), outcome.elapsed_ms, width)
        table.add_row(escape(name), f"[cyan]{line}[/]", f"{outcome.utilisation[number]:.0%}")
    console.print(table)


def _trace(outcome: Outcome) -> Trace:
    """Steps on the tracks of their processors, and each model's requests while they wait."""
    trace = Trace()
    ended: dict[tuple[int, int], float] = {}
    for span in outcome.spans:
        name = f"{span.request.service.name} #{span.request.number}"
        tracks = [outcome.processors[p] for p in span.option.processors]
        for track in tracks:
            trace.events.append(_event(name, track, span.start_ms, span.end_ms))
        number, step = span.request.number, span.request.step
        since = ended.get((number, step - 1), span.request.arrived_ms)
        track = f"{span.request.service.name} waiting"
        trace.events.append(_event(name, track, since, span.start_ms))
        ended[number, step] = span.end_ms
    return trace


def _event(name: str, track: str, start_ms: float, end_ms: float) -> Event:
    return Event(name, LAUNCH, track, round(start_ms * 1e6), round(end_ms * 1e6))


def _progress() -> Progress:
    return Progress(BarColumn(), TextColumn("{task.description}"), console=notes, transient=True)
