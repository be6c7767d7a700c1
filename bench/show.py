"""Results in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from bench.case import Case, Suite
from bench.targets import TARGETS

Record = Mapping[str, Any]


def time_text(seconds: float) -> str:
    """Microseconds, milliseconds or seconds with three digits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def rate_text(row: Record, roof: str, limits: Record) -> str:
    """GFLOP/s or GB/s with the share of the measured limit."""
    key, limit, unit = ROOFS.get(roof, ("", "", ""))
    if key not in row:
        return ""
    best = max((device[limit] for device in limits.values()), default=0.0)
    share = f" ({row[key] / best:.0%})" if best else ""
    return f"{row[key]:.3g} {unit}{share}"


ROOFS = {
    "flop": ("gflops", "peak_gflops", "GFLOP/s"),
    "bytes": ("gbps", "bandwidth_gbps", "GB/s"),
}
"""What a row is held against: its own key, the limit's, the unit."""


def ratio_text(row: Record) -> str:
    """The ratio and its extremes."""
    if "ratio" not in row:
        return ""
    found = row["ratio"]
    return f"{found['value']:.2f} ({found['low']:.2f}..{found['high']:.2f})"


def case_lines(case: Record, roof: str, limits: Record) -> list[tuple[str, ...]]:
    """A line per peer: name, time, rate, ratio or the reason why there is none."""
    lines: list[tuple[str, ...]] = []
    for row in case["rows"]:
        if "error" in row:
            lines.append((row["peer"], "-", "", row["error"]))
            continue
        rate = rate_text(row, roof, limits)
        lines.append((row["peer"], time_text(row["seconds"]), rate, ratio_text(row)))
    return lines


def show_case(console: Console, case: Record, roof: str, limits: Record) -> None:
    """One case, as soon as it is done."""
    table = Table(title=case["name"], title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("peer", "time", "rate", "ratio to the best peer"):
        table.add_column(column, no_wrap=column != "ratio to the best peer")
    for line in case_lines(case, roof, limits):
        table.add_row(*line)
    console.print(table)


def show_summary(console: Console, name: str, summary: Sequence[Record]) -> None:
    """Geometric means and worst cases of a suite."""
    if not summary:
        return
    table = Table(title=f"{name}: our time over the best peer's", title_justify="left")
    for column in ("peer", "group", "cases", "geomean", "worst", "which"):
        table.add_column(column, justify="right" if column in ("cases", "geomean") else "left")
    for entry in summary:
        table.add_row(
            entry["peer"],
            entry["group"] or "all",
            str(entry["cases"]),
            f"{entry['geomean']:.2f}",
            f"{entry['worst']:.2f}",
            entry["worst_case"],
        )
    console.print(table)


def show_targets(console: Console, name: str, suite: Record) -> None:
    """What the suite set out to reach, beside what was measured; most suites have no targets."""
    lines = TARGETS[name](suite) if name in TARGETS else []
    if not lines:
        return
    table = Table(title=f"{name}: targets", title_justify="left")
    for column in ("work", "target", "measured"):
        table.add_column(column)
    for line in lines:
        table.add_row(*line)
    console.print(table)


class Progress:
    """A bar that moves only when it is told something: a thread of its own would disturb.

    ``limits`` is filled while the run goes on.
    """

    def __init__(self, console: Console, cases: int, limits: Record) -> None:
        self._console, self._limits = console, limits
        self._bar = ProgressBar(total=cases, width=30)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, text: str) -> None:
        """Draw bar and text; nothing where nobody looks."""
        if not self._console.is_terminal:
            return
        line = Table.grid(padding=(0, 1))
        line.add_row(self._bar, text)
        self._live.update(line, refresh=True)

    def skipped(self, suite: Suite, case: Case, why: str) -> None:
        """A case less; a later run with a filter can measure it."""
        self._bar.completed += 1
        self._console.print(f"skipped, {why}: {suite.name}, {case.name}")

    def done(self, suite: Suite, case: Record) -> None:
        """One case more; its rows stay on the screen."""
        self._bar.completed += 1
        show_case(self._console, case, suite.roof, self._limits)
