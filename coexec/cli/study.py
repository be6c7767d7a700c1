"""``coexec study run``: a grid of simulations, spread over processes and resumed where it ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coexec.cli.options import JsonFlag
from coexec.cli.output import console, notes, print_json, require_folder
from coexec.report.wording import counted
from coexec.study.definition import read_definition
from coexec.study.measure import Row
from coexec.study.run import Results, run_study, summary
from coexec.study.spread import Spread
from coexec.study.table import write_table

SHOWN = 5
"""Errors of failed cells that are shown."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(help="Grids of simulations, declared in a folder.", no_args_is_help=True)
    group.command(
        "run", epilog="Example: coexec study run studies/heterogeneous_inference --workers 2"
    )(run)
    group.callback()(lambda: None)
    app.add_typer(group, name="study")


def run(
    folder: Annotated[Path, typer.Argument(help="Study: a folder with its study.toml.")],
    workers: Annotated[
        int, typer.Option(min=0, help="Processes (Dask); 0 simulates in this one.")
    ] = 0,
    scheduler: Annotated[
        str, typer.Option(metavar="tcp://HOST:PORT", help="Dask scheduler with its own workers.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Where results go; out/STUDY if not given.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="At most so many cells, the others another time.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate all cells of a study that have no result yet; interrupted, it goes on from there."""
    definition = read_definition(folder)
    target = out or Path("out") / folder.resolve().name
    require_folder(target, "--out")
    began = time.perf_counter()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
        TimeRemainingColumn(),
        console=notes,
    ) as progress:
        bar = progress.add_task(escape(definition.title), total=len(definition.cells))
        results = run_study(
            definition,
            target,
            Spread(workers, scheduler),
            limit,
            lambda cells: progress.update(bar, advance=cells),
        )
    seconds = time.perf_counter() - began
    table = write_table(results.rows, target)
    record = {
        **summary(results),
        "seconds": seconds,
        "table": table,
        "errors": list(_errors(results))[:SHOWN],
    }
    print_json(record) if as_json else _show(results, seconds, table)
    if results.failed:
        raise typer.Exit(1)


def _show(results: Results, seconds: float, table: Path) -> None:
    counts = summary(results)
    new = counts["done"] - counts["found"]
    console.print(
        f"{counts['done']:,} of {counts['cells']:,} cells: {counts['found']:,} were there, "
        f"{new:,} new in {seconds:.0f} s ({new / seconds:.1f} cells/s), "
        f"{counts['refused']:,} refused (no such processor, too little memory)",
        highlight=False,
    )
    console.print(f"written {escape(str(table))}")
    if counts["left"]:
        notes.print(f"{counts['left']:,} cells are left: run the command again")
    for error, rows in list(_errors(results).items())[:SHOWN]:
        notes.print(
            f"[red]failed:[/] {counted(len(rows), 'cell')} of {escape(rows[0]['model'])} and "
            f"{escape(rows[0]['machine'])}: {escape(error)}"
        )


def _errors(results: Results) -> dict[str, list[Row]]:
    """Cells that failed, by what went wrong."""
    errors: dict[str, list[Row]] = {}
    for row in results.failed:
        errors.setdefault(row["error"], []).append(row)
    return errors
