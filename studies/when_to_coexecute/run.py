"""Measure operators of growing size, divided and whole: python studies/when_to_coexecute/run.py.

Writes results.json, table.md and break_even.svg beside this file: the first after every operator,
which replaces the one of the same name and runtime, so that a run can be continued in parts. All
forms of an operator are timed in turns in one process; medians count. PoCL can be restricted to a
core only before it is first used, so each runtime needs a process of its own (--runtime).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
from figure import draw
from layers import LAYERS, Layer
from predict import break_even_us, heaviest, own_sync_us, plan_of, predict, with_sync
from rich.console import Console
from rich.progress import track

import coexec
from coexec.api import LAST_RESORT, open_all
from coexec.base.disk import write_atomically
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.planning.planner import Planning, PlanOptions, plan_inference
from coexec.session import Session

HERE = Path(__file__).parent
CPU_ENGINE = "ort:cpu?threads=1&cores=0"
SYNC_US = (5.0, 50.0, 500.0, 5000.0)
"""Injected into the timeline."""
EIGHTHS = range(1, 8)
TURNS, TURN_SECONDS, TRIAL_SECONDS = 7, 0.04, 0.02
"""A turn is so long: after another one's turn threads have to wake and caches to fill."""
MEASURING_SECONDS = 60.0
Feeds = Mapping[str, Array]


def main() -> None:
    """Measure what the command line asks for and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="intel", help="OpenCL runtime of the second processor")
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--figure", action="store_true", help="only draw what was measured")
    arguments = parser.parse_args()
    rows = _known()
    if not arguments.figure:
        processors = open_all([CPU_ENGINE, f"opencl:{arguments.runtime}?cores=1"])
        for name in track(arguments.layers, "measuring", console=Console(stderr=True)):
            row = measure(LAYERS[name], arguments.runtime, processors)
            rows = _replaced(rows, row)
            _write("results.json", json.dumps(rows, indent=1) + "\n")
    _write("table.md", table(rows))
    draw(rows, HERE / "break_even.svg")
    Console().print(table(rows), markup=False)


def measure(layer: Layer, runtime: str, processors: Mapping[str, Processor]) -> dict[str, Any]:
    """One operator: whole on each processor, divided as planned and as is best; predictions."""
    model = coexec.load(layer.model())
    feeds = {"x": np.random.default_rng(0).standard_normal(layer.shape, np.float32)}
    how = PlanOptions("operator_split", MEASURING_SECONDS, last_resort=LAST_RESORT)
    planning = plan_inference(model, feeds, processors, how)
    problem = planning.planned.problem
    names = [unit.name for unit in problem.units]
    forms = {
        **{f"alone {n}": Plan(dict.fromkeys(planning.plan.processors, n)) for n in names},
        "divided": best_division(model, feeds, processors, planning),
    }
    times = in_turns(
        {name: Session(model, processors, follow=plan) for name, plan in forms.items()}, feeds
    )
    own = predict(problem)
    (split,) = forms["divided"].splits.values()
    return {
        "layer": layer.name,
        "family": layer.family,
        "runtime": runtime,
        "flop": layer.flop,
        "alone_ms": {name: times[f"alone {name}"] for name in names},
        "divided_ms": times["divided"],
        "axis": split.axis,
        "sizes": dict(split.sizes),
        "sync_us": own_sync_us(problem),
        "predicted_alone_ms": own.alone_ms,
        "predicted_divided_ms": own.divided_ms,
        "speedups": {f"{us:g}": predict(with_sync(problem, us)).speedup for us in SYNC_US},
        "break_even_us": break_even_us(problem),
    }


def best_division(
    model: ir.Model, feeds: Feeds, processors: Mapping[str, Processor], planning: Planning
) -> Plan:
    """The fastest of some short runs: eighths on every axis on which the operator divides."""
    problem = planning.planned.problem
    tried: list[tuple[float, Plan]] = []
    for division in problem.divisions[heaviest(problem)]:
        sizes = {round(part / 8 * division.count) for part in EIGHTHS} - {0, division.count}
        for count in sorted(sizes):
            plan = plan_of(planning, division.axis, count * division.quantum)
            session = Session(model, processors, follow=plan)
            tried.append((_median_ms(session, feeds, TRIAL_SECONDS), plan))
    return min(tried, key=lambda pair: pair[0])[1]


def in_turns(sessions: Mapping[str, Session], feeds: Feeds) -> dict[str, float]:
    """Median milliseconds of each session over turns that alternate; the first does not count."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(TURNS + 1):
        for name, session in sessions.items():
            passed = _median_ms(session, feeds, TURN_SECONDS)
            if turn:
                times[name].append(passed)
    return {name: median(each) for name, each in times.items()}


def _median_ms(session: Session, feeds: Feeds, seconds: float) -> float:
    """Of runs for so long, after one that warms up."""
    session.run(feeds)
    passed: list[float] = []
    begin = time.perf_counter()
    while not passed or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        session.run(feeds)
        passed.append((time.perf_counter() - start) * 1e3)
    return median(passed)


def table(rows: list[dict[str, Any]]) -> str:
    """Measured and predicted speedups over the better processor, and where they end."""
    columns = [f"at {us} us" for us in rows[0]["speedups"]]
    header = ["operator", "runtime", "GFLOP", "alone", "divided", "speedup", "predicted"]
    header += [*columns, "break-even"]
    return "\n".join([_line(header), "|---" * len(header) + "|", *_lines(rows)]) + "\n"


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        alone = min(row["alone_ms"].values())
        yield _line(
            [
                row["layer"],
                row["runtime"],
                f"{row['flop'] / 1e9:.3g}",
                f"{alone:.2f} ms",
                f"{row['divided_ms']:.2f} ms",
                f"{alone / row['divided_ms']:.2f}",
                f"{row['predicted_alone_ms'] / row['predicted_divided_ms']:.2f}",
                *(f"{speedup:.2f}" for speedup in row["speedups"].values()),
                f"{row['break_even_us']:.0f} us",
            ]
        )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _known() -> list[dict[str, Any]]:
    """What earlier runs measured."""
    path = HERE / "results.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return rows


def _replaced(rows: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """``rows`` with a new one in place of its predecessor, by runtime and operator."""
    order = list(LAYERS)

    def key(row: dict[str, Any]) -> tuple[str, int]:
        return row["runtime"], order.index(row["layer"])

    return sorted([*(row for row in rows if key(row) != key(new)), new], key=key)


def _write(name: str, text: str) -> None:
    write_atomically(HERE / name, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
