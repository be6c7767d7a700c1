"""Results of simulations on the terminal: a table of all, then the fastest one drawn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from coexec.base.units import bytes_text
from coexec.cli.memory_table import memory_record, show_memory
from coexec.cli.output import console, notes
from coexec.core.events import HOST
from coexec.report.bars import bar
from coexec.report.gantt import row as gantt_row
from coexec.report.sparkline import sparkline
from coexec.report.wording import counted
from coexec.simulate import Simulation

WIDTH, BAR, LEAST_BAR, NUMBERS = 50, 16, 4, 28
"""Characters of a timeline, of a bar, and of the numbers behind it."""
BESIDE = 15
"""Characters of the numbers behind a timeline, and between its columns."""


def show(found: Sequence[Simulation], best: Simulation, *, energy: bool) -> None:
    """All results in one table, then the fastest one drawn."""
    _show_table(found, best)
    console.print()
    console.print(f"[bold]{escape(best.record['verdict'])}[/]", highlight=False)
    _show_timeline(best)
    console.print(
        f"{counted(best.copies, 'copy')}, {bytes_text(best.copied_bytes)}; memory "
        f"{bytes_text(best.needed_bytes)} of {bytes_text(best.free_bytes)} that are free; up to "
        f"{best.peak_gbps:.1f} GB/s of DRAM",
        highlight=False,
    )
    show_memory(memory_record(best.memory_plan))
    if energy:
        _show_energy(best)
    if best.samples:
        _show_repetition(best)
    if best.build_ms:
        console.print(f"building the NPU's graphs takes {best.build_ms / 1e3:.1f} s, once")
    for line in refusals_text(best):
        notes.print(f"[yellow]refused:[/] {escape(line)}")
    for name, reason in best.left_out.items():
        console.print(f"[dim]{name} was left out: {escape(reason)}[/]", highlight=False)


def show_refused(refused: Sequence[tuple[str, str]]) -> None:
    """What could not be simulated, by name, with its reason."""
    for name, reason in refused:
        notes.print(f"[yellow]refused:[/] {escape(name)}: {escape(reason)}", highlight=False)


def _show_table(found: Sequence[Simulation], best: Simulation) -> None:
    """A row per result; of machine, condition and engine only what differs."""
    names = [(e.setup.machine, e.setup.condition, e.setup.engine, e.policy) for e in found]
    differs = [len(set(column)) > 1 for column in zip(*names, strict=True)]
    differs[-1] = True
    console.print(f"[bold]{_heading(found)}[/]", highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in itertools.compress(("machine", "condition", "engine", "policy"), differs):
        table.add_column(title, no_wrap=True)
    widths = [
        max(map(len, column)) for column in itertools.compress(zip(*names, strict=True), differs)
    ]
    width = min(max(console.width - NUMBERS - sum(widths) - len(widths), LEAST_BAR), BAR)
    table.add_column("", no_wrap=True)
    for column in ("ms", "mJ", "copies"):
        table.add_column(column, justify="right", no_wrap=True)
    longest = max(each.ms for each in found)
    for each, name in zip(found, names, strict=True):
        mark = "[bold]" if each is best else ""
        table.add_row(
            *(f"{mark}{escape(text)}" for text in itertools.compress(name, differs)),
            f"[cyan]{bar(each.ms / longest if longest else 0.0, width)}[/]",
            f"{mark}{each.ms:.3f}",
            f"{each.total_j * 1e3:.1f}",
            str(each.copies),
        )
    console.print(table)


def _heading(found: Sequence[Simulation]) -> str:
    """What all results have in common."""
    common = [{e.title for e in found}]
    common += [{e.setup.condition for e in found}, {f"engine {e.setup.engine}" for e in found}]
    same = [next(iter(values)) for values in common if len(values) == 1]
    return escape(", ".join(["Simulated", *same]))


def refusals_text(each: Simulation) -> list[str]:
    """A line per processor and reason: the operators that it does not execute."""
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for refusal in each.plan.refusals:
        counts = groups.setdefault((refusal.processor, refusal.reason), {})
        counts[refusal.operator] = counts.get(refusal.operator, 0) + 1
    return [
        f"{', '.join(f'{op} x{n}' for op, n in sorted(counts.items()))} not on "
        f"{_short(processor)}: {reason}"
        for (processor, reason), counts in sorted(groups.items())
    ]


def _short(processor: str) -> str:
    """``gpu`` of ``sim:snapdragon-865/gpu?numerics=none``."""
    return processor.partition("/")[2].partition("?")[0]


def _show_timeline(best: Simulation) -> None:
    """The last run of the fastest result as it was, a row per processor."""
    runs = [event for event in best.trace.events if event.track == HOST and event.kind == "run"]
    origin = min(event.start_ns for event in runs)
    total = max(event.end_ns for event in runs) - origin
    counts: dict[str, int] = {}
    for name in best.plan.processors.values():
        counts[name] = counts.get(name, 0) + 1
    longest = max(map(len, map(_short, counts)))
    width = min(max(console.width - longest - BESIDE, LEAST_BAR), WIDTH)
    table = Table(box=None, pad_edge=False)
    for column in ("", "timeline"):
        table.add_column(column, no_wrap=True)
    for column in ("nodes", "load"):
        table.add_column(column, no_wrap=True, justify="right")
    for name, nodes in counts.items():
        spans = [
            (float(event.start_ns - origin), float(event.end_ns - origin))
            for event in best.trace.leaves()
            if event.track == name
        ]
        unit = _short(name)
        drawn = gantt_row(spans, float(total), width)
        table.add_row(unit, f"[cyan]{drawn}[/]", str(nodes), f"{best.busy[unit]:.0%}")
    console.print(table)


def _show_energy(best: Simulation) -> None:
    table = Table(title="Energy of a run", title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for column in ("mJ", "share"):
        table.add_column(column, justify="right")
    for part, joules in sorted(best.energy_j.items(), key=lambda item: -item[1]):
        share = joules / best.total_j
        drawn = f"[cyan]{bar(share, BAR)}[/]"
        table.add_row(escape(part), drawn, f"{joules * 1e3:.2f}", f"{share:.1%}")
    console.print()
    console.print(table)


def _show_repetition(best: Simulation) -> None:
    first, last = best.samples[0], best.samples[-1]
    console.print(
        f"\n{best.setup.seconds:g} s back to back: {first.ms:.2f} ms a run at first, "
        f"{last.ms:.2f} ms at last, up to {best.celsius:.1f} C, clocks down to "
        f"{min(sample.speed for sample in best.samples):.0%}, "
        f"{best.battery_share:.2%} of the battery",
        highlight=False,
    )
    console.print(f"[cyan]{sparkline([s.ms for s in best.samples], WIDTH)}[/] ms a run")
