"""``coexec compare``: two profile records side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from coexec.cli.options import JsonFlag
from coexec.cli.output import (
    console,
    notes,
    print_json,
    require_writable,
)
from coexec.report.compare import ChangeRecord, ComparisonRecord, compare, read_record
from coexec.report.html import write_comparison_html

BAR = 24
"""Characters of the longest bar."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "compare",
        epilog="Example: coexec compare before.json after.json --html comparison.html",
    )(compare_records)


def compare_records(
    before: Annotated[Path, typer.Argument(help="Record A: from coexec profile --json.")],
    after: Annotated[Path, typer.Argument(help="Record B.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with both runs.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Operators to list.")] = 10,
    as_json: JsonFlag = False,
) -> None:
    """Compare two profiles: wall time, categories, and the operators that changed most."""
    require_writable(html, "--html")
    records = [read_record(path) for path in (before, after)]
    comparison = compare(records[0], records[1], (str(before), str(after)))
    if html is not None:
        write_comparison_html(comparison, records, html)
    print_json(comparison) if as_json else _show(comparison, top)


def _show(comparison: ComparisonRecord, top: int) -> None:
    console.print(escape(comparison["verdict"]), style="bold", highlight=False)
    for letter, name in zip("AB", comparison["names"], strict=True):
        console.print(f"  {letter}  {escape(name)}", highlight=False)
    for line in comparison["differences"]:
        notes.print(f"[yellow]differs:[/] {escape(line)}", highlight=False)
    for track in comparison["tracks"]:
        console.print(_categories(track["name"], track["categories"]))
    changed = [row for row in comparison["operators"] if row["delta_ms"]]
    if changed:
        console.print(_operators(changed[:top]))


def _categories(name: str, rows: list[ChangeRecord]) -> Table:
    """Two bars a category, A above B, on one scale."""
    most = max((max(row["before_ms"], row["after_ms"]) for row in rows), default=0.0)
    table = Table(title=escape(name), title_justify="left", box=None, padding=(0, 1))
    table.add_column("category")
    table.add_column("A / B ms", justify="right")
    table.add_column("")
    for row in rows:
        if row["before_ms"] or row["after_ms"]:
            table.add_row(
                f"{escape(row['name'])}\n",
                f"{row['before_ms']:.3f}\n{row['after_ms']:.3f}",
                f"[cyan]{_bar(row['before_ms'], most)}[/]\n[green]{_bar(row['after_ms'], most)}[/]",
            )
    return table


def _bar(value: float, most: float) -> str:
    """What is not zero is seen."""
    return "█" * max(round(BAR * value / most), 1) if value > 0 else ""


def _operators(rows: list[ChangeRecord]) -> Table:
    table = Table(title="operators that changed most", title_justify="left", box=None)
    table.add_column("operator", overflow="fold")
    for heading in ("A ms", "B ms", "change", "B/A"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        colour = "green" if row["delta_ms"] < 0 else "red"
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        table.add_row(
            escape(row["name"]),
            f"{row['before_ms']:.3f}",
            f"{row['after_ms']:.3f}",
            f"[{colour}]{row['delta_ms']:+.3f}[/]",
            ratio,
        )
    return table
