"""``coexec run``: run a model and say how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer
from rich.markup import escape
from rich.table import Table

from coexec.api import compile as compile_model
from coexec.api import load
from coexec.base.disk import write_atomically
from coexec.base.errors import DataError, UsageError
from coexec.base.npz import read_npy
from coexec.base.units import bytes_text
from coexec.cli.options import JsonFlag, PrecisionOption, ProcessorOption, ShapeOption
from coexec.cli.output import (
    console,
    notes,
    parse_pairs,
    parse_shapes,
    print_json,
    require_writable,
    show_conversions,
)
from coexec.cli.quantised import quantised_counts, quantised_record
from coexec.cli.random_data import random_array, require_shapes
from coexec.core.events import Trace
from coexec.core.timeline import clock_name, clock_of
from coexec.core.types import Array
from coexec.inputs import model_inputs
from coexec.passes.float16 import precision_of
from coexec.report.perfetto_trace import write_perfetto
from coexec.report.wording import counted
from coexec.session import Session

SEED = 0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "run",
        epilog="Example: coexec run resnet18.onnx --shape x=1x3x32x32 -p opencl --repeat 10",
    )(run)


def run(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=FILE.npy", help="Data of an input; else random."),
    ] = None,
    shape: ShapeOption = None,
    processor: ProcessorOption = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="PLAN.onnx", help="Follow a plan of this model (coexec plan --save)."),
    ] = None,
    carry: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OUTPUT=INPUT",
            help="This output is that input of the next run, and stays on the device; zeros at "
            "first. May be repeated.",
        ),
    ] = None,
    precision: PrecisionOption = "",
    repeat: Annotated[int, typer.Option(min=1, help="Timed runs, after one warm-up.")] = 1,
    save_outputs: Annotated[Path | None, typer.Option(help="Write outputs to this .npz.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Perfetto trace of one run.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a model on files or on random data; report its outputs, time and memory."""
    require_writable(save_outputs, "--save-outputs")
    require_writable(trace, "--trace")
    shapes = parse_shapes(shape)
    arrays = _read_arrays(parse_pairs(inputs, "--input"))
    loaded = load(model, {**{name: a.shape for name, a in arrays.items()}, **shapes})
    carried = parse_pairs(carry, "--carry")
    feeds, made_up = _feeds(loaded, arrays, shapes, carried.values())
    session = compile_model(
        loaded, processor or (), plan=plan, carried=carried, precision=precision
    )
    outputs = session.run(feeds)
    feeds = {name: array for name, array in feeds.items() if name not in carried.values()}
    clock = clock_of(session.processors.values())
    times = [_timed(session, feeds, clock) for _ in range(repeat)]
    if save_outputs is not None:
        results: dict[str, Any] = dict(outputs)
        write_atomically(save_outputs, lambda file: np.savez(file, **results))
    if trace is not None:
        events = Trace()
        session.run(feeds, trace=events)
        (program,) = session.programs if len(session.programs) == 1 else (None,)
        write_perfetto(events, trace, program)
    record = {
        "model": model,
        "processor": next(iter(session.processors)),
        "clock": clock_name(session.processors.values()),
        "median_ms": median(times),
        "min_ms": min(times),
        "repeat": repeat,
        "peak_bytes": session.peak_bytes,
        "naive_bytes": sum(program.naive_bytes for program in session.programs),
        "outputs": {
            name: {"shape": list(array.shape), "dtype": array.dtype.name}
            for name, array in outputs.items()
        },
        "carried": carried,
        "random_inputs": made_up,
        "fallbacks": session.fallbacks.splitlines(),
        "precision": precision_of(session.model),
        "conversions": [asdict(each) for each in session.conversions],
        "quantised": quantised_record(session.quantised),
        "not_finite": _not_finite(outputs),
    }
    print_json(record) if as_json else _show(record, session)


def _show(record: dict[str, Any], session: Session) -> None:
    for line in record["fallbacks"]:
        notes.print(f"[yellow]fallback:[/] {escape(line)}")
    for line in session.quantised.table().splitlines():
        notes.print(f"[yellow]in floats:[/] {escape(line)}")
    show_conversions(session.conversions)
    for name, count in record["not_finite"].items():
        notes.print(f"[yellow]not finite:[/] {counted(count, 'element')} of output {escape(name)}")
    if record["random_inputs"]:
        notes.print(f"random data for: {escape(', '.join(record['random_inputs']))}")
    virtual = ", in virtual time" if record["clock"] == "virtual" else ""
    console.print(
        f"[bold]{escape(str(record['model']))}[/] on {escape(record['processor'])}{virtual}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(show_header=False)
    table.add_row(
        "median of runs", f"{record['median_ms']:.3f} ms ({counted(record['repeat'], 'run')})"
    )
    table.add_row("fastest run", f"{record['min_ms']:.3f} ms")
    table.add_row("device memory", bytes_text(record["peak_bytes"]))
    if (layers := record["quantised"]) is not None:
        table.add_row("quantised layers", quantised_counts(layers["layers"], layers["on_bytes"]))
    for output, name in record["carried"].items():
        table.add_row("carried", escape(f"{output} to {name}"))
    for name, kind in record["outputs"].items():
        shape = "x".join(map(str, kind["shape"]))
        table.add_row(escape(f"output {name}"), escape(f"{kind['dtype']}[{shape}]"))
    console.print(table)


def _not_finite(outputs: Mapping[str, Array]) -> dict[str, int]:
    """How many elements of outputs are infinite or no numbers, of those that have any."""
    counts = {
        name: int(array.size - np.isfinite(array).sum())
        for name, array in outputs.items()
        if array.dtype.kind == "f"
    }
    return {name: count for name, count in counts.items() if count}


def _timed(session: Session, feeds: dict[str, Array], clock: Callable[[], float]) -> float:
    """Milliseconds of a run."""
    start = clock()
    session.run(feeds)
    return (clock() - start) * 1e3


def _read_arrays(files: dict[str, str]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, file in files.items():
        try:
            arrays[name] = read_npy(Path(file))
        except DataError as error:
            raise DataError(f"--input {name}={file}: {error}") from error
    return arrays


def _feeds(
    model: ir.Model,
    arrays: dict[str, Array],
    shapes: dict[str, tuple[int, ...]],
    carried: Collection[str],
) -> tuple[dict[str, Array], list[str]]:
    """Data for every input: from files, or seeded random data where none is given or carried."""
    rng = np.random.default_rng(SEED)
    names = [str(value.name) for value in model_inputs(model)]
    unknown = [name for name in (*arrays, *shapes) if name not in names]
    if unknown:
        raise UsageError(f"the model has no input {unknown}; its inputs are {names}")
    made_up = [name for name in names if name not in arrays and name not in carried]
    require_shapes(value for value in model_inputs(model) if value.name in made_up)
    feeds = {
        str(v.name): arrays[str(v.name)] if v.name in arrays else random_array(v, rng)
        for v in model_inputs(model)
        if v.name in arrays or v.name in made_up
    }
    return feeds, made_up
