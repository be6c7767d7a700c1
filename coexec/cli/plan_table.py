"""What ``coexec plan`` prints: the planning as a record, and as tables for people."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from coexec.base.units import bytes_text
from coexec.cli.memory_table import forms_record, show_forms
from coexec.cli.output import console, notes
from coexec.cli.quantised import quantised_counts, quantised_record
from coexec.cli.stream import show_stream, stream_record
from coexec.cli.verified_plans import corrections_record, show_corrections
from coexec.cost.predicted import PredictedCosts
from coexec.ops.region import region_of
from coexec.placement.in_floats import QuantisedLayers, layers_of
from coexec.planning.planner import Planning
from coexec.report.gantt import row as gantt_row
from coexec.serving.balance import Balanced

WIDTH, NUMBERS = 60, 34
"""Characters of a full timeline, and of the numbers behind it."""
ROWS = 40
"""Nodes that ``--explain`` shows; ``--json`` has all."""


def planning_record(planning: Planning, pipeline: Balanced | None) -> dict[str, Any]:
    """All of a planning as JSON values; times in milliseconds."""
    chosen = planning.ranking.chosen
    problem, timeline = chosen.plain.problem, chosen.timeline
    names = [*(unit.name for unit in problem.units), "host"]
    return {
        "policy": chosen.policy,
        "makespan_ms": chosen.makespan_us / 1e3,
        "makespan_p10_ms": planning.deciles_us[0] / 1e3,
        "makespan_p90_ms": planning.deciles_us[1] / 1e3,
        "busy_ms": {
            unit.name: busy / 1e3
            for unit, busy in zip(problem.units, timeline.busy_us, strict=True)
        },
        "sources": planning.planned.sources(planning.placed),
        "corrections": corrections_record(planning),
        "fits": {
            name: {"error": each.fitted.error, "samples": each.fitted.samples}
            for name, each in planning.costs.items()
            if each.fitted is not None
        },
        "policies": [
            {"policy": each.policy, "makespan_ms": each.makespan_us / 1e3, "note": each.note}
            for each in planning.ranking.outcomes
        ],
        "left_out": dict(planning.ranking.left_out),
        "batch": dict(planning.plan.batch),
        "within": forms_record(planning.tried),
        "stream": stream_record(planning, pipeline),
        "moves": [
            {
                "tensor": problem.tensors[move.tensor].name,
                "from": names[move.source],
                "to": names[move.target],
                "bytes": problem.tensors[move.tensor].nbytes,
                "start_ms": move.start_us / 1e3,
                "end_ms": move.end_us / 1e3,
            }
            for move in timeline.moves
        ],
        "nodes": [_node_record(planning, index) for index in chosen.schedule.order],
        "refusals": [vars(refusal) for refusal in planning.plan.refusals],
        "quantised": quantised_record(_quantised(planning)),
        "not_measured": {n: dict(each.failed) for n, each in planning.costs.items() if each.failed},
    }


def _node_record(planning: Planning, index: int) -> dict[str, Any]:
    problem = planning.planned.problem
    start, end = planning.ranking.chosen.span_us(index)
    split = planning.plan.splits.get(problem.tasks[index].name)
    row = planning.planned.costs[index]
    return {
        "node": problem.tasks[index].name,
        "operator": problem.tasks[index].operator,
        "processor": planning.placed.processors[problem.tasks[index].name],
        "shares": None if split is None else {"axis": split.axis, "sizes": dict(split.sizes)},
        "start_ms": start / 1e3,
        "end_ms": end / 1e3,
        "costs": {
            unit.name: {
                "ms": cost.time.median_us / 1e3,
                "p10_ms": cost.time.low_us / 1e3,
                "p90_ms": cost.time.high_us / 1e3,
                "source": cost.source,
            }
            for unit, cost in zip(problem.units, row, strict=True)
            if cost is not None
        },
    }


def _quantised(planning: Planning) -> QuantisedLayers:
    """Quantised layers of the planned model; of simulated processors it is not known how."""
    own = {
        name: costs.processor
        for name, costs in planning.costs.items()
        if not isinstance(costs, PredictedCosts)
    }
    return layers_of(region_of(planning.model.graph), planning.plan, own)


def _show_quantised(planning: Planning, *, explain: bool) -> None:
    """Layers of a quantised model on bytes and in floats; which and why where that is asked for."""
    found = _quantised(planning)
    if not found.layers:
        return
    more = "" if explain or not found.in_floats else "; --explain says which and why"
    counts = quantised_counts(found.layers, found.on_bytes)
    console.print(f"quantised layers: {counts}{more}", highlight=False)
    for each in found.in_floats if explain else ():
        what = f"{each.operator} {each.node} on {each.processor}"
        notes.print(f"[yellow]in floats:[/] {escape(what)}: {escape(each.reason)}")


def show_planning(planning: Planning, pipeline: Balanced | None, *, explain: bool) -> None:
    """The planning for people."""
    chosen = planning.ranking.chosen
    low, high = planning.deciles_us
    console.print(
        f"[bold]{escape(chosen.policy)}: {chosen.makespan_us / 1e3:.3f} ms predicted[/] "
        f"(80 % between {low / 1e3:.3f} and {high / 1e3:.3f} ms)",
        highlight=False,
    )
    sources = ", ".join(
        f"{n} {source}" for source, n in planning.planned.sources(planning.placed).items()
    )
    console.print(f"[dim]times of nodes: {sources}[/]", highlight=False)
    show_corrections(planning)
    show_forms(forms_record(planning.tried), console)
    console.print()
    if planning.plan.batch:
        shares = ", ".join(f"{count} on {name}" for name, count in planning.plan.batch.items())
        console.print(f"samples of a batch: {escape(shares)}\n", highlight=False)
    _show_timeline(planning)
    show_stream(planning, pipeline)
    _show_policies(planning)
    if explain:
        _show_nodes(planning)
    _show_quantised(planning, explain=explain)
    for line in planning.plan.table().splitlines():
        notes.print(f"[yellow]refused:[/] {escape(line)}")
    for name, each in planning.costs.items():
        if each.fitted is not None:
            fitted = each.fitted
            console.print(
                f"[dim]fit of {escape(name)}: {fitted.samples} calls, median error "
                f"{fitted.error:.0%} in cross-validation[/]",
                highlight=False,
            )
        for key, reason in each.failed.items():
            what = f"{escape(key.partition('-')[0])} on {escape(name)}"
            notes.print(f"[yellow]not measured:[/] {what}: {escape(reason)}")


def _show_timeline(planning: Planning) -> None:
    chosen = planning.ranking.chosen
    problem = chosen.plain.problem
    timeline, total = chosen.timeline, chosen.makespan_us
    longest = max(len(unit.name) for unit in problem.units)
    width = max(10, min(WIDTH, console.width - NUMBERS - longest))
    table = Table(box=None, pad_edge=False)
    for column in ("", "timeline"):
        table.add_column(column, no_wrap=True)
    for column in ("nodes", "ms", "load"):
        table.add_column(column, no_wrap=True, justify="right")
    for number, unit in enumerate(problem.units):
        mine = [i for i, place in enumerate(chosen.plain.schedule.units) if place == number]
        spans = [(timeline.start_us[i], timeline.end_us[i]) for i in mine]
        busy = timeline.busy_us[number]
        table.add_row(
            escape(unit.name),
            f"[cyan]{gantt_row(spans, total, width)}[/]",
            str(len(mine)),
            f"{busy / 1e3:.3f}",
            f"{busy / total:.0%}" if total else "-",
        )
    moved = sum(problem.tensors[move.tensor].nbytes for move in timeline.moves)
    spent = sum(move.end_us - move.start_us for move in timeline.moves)
    table.add_row(
        "transfers",
        gantt_row([(m.start_us, m.end_us) for m in timeline.moves], total, width),
        str(len(timeline.moves)),
        f"{spent / 1e3:.3f}",
        bytes_text(moved),
    )
    console.print(table)


def _show_policies(planning: Planning) -> None:
    best = planning.ranking.outcomes[0].makespan_us
    table = Table(title="Policies", title_justify="left", box=None, pad_edge=False)
    for column in ("", "ms", "", "moves", ""):
        table.add_column(column, no_wrap=True, justify="right" if column else "left")
    for outcome in planning.ranking.outcomes:
        ratio = outcome.makespan_us / best if best else 1.0
        marked = "[bold]" if outcome is planning.ranking.chosen else ""
        table.add_row(
            f"{marked}{outcome.policy}",
            f"{outcome.makespan_us / 1e3:.3f}",
            f"{ratio:.2f}x",
            str(len(outcome.timeline.moves)),
            escape(outcome.note),
        )
    console.print()
    console.print(table)
    for name, reason in planning.ranking.left_out.items():
        console.print(f"[dim]{name} was left out: {escape(reason)}[/]", highlight=False)


def _show_nodes(planning: Planning) -> None:
    units = planning.planned.problem.units
    table = Table(title="Nodes", title_justify="left", box=None, pad_edge=False)
    table.add_column("node", overflow="fold")
    table.add_column("operator", no_wrap=True)
    table.add_column("starts", justify="right", no_wrap=True)
    for unit in units:
        table.add_column(escape(unit.name), justify="right", no_wrap=True)
    nodes = [_node_record(planning, i) for i in planning.ranking.chosen.schedule.order]
    for node in nodes[:ROWS]:
        cells = [_cost_cell(node, unit.name) for unit in units]
        operator = str(node["operator"]).removeprefix("coexec::")
        table.add_row(escape(node["node"]), operator, f"{node['start_ms']:.3f}", *cells)
    console.print()
    console.print(table)
    if len(nodes) > ROWS:
        console.print(f"[dim]... and {len(nodes) - ROWS} more[/]", highlight=False)


def _cost_cell(node: dict[str, Any], unit: str) -> str:
    """Milliseconds and source; bold where the node runs."""
    cost = node["costs"].get(unit)
    if cost is None:
        return "[dim]-[/]"
    text = f"{cost['ms']:.3f} {cost['source']}"
    if node["shares"] is not None and unit in node["shares"]["sizes"]:
        return f"[bold]{text}: {node['shares']['sizes'][unit]} of axis {node['shares']['axis']}[/]"
    alone = node["shares"] is None and node["processor"] == unit
    return f"[bold]{text}[/]" if alone else f"[dim]{text}[/]"
