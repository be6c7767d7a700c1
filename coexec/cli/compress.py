"""``coexec compress``: a smaller model by pruning, factorisation, 8-bit quantisation, float16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import onnx_ir as ir
import typer
from rich.markup import escape
from rich.table import Table

from coexec.api import load, open_all
from coexec.autodiff.losses import LABELS
from coexec.base.errors import UsageError
from coexec.base.npz import read_npz
from coexec.base.units import bytes_text
from coexec.cli.options import JsonFlag, ProcessorOption, ShapeOption
from coexec.cli.output import console, notes, parse_shapes, print_json, require_writable
from coexec.cli.random_data import bind_batch
from coexec.compression.effect import accuracy, agreement, file_bytes, predict, size_of
from coexec.compression.techniques import (
    TECHNIQUES,
    Applied,
    Quantised,
    Settings,
    compress,
    parse_technique,
)
from coexec.core.types import Array
from coexec.frontend.export import save_model
from coexec.passes.float16 import Conversion
from coexec.passes.low_rank import Factorised
from coexec.passes.prune_channels import PrunedGroup
from coexec.report.wording import counted
from coexec.training.data import Dataset, load_npz

NAMES = ", ".join(
    name if technique.share is None else f"{name}:{technique.share}"
    for name, technique in TECHNIQUES.items()
)


def _count_text(count: int) -> str:
    return f"{count:,}"


def _million_text(count: int) -> str:
    return f"{count / 1e6:,.3f}"


ROWS: tuple[tuple[str, str, Callable[[int], str]], ...] = (
    ("parameters", "parameters", _count_text),
    ("weights", "weight_bytes", bytes_text),
    ("file", "file_bytes", bytes_text),
    ("MFLOP a sample", "flop", _million_text),
    ("moved a sample", "moved_bytes", bytes_text),
)
"""What is shown of a size, and how."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "compress",
        epilog="Example: coexec compress digits.onnx -t prune:0.3 -t int8 --data train.npz "
        "--validation validation.npz --out small.onnx",
    )(compress_model)


def compress_model(
    model: Annotated[Path, typer.Argument(help="ONNX file with trained weights.")],
    out: Annotated[Path, typer.Option(metavar="OUT.onnx", help="ONNX file to write.")],
    technique: Annotated[
        list[str] | None,
        typer.Option("--technique", "-t", metavar="NAME[:SHARE]", help=f"In this order: {NAMES}."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Typical inputs by name; int8 needs them."),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Inputs and labels: accuracy before and after."),
    ] = None,
    multiple: Annotated[
        int, typer.Option(min=1, help="Pruned layers keep a multiple of so many channels.")
    ] = 1,
    shape: ShapeOption = None,
    processor: ProcessorOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a model smaller; say what it costs before and after, and what it gets wrong."""
    if not technique:
        raise UsageError(f"--technique is missing: one or more of {NAMES}")
    for text in technique:
        parse_technique(text)
    require_writable(out, "--out")
    held_out = None if validation is None else load_npz(validation)
    original = load(model)
    shapes = bind_batch(original, 1, parse_shapes(shape))
    settings = Settings(multiple, {} if data is None else _inputs(data))
    with notes.status("compressing"):
        smaller, applied = compress(original, technique, settings)
    effect = None if held_out is None else _effect(original, smaller, held_out, processor)
    before = {**asdict(size_of(original, shapes)), "file_bytes": file_bytes(model)}
    # Last: where the labels are wrong, what stood there before is intact.
    save_model(smaller, out)
    record = {
        "model": model,
        "out": out,
        "before": before,
        "after": {**asdict(size_of(smaller, shapes)), "file_bytes": file_bytes(out)},
        "techniques": [
            {"technique": each.technique, "changes": [asdict(change) for change in each.changes]}
            for each in applied
        ],
        "effect": effect,
    }
    print_json(record) if as_json else _show(record, applied)


def _inputs(file: Path) -> dict[str, Array]:
    """Arrays of a file but labels, which training data have."""
    return {name: array for name, array in read_npz(file).items() if name != LABELS}


def _effect(
    original: ir.Model, smaller: ir.Model, held_out: Dataset, specs: list[str] | None
) -> dict[str, Any]:
    processors = open_all(specs or ())
    with notes.status("validating"):
        before, after = (predict(m, held_out.inputs, processors) for m in (original, smaller))
    return {
        "samples": len(held_out),
        "accuracy_before": accuracy(before, held_out.truth),
        "accuracy_after": accuracy(after, held_out.truth),
        "agreement": agreement(before, after),
        "processor": next(iter(processors)),
    }


def _show(record: dict[str, Any], applied: tuple[Applied, ...]) -> None:
    for each in applied:
        console.print(
            f"[bold]{escape(each.technique)}[/] {escape(_summary(each))}", highlight=False
        )
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("before", "after", "less"):
        table.add_column(heading, justify="right")
    for title, key, text in ROWS:
        old, new = record["before"][key], record["after"][key]
        table.add_row(title, text(old), text(new), _less(old, new))
    console.print(table)
    effect = record["effect"]
    if effect is not None:
        console.print(
            f"accuracy  {effect['accuracy_before']:.2%} -> [bold]{effect['accuracy_after']:.2%}[/] "
            f"on {effect['samples']} samples; {effect['agreement']:.2%} answered alike",
            highlight=False,
        )
    console.print(f"written   {escape(str(record['out']))}")


def _less(before: float, after: float) -> str:
    """The share that went, in whole per cent; never ``-0%``."""
    return f"{round(100 * (1 - after / before))}%" if before else "-"


def _summary(applied: Applied) -> str:
    """What a technique did, in a line, and what it left alone."""
    changes = applied.changes
    converted = [line for c in changes if isinstance(c, Conversion) for line in c.lines()]
    if converted:
        return "\n  ".join(converted)
    factorised = [change for change in changes if isinstance(change, Factorised)]
    groups = [change for change in changes if isinstance(change, PrunedGroup)]
    if factorised:
        share = sum(change.share for change in factorised) / len(factorised)
        nodes = counted(len(factorised), "node")
        return f"{nodes} factorised, on average to {share:.0%} of their work"
    if groups:
        before, after = sum(g.before for g in groups), sum(g.after for g in groups)
        kept = [f"{' '.join(g.nodes)}: {g.reason}" for g in groups if g.reason]
        rest = f"; whole: {'; '.join(kept)}" if kept else ""
        return f"{before} -> {after} channels in {counted(len(groups), 'group')}{rest}"
    quantised = [change for change in changes if isinstance(change, Quantised)]
    counts = ", ".join(f"{each.nodes} {each.op_type}" for each in quantised if each.nodes)
    floats = ", ".join(f"{each.in_floats} {each.op_type}" for each in quantised if each.in_floats)
    done = f"in 8 bits: {counts}" if counts else "nothing to do"
    return f"{done}; in floats: {floats}" if floats else done
