"""How a training keeps its budget of memory: as a record, and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coexec.base.units import bytes_text
from coexec.budget.keeper import MemoryEvent
from coexec.budget.placing import Tried
from coexec.budget.settings import MemoryPlan
from coexec.cli.output import console


def memory_record(
    plan: MemoryPlan | None, events: Sequence[MemoryEvent] = ()
) -> dict[str, Any] | None:
    """A plan and how it changed as JSON values; times are predictions in ms a step.

    ``ran`` are ms a step of forms that were run.
    """
    if plan is None:
        return None
    return {
        "events": [vars(event) for event in events],
        "budget_bytes": plan.budget_bytes,
        "peak_bytes": plan.peak_bytes,
        "plain_bytes": plan.plain_bytes,
        "predicted_ms": plan.step_ms,
        "plain_predicted_ms": plan.plain_ms,
        "micro_batches": plan.setting.recipe.micro_batches,
        "recomputed": list(plan.setting.recompute),
        "used": [vars(use) for use in plan.used],
        "refused": dict(plan.refused),
        "ran": dict(plan.ran),
    }


def forms_record(tried: Sequence[Tried]) -> list[dict[str, Any]]:
    """Forms of plans that were searched within a budget, as JSON values."""
    return [vars(each) for each in tried]


def show_forms(forms: Sequence[Mapping[str, Any]], to: Console) -> None:
    """The same for people: what each takes on all processors together, and a step by it."""
    if not forms:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("plan within the budget", overflow="fold")
    for column in ("recomputed", "memory", "ms a step\n(predicted)", ""):
        table.add_column(column, no_wrap=True, justify="right")
    for form in forms:
        taken = form["peak_bytes"]
        fate = "" if form["fits"] else "slower" if taken is None else "does not fit"
        memory = "" if taken is None else bytes_text(taken)
        tensors = f"{form['recomputed']} tensors"
        table.add_row(form["form"], tensors, memory, f"{form['step_ms']:.2f}", fate)
    to.print(table)


def show_memory(record: dict[str, Any] | None) -> None:
    """The techniques that were used, what each saved and cost, and which could not be."""
    if record is None:
        return
    peak, plain = bytes_text(record["peak_bytes"]), bytes_text(record["plain_bytes"])
    budget = bytes_text(record["budget_bytes"])
    console.print(f"budget    {budget}: {peak} planned, {plain} without it", highlight=False)
    if record["used"]:
        table = Table(box=None, pad_edge=False)
        for column in ("technique", ""):
            table.add_column(column, overflow="fold")
        table.add_column(no_wrap=True)
        for column in ("saves", "costs\n(predicted)"):
            table.add_column(column, no_wrap=True, justify="right")
        whole = max(record["plain_predicted_ms"], 1e-9)
        for use in record["used"]:
            table.add_row(
                use["technique"],
                use["detail"],
                "exact" if use["exact"] else "lossy",
                bytes_text(use["saved_bytes"]),
                f"{use['cost_ms'] / whole:+.1%} time",
            )
        console.print(table)
    for form, ms in record["ran"].items():
        console.print(f"[dim]was run: {ms:.1f} ms a step: {escape(form)}[/]", highlight=False)
    for event in record["events"]:
        text = f"before step {event['step']}: {event['kind']}: {event['text']}"
        console.print(f"[yellow]memory:[/] {escape(text)}", highlight=False)
    for name, reason in record["refused"].items():
        console.print(f"[dim]{escape(name)}: {escape(reason)}[/]", highlight=False)
