"""``coexec devices``: the processors there are or could be; with ``--measure`` what they can do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from coexec.base.errors import UsageError
from coexec.base.units import bytes_text
from coexec.cli.options import JsonFlag, ProcessorOption
from coexec.cli.output import (
    console,
    notes,
    print_json,
    require_writable,
)
from coexec.core.machine import Machine, Rates
from coexec.core.machine_file import write_machine
from coexec.core.processor import Candidate
from coexec.processors.find import list_processors
from coexec.rates import machine_rates
from coexec.report.bars import bar

BAR = 24
"""Width of a full bar."""
ZERO_COPY_GBPS = 1e4
"""A link faster than any memory moves nothing."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("devices", epilog="Example: coexec devices --measure --save machines/laptop.toml")(
        devices
    )


def devices(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure peaks, bandwidths and latencies.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Write what is measured.")
    ] = None,
    processor: ProcessorOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the processors coexec knows, or measure what those here can do at most."""
    if measure:
        _measure(processor, save, as_json)
        return
    for flag, given in (("--save", save), ("--processor", processor)):
        if given:
            raise UsageError(f"{flag} goes with --measure")
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


def _measure(specs: list[str] | None, save: Path | None, as_json: bool) -> None:
    if save is not None and save.suffix != ".toml":
        raise UsageError(f"--save {save}: name it {save.stem}.toml, which --machine reads")
    require_writable(save, "--save")
    names = specs or [each.name for each in list_processors() if each.spec is not None]
    with notes.status("opening") as status:
        machine = machine_rates(
            names, refresh=True, observe=lambda name: status.update(f"measuring {escape(name)}")
        )
    if save is not None:
        write_machine(machine, save)
        notes.print(f"written {escape(str(save))}")
    if as_json:
        print_json(asdict(machine))
    else:
        _show_rates(machine)


def _show_rates(machine: Machine) -> None:
    """Bars of peaks and bandwidths beside those of the other processors."""
    peak = max(max(rates.peak_gflops.values()) for rates in machine.processors.values())
    bandwidth = max(rates.bandwidth_gbps for rates in machine.processors.values())
    for name, rates in machine.processors.items():
        console.print(f"[bold green]{escape(name)}[/]  {escape(rates.driver)}", highlight=False)
        for dtype, gflops in rates.peak_gflops.items():
            _line(dtype, gflops / peak, f"{gflops:9.1f} GFLOP/s")
        _line("stream", rates.bandwidth_gbps / bandwidth, f"{rates.bandwidth_gbps:9.1f} GB/s")
        _show_latencies(rates)


def _show_latencies(rates: Rates) -> None:
    console.print(
        f"  launch {rates.launch_us:.1f} us, launch and wait {rates.sync_us:.1f} us",
        highlight=False,
    )
    for name, link in rates.links.items():
        speed = "nothing moves" if link.gbps > ZERO_COPY_GBPS else f"{link.gbps:.1f} GB/s"
        console.print(f"  {name:<8} {link.latency_us:8.1f} us, {speed}", highlight=False)


def _line(name: str, share: float, text: str) -> None:
    console.print(f"  {name:<8} [cyan]{bar(share, BAR)}[/] {text}", highlight=False)
