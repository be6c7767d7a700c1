"""``coexec zoo``: models built in code, written as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from coexec.base.errors import UsageError
from coexec.base.units import bytes_text
from coexec.cli.options import JsonFlag
from coexec.cli.output import (
    console,
    print_json,
    require_writable,
)
from coexec.frontend.export import save_model
from coexec.zoo.catalog import CATALOG, build, entry_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "zoo", epilog="Example: coexec zoo resnet18 --out resnet18.onnx --batch 32 --classes 10"
    )(zoo)


def zoo(
    name: Annotated[str | None, typer.Argument(help="Model to build; none lists them.")] = None,
    out: Annotated[Path | None, typer.Option(help="ONNX file to write.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Fixed batch size; symbolic if absent.")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial weights.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """List the models of the zoo, or write one with seeded initial weights."""
    if name is None:
        _list(as_json)
        return
    entry_of(name)  # before a missing --out is asked for
    if out is None:
        raise UsageError(f"--out is missing: name the file to write, e.g. --out {name}.onnx")
    require_writable(out, "--out")
    model = build(name, batch=batch, classes=classes, seed=seed)
    save_model(model, out)
    parameters = sum(
        v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None
    )
    size = out.stat().st_size
    if as_json:
        print_json({"name": name, "out": out, "parameters": parameters, "bytes": size})
        return
    console.print(f"{name}: {parameters:,} parameters, {bytes_text(size)} -> {escape(str(out))}")


def _list(as_json: bool) -> None:
    if as_json:
        models = {
            name: {"description": e.description, "input_shape": e.input_shape, "classes": e.classes}
            for name, e in CATALOG.items()
        }
        print_json({"models": models})
        return
    table = Table(title="Zoo")
    table.add_column("name", no_wrap=True)  # it is what one copies
    for column in ("input x", "classes", "description"):
        table.add_column(column)
    for name, entry in CATALOG.items():
        shape = "x".join(("N", *map(str, entry.input_shape)))
        table.add_row(f"[bold]{name}[/]", shape, str(entry.classes), entry.description)
    console.print(table)
