"""``coexec devices``: every processor known, available or not, with the reason when not."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.markup import escape

from coexec.base.units import bytes_text
from coexec.cli.output import JsonFlag, console, print_json
from coexec.core.processor import Candidate
from coexec.processors.find import list_processors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("devices", epilog="Example: coexec devices --json")(devices)


def devices(as_json: JsonFlag = False) -> None:
    """List the processors coexec knows: what they are, or why they are not available."""
    candidates = list_processors()
    if as_json:
        print_json({"processors": [_record(candidate) for candidate in candidates]})
        return
    for candidate in candidates:
        _show(candidate)


def _show(candidate: Candidate) -> None:
    """Two lines each: they fit the narrow terminal of a phone, where a table would not."""
    spec = candidate.spec
    if spec is None:
        console.print(f"[dim]{escape(candidate.name)}[/]  [yellow]not available[/]")
        console.print(f"    {escape(candidate.reason)}", highlight=False)
        return
    memory = f", {bytes_text(spec.memory_bytes)}" if spec.memory_bytes else ""
    console.print(f"[bold green]{candidate.name}[/]  {escape(spec.device)}", highlight=False)
    console.print(
        f"    {spec.kind}, {spec.compute_units} compute units{memory}, "
        f"driver {escape(spec.driver)}",
        highlight=False,
    )
    features = {**spec.features, "unified memory": spec.unified_memory}
    marks = [f"[green]{n}[/]" if yes else f"[dim]no {n}[/]" for n, yes in features.items()]
    console.print(f"    {', '.join(marks)}", highlight=False)


def _record(candidate: Candidate) -> dict[str, object]:
    available = candidate.spec is not None
    details = asdict(candidate.spec) if candidate.spec is not None else {}
    return {**details, "name": candidate.name, "available": available, "reason": candidate.reason}
