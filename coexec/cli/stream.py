"""What ``coexec plan --policy pipeline`` says of a stream of inputs."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from coexec.cli.output import console
from coexec.placement.policies.table import PIPELINE
from coexec.placement.stream import stream_rates
from coexec.planning.planner import Planning
from coexec.serving.balance import Balanced


def stream_record(planning: Planning, pipeline: Balanced | None) -> dict[str, Any] | None:
    """Inputs per second of the pipeline and of what else a stream could do; else nothing.

    ``predicted`` is of the cut by costs of single nodes; ``balanced`` of the one that was measured.
    """
    if planning.ranking.chosen.policy != PIPELINE:
        return None
    problem = planning.planned.problem
    rates = stream_rates(problem, planning.ranking.chosen.schedule)
    names = [unit.name for unit in problem.units]
    return {
        "predicted": {
            "pipeline_per_s": rates.pipeline,
            "replicas_per_s": rates.replicas,
            "best_single_per_s": rates.alone,
            "pipeline_busy_ms": {n: us / 1e3 for n, us in zip(names, rates.busy_us, strict=True)},
            "replica_shares": dict(zip(names, rates.copies, strict=True)),
        },
        "balanced": pipeline
        and {
            "pipeline_per_s": pipeline.per_second,
            "pipeline_busy_ms": dict(pipeline.busy_ms),
            "cuts_measured": pipeline.rounds,
        },
    }


def show_stream(planning: Planning, pipeline: Balanced | None) -> None:
    """The same for people."""
    record = stream_record(planning, pipeline)
    if record is None:
        return
    table = Table(title="A stream of inputs", title_justify="left", box=None, pad_edge=False)
    for column in ("", "inputs/s", ""):
        table.add_column(column, no_wrap=bool(column), justify="right" if column else "left")
    predicted, measured = record["predicted"], record["balanced"]
    _add(table, "best processor alone", predicted["best_single_per_s"], "predicted")
    shares = ", ".join(f"{share:.0%} {n}" for n, share in predicted["replica_shares"].items())
    _add(table, "a copy on each", predicted["replicas_per_s"], f"predicted: {shares}")
    busy = _busy(predicted["pipeline_busy_ms"])
    _add(table, "pipeline", predicted["pipeline_per_s"], f"predicted: {busy}")
    if measured is not None:
        text = f"{_busy(measured['pipeline_busy_ms'])}; best of {measured['cuts_measured']} cuts"
        _add(table, "pipeline, balanced", measured["pipeline_per_s"], f"stages measured: {text}")
    console.print()
    console.print(table)


def _busy(busy_ms: dict[str, float]) -> str:
    return ", ".join(f"{name} {ms:.3f} ms" for name, ms in busy_ms.items())


def _add(table: Table, what: str, per_second: float, text: str) -> None:
    table.add_row(what, f"{per_second:.1f}", escape(text))
