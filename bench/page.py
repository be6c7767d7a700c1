"""``python -m bench.page``: docs/benchmarks.md and its picture, from a file of results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import record
from bench.curve import draw as draw_curve
from bench.picture import picture
from bench.protocol import ROOT
from bench.show import rate_text, ratio_text, time_text
from bench.targets import TARGETS

Record = Mapping[str, Any]

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
CURVE = "planning.svg"
"""Beside the page."""
HEAD = """# Benchmarks

Made by `python -m bench.page` from `{source}`; do not edit.

{machine}

![Our time over the best peer's, per suite]({picture})

Ratios are our time over the best peer's: below 1 we are faster. In brackets are the extremes over
the pairs of turns.

## How a comparison is kept fair

* Every peer is a process of its own, pinned to the same cores, with as many threads. They take
  turns (A B A B ...); the first turn warms up and does not count. Noise of the machine meets all.
* Before times count, results are compared: a peer that computes something else is refused, and so
  are we. Whose result most others share is the yardstick. 16-bit training is held against 16-bit
  training only.
* A training step is everything: copying the batch, forward, loss, backward, update, reading the
  loss. PyTorch's time is the fastest of eager, channels-last and `torch.compile`.
* Single operators run on data that is on the device already, inference includes both copies.
* Times are medians over turns of the medians of calls; of matrix products the best counts.
* Shares in brackets after GFLOP/s and GB/s are of the peak and the streaming rate that
  `coexec devices --measure` finds in the same run.

`make bench` measures what fits into 15 minutes, names what it leaves out (a run of that suite alone
adds it) and rewrites this page; a part of it is
`python -m bench conv --filter "batch 1" --peers torch --runtime intel` (`--help` lists more).
`python bench/profile_step.py resnet18 opencl:pocl` shows where the time of one step goes.
"""


class Row(list[str]):
    """Cells of a line of a table."""

    def __str__(self) -> str:
        return "| " + " | ".join(cell.replace("|", "/") for cell in self) + " |"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; nothing where there are no rows."""
    if not rows:
        return []
    return [str(Row(header)), "|" + "---|" * len(header), *(str(Row(r)) for r in rows), ""]


def summary_lines(suite: Record) -> list[str]:
    """Geometric means and worst cases."""
    header = ("", "cases", "of them", "geometric mean", "worst", "which")
    rows = [
        (
            entry["peer"],
            entry["group"] or "all",
            str(entry["cases"]),
            f"{entry['geomean']:.2f}",
            f"{entry['worst']:.2f}",
            entry["worst_case"],
        )
        for entry in suite["summary"]
    ]
    return table(header, rows)


def case_cells(case: Record, suite: Record) -> list[tuple[str, ...]]:
    """Our rows of a case, each beside the peer that its ratio is to."""
    by_name = {row["peer"]: row for row in case["rows"]}
    rows: list[tuple[str, ...]] = []
    for row in case["rows"]:
        if not row["ours"]:
            continue
        if "error" in row:
            rows.append((case["name"], row["peer"], row["error"], "", "", ""))
            continue
        best = by_name.get(row.get("ratio", {}).get("to", ""))
        beside = f"{best['peer']} {time_text(best['seconds'])}" if best else ""
        rate = rate_text(row, suite["roof"], suite["limits"])
        cells = (time_text(row["seconds"]), rate, beside, ratio_text(row))
        rows.append((case["name"], row["peer"], *cells))
    return rows


def suite_lines(name: str, suite: Record) -> list[str]:
    """A section: summary, every case, what else was found out about it."""
    lines = [f"## {suite['title']}", "", f"`python -m bench {name}`, {suite['date'][:10]}.", ""]
    lines += summary_lines(suite)
    cells = [row for case in suite["cases"] for row in case_cells(case, suite)]
    header = ("case", "", "time", "rate", "best peer", "ratio")
    aims = TARGETS[name](suite) if name in TARGETS else []
    lines += table(("work", "target", "measured"), aims)
    details = table(header, cells)
    if len(cells) > 60:
        details = ["<details><summary>All cases</summary>", "", *details, "</details>", ""]
    if name == "planning":
        lines += [f"![Planning time by the number of nodes]({CURVE})", ""]
    return [*lines, *details, *every_peer_lines(suite), *fact_lines(suite)]


def every_peer_lines(suite: Record) -> list[str]:
    """Times of all peers in their columns, where a case has more than two."""
    names = list(
        dict.fromkeys(r["peer"] for case in suite["cases"] for r in case["rows"] if not r["ours"])
    )
    if len(names) < 3:
        return []
    rows = []
    for case in suite["cases"]:
        found = {r["peer"]: r for r in case["rows"]}
        rows.append([case["name"], *(_cell(found.get(name)) for name in names)])
    return ["All peers:", "", *table(("case", *names), rows)]


def _cell(row: Record | None) -> str:
    if row is None:
        return ""
    return "refused" if "error" in row else time_text(row["seconds"])


FACTS = {
    "planned_bytes": ("planned on the device", 1e-6, "MB"),
    "grown_bytes": ("process grew by", 1e-6, "MB"),
    "start_warm_s": ("start, caches full", 1.0, "s"),
    "start_cold_s": ("start, caches empty", 1.0, "s"),
    "kernels": ("kernels", 1.0, ""),
    "predicted_ms": ("predicted", 1.0, "ms"),
    "divided": ("nodes divided", 1.0, ""),
    "first_share": ("share of the first", 100.0, "%"),
    "host_us": ("host time of a launch", 1.0, "us"),
    "trace_pairs": ("pairs of steps", 1.0, ""),
    "trace_cost": ("tracing adds", 100.0, "%"),
    "trace_cost_low": ("first quartile", 100.0, "%"),
    "trace_cost_high": ("last quartile", 100.0, "%"),
}
"""Facts that the page shows: heading, factor, unit."""


def fact_lines(suite: Record) -> list[str]:
    """Memory, start-up and launches: a line per peer that has any of them."""
    used = [
        key for key in FACTS if any(key in r["facts"] for c in suite["cases"] for r in c["rows"])
    ]
    rows = [
        (case["name"], row["peer"], *(_fact(row["facts"].get(key), key) for key in used))
        for case in suite["cases"]
        for row in case["rows"]
        if any(key in row["facts"] for key in used)
    ]
    return table(("case", "", *(FACTS[key][0] for key in used)), rows)


def _fact(value: float | None, key: str) -> str:
    if value is None:
        return ""
    _, factor, unit = FACTS[key]
    return f"{value * factor:.3g} {unit}".rstrip()


def machine_text(found: Record) -> str:
    """One sentence on the machine, one on who took part."""
    machine = found["machine"]
    named: dict[str, None] = {}
    for suite in found["suites"].values():
        for who in suite["contenders"].values():
            if "version" in who:
                named[f"{who['library']} {who['version'].split('-')[0]}"] = None
    text = f"{machine['cpu']}, {machine['threads']} threads, {machine['system']}"
    return f"{text}; {', '.join(named)}. Measured {found['date'][:10]}."


def page(found: Record, source: str, picture_name: str) -> str:
    """The Markdown document."""
    head = HEAD.format(source=source, machine=machine_text(found), picture=picture_name)
    lines = [head]
    for name, suite in found["suites"].items():
        lines += suite_lines(name, suite)
    return "\n".join(lines).rstrip() + "\n"


def newest(folder: Path) -> Path:
    """The latest results of a whole run.

    Raises:
        RecordError: there are none.
    """
    files = [f for f in folder.glob("*.json") if not f.name.endswith(".part.json")]
    if not files:
        raise record.RecordError(f"{folder}: no results yet: `make bench` measures them")
    return max(files, key=lambda file: file.stat().st_mtime)


def main(argv: Sequence[str] | None = None) -> int:
    """Write page and picture; exit status 2 with one line where there are no results."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="file of results; the newest")
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    try:
        source = arguments.results or newest(RESULTS)
        found = record.read(source)
    except record.RecordError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    drawn: Path = arguments.out.with_suffix(".svg")
    drawn.write_text(picture(found))
    if "planning" in found["suites"]:
        draw_curve(found["suites"]["planning"], arguments.out.with_name(CURVE))
    shown = source.resolve()
    name = str(shown.relative_to(ROOT)) if shown.is_relative_to(ROOT) else shown.name
    arguments.out.write_text(page(found, name, drawn.name))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
