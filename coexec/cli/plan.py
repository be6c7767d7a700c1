"""``coexec plan``: which processor should execute which node, what that takes, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from coexec.api import LAST_RESORT, load, open_all
from coexec.autodiff.losses import LOSSES
from coexec.autodiff.optimizers import OPTIMIZERS
from coexec.base.errors import UsageError
from coexec.base.units import bytes_text
from coexec.budget.placing import JOINT
from coexec.cli.memory_table import forms_record, memory_record, show_forms, show_memory
from coexec.cli.options import (
    BatchSizeOption,
    BatchStatisticsOption,
    JsonFlag,
    LossOption,
    MemoryLossyOption,
    MemoryOption,
    OptimizerOption,
    ShapeOption,
    require_known,
)
from coexec.cli.output import (
    console,
    notes,
    parse_shapes,
    print_json,
    require_writable,
)
from coexec.cli.random_data import bind_batch, random_feeds, random_labels
from coexec.cli.stream import show_stream, stream_record
from coexec.cli.tune import parse_budget
from coexec.cli.verified_plans import (
    corrections_record,
    runs_plans,
    show_corrections,
    show_verified,
    tried_steps,
    verified_record,
)
from coexec.ops.node import type_of
from coexec.placement.policies.table import ALL, AUTO, NAMES, PIPELINE
from coexec.placement.save import save_plan
from coexec.planning.planner import (
    Planning,
    PlanOptions,
    plan_inference,
    plan_training,
)
from coexec.planning.turns import SECONDS
from coexec.planning.verification import verify
from coexec.report.gantt import row as gantt_row
from coexec.serving.balance import Balanced, balanced
from coexec.training.trainer import Trainer

SEED = 0
WIDTH, NUMBERS = 60, 34
"""Characters of a full timeline, and of the numbers behind it."""
ROWS = 40
"""Nodes that ``--explain`` shows; ``--json`` has all."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "plan",
        epilog='Example: coexec plan resnet18.onnx --processors "opencl:intel,opencl:pocl" '
        "--policy all --explain",
    )(plan)


def plan(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    processors: Annotated[
        str, typer.Option(metavar="A,B", help="Processors to plan for, separated by commas.")
    ] = "",
    train: Annotated[bool, typer.Option("--train", help="A training step, no inference.")] = False,
    loss: LossOption = "cross-entropy",
    optimizer: OptimizerOption = "sgd",
    momentum: Annotated[float, typer.Option(help="For --optimizer sgd.")] = 0.9,
    batch_size: BatchSizeOption = 1,
    shape: ShapeOption = None,
    policy: Annotated[
        str,
        typer.Option(
            help=f"One of: {', '.join(NAMES)}, with --memory {JOINT}; {ALL}: auto, exact if small."
        ),
    ] = AUTO,
    budget: Annotated[
        str, typer.Option(help="Time for measuring what is not known yet: 30s, 2m; 0: none.")
    ] = "30s",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure again what is known.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Each node with its cost on every processor.")
    ] = False,
    verified: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Run the best plans and each processor; take the fastest. Policy auto does.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="PLAN.onnx", help="Write the model with the plan in it.")
    ] = None,
    memory: MemoryOption = "",
    memory_lossy: MemoryLossyOption = False,
    batch_statistics: BatchStatisticsOption = "whole",
    as_json: JsonFlag = False,
) -> None:
    """Plan a model on several processors: times, load, moves, refusals, and other policies."""
    require_writable(save, "--save")
    require_known("--loss", loss, LOSSES)
    require_known("--optimizer", optimizer, OPTIMIZERS)
    require_known("--policy", policy, (*NAMES, ALL, JOINT))
    seconds = 0.0 if budget.strip() == "0" else parse_budget(budget)
    specs = [spec.strip() for spec in processors.split(",") if spec.strip()]
    _require_train(memory, train=train)
    runs = runs_plans(verified, policy, seconds, specs, memory)
    opened = open_all(specs)
    kept, tried, pipeline = None, None, None
    loaded = load(model, bind_batch(load(model), batch_size, parse_shapes(shape)))
    rng = np.random.default_rng(SEED)
    feeds = random_feeds(loaded, rng)
    with _progress() as progress:
        task = progress.add_task("", total=max(seconds, 1e-9))

        def observe(passed: float, text: str) -> None:
            progress.update(task, completed=min(passed, seconds), description=escape(text))

        last_resort = "" if LAST_RESORT in specs else LAST_RESORT
        how = PlanOptions(
            policy, seconds, refresh=refresh, last_resort=last_resort, observe=observe
        )
        if train:
            # As `coexec train` has it by default: the plan is that of its step.
            trainer = Trainer(
                # A step may divide its batch, of which the file says no size.
                load(model, parse_shapes(shape)),
                LOSSES[loss](),
                OPTIMIZERS[optimizer](
                    1e-3, **({"momentum": momentum} if optimizer == "sgd" else {})
                ),
                opened,
                memory=memory or None,
                batch_statistics=batch_statistics,  # type: ignore[arg-type]  # it checks that
                lossy=memory_lossy,
            )
            planning = plan_training(trainer, feeds, how)
            shown = trainer.with_plan(planning.plan) if planning.tried else trainer
            kept = memory_record(shown.plan_memory(feeds))
            if runs:
                progress.update(task, description="running steps by the best plans")
                labels = random_labels(trainer.loss, type_of(loaded.graph.outputs[0]), rng)
                tried = tried_steps(trainer, feeds, labels, planning, min(SECONDS, seconds))
        else:
            planning = plan_inference(loaded, feeds, opened, how)
            if runs:
                progress.update(task, description="running the best plans")
                tried = verify(loaded, feeds, opened, planning)
        planning = planning if tried is None else tried.planning
        if policy == PIPELINE and seconds:
            progress.update(task, description="balancing the pipeline by running it")
            pipeline = balanced(planning, feeds, opened, LAST_RESORT)
            planning = replace(planning, plan=pipeline.plan)
    if save is not None:
        save_plan(planning.model, planning.plan, save)
        notes.print(f"written {escape(str(save))} ({bytes_text(save.stat().st_size)})")
    if as_json:
        found = record(planning, pipeline)
        print_json({**found, "verified": tried and verified_record(tried), "memory": kept})
    else:
        show(planning, pipeline, explain=explain)
        show_memory(kept)
        if tried is not None:
            show_verified(tried)


def _require_train(memory: str, *, train: bool) -> None:
    if memory and not train:
        raise UsageError("--memory is the budget of a training step: give --train too")


def record(planning: Planning, pipeline: Balanced | None = None) -> dict[str, Any]:
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


def show(planning: Planning, pipeline: Balanced | None, *, explain: bool) -> None:
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


def _progress() -> Progress:
    return Progress(BarColumn(), TextColumn("{task.description}"), console=notes, transient=True)
