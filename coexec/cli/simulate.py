"""``coexec simulate``: a model on phones that are not here, in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from coexec.api import load
from coexec.autodiff.optimizers import OPTIMIZERS
from coexec.base.errors import MemoryBudgetError, ProcessorError, UsageError
from coexec.base.units import bytes_text
from coexec.cli.memory_table import memory_record
from coexec.cli.options import (
    BatchSizeOption,
    BatchStatisticsOption,
    JsonFlag,
    LossOption,
    LossOutputOption,
    MemoryLossyOption,
    MemoryOption,
    OptimizerOption,
    ShapeOption,
    require_known,
)
from coexec.cli.output import (
    notes,
    parse_shapes,
    print_json,
    require_writable,
)
from coexec.cli.random_data import bind_batch, random_feeds, random_labels
from coexec.cli.simulation_table import show, show_refused
from coexec.cli.train_parts import loss_on
from coexec.cost.soc.engine_profile import COEXEC
from coexec.cost.soc.estimate import ENGINES
from coexec.placement.policies.table import ALL, AUTO, NAMES
from coexec.processors.simulated.options import CHOICES, ON
from coexec.report.html import write_html
from coexec.report.perfetto_trace import write_perfetto
from coexec.report.result_bars import Result, write_result_bars
from coexec.simulate import Setup, Simulation, Subject, simulate
from coexec.simulation.condition import CONDITIONS
from coexec.steps.builder import Recipe

SEED = 0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "simulate",
        epilog="Example: coexec simulate resnet18.onnx --machine snapdragon-865,snapdragon-855 "
        "--policy all --condition idle,hot",
    )(simulate_command)


def simulate_command(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    machine: Annotated[
        str, typer.Option(metavar="A,B", help="Phones by name (or a TOML file), with commas.")
    ] = "snapdragon-865",
    processors: Annotated[
        str, typer.Option(metavar="cpu,gpu", help="Of the phone, or mixes as cpu:1prime+3big.")
    ] = "",
    policy: Annotated[
        str,
        typer.Option(metavar="A,B", help=f"Of: {', '.join(NAMES)}; {ALL}: each of them."),
    ] = AUTO,
    condition: Annotated[
        str, typer.Option(metavar="A,B", help=f"Of: {', '.join(CONDITIONS)}.")
    ] = "idle",
    engine: Annotated[
        str, typer.Option(metavar="A,B", help=f"Whose kernels, of: {', '.join(ENGINES)}.")
    ] = COEXEC,
    precision: Annotated[
        str, typer.Option(help="Times as if it computed in float32, float16 or int8.")
    ] = "",
    wait: Annotated[
        str, typer.Option(help="The host waits for a GPU by its driver (finish) or a flag.")
    ] = "finish",
    fusion: Annotated[
        str, typer.Option(help="Elementwise operators run in the kernel before them: on or off.")
    ] = ON,
    train: Annotated[bool, typer.Option("--train", help="A training step, no inference.")] = False,
    loss: LossOption = "cross-entropy",
    loss_output: LossOutputOption = "",
    optimizer: OptimizerOption = "sgd",
    batch_size: BatchSizeOption = 1,
    memory: MemoryOption = "",
    memory_lossy: MemoryLossyOption = False,
    batch_statistics: BatchStatisticsOption = "whole",
    shape: ShapeOption = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs, one after the other.")] = 10,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Then repeat the model for so long: heat, battery.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of what varies from run to run.")] = 0,
    energy: Annotated[bool, typer.Option("--energy", help="Show where energy goes.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Perfetto trace of a run.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw all results (matplotlib).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate a model on phones: latency, energy, transfers, and the plan, in virtual time."""
    for path, flag in ((html, "--html"), (trace, "--trace"), (compare, "--compare")):
        require_writable(path, flag)
    for each_policy in _items(policy):
        require_known("--policy", each_policy, (*NAMES, ALL))
    require_known("--fusion", fusion, CHOICES["fusion"])
    chosen = loss_on(loss, loss_output)
    require_known("--optimizer", optimizer, OPTIMIZERS)
    shapes = parse_shapes(shape)
    loaded = load(model, bind_batch(load(model), batch_size, shapes))
    rng = np.random.default_rng(SEED)
    subject = Subject(loaded, random_feeds(loaded, rng), str(model))
    if train:
        # A step may divide its batch, of which the file says no size.
        subject = replace(subject, model=load(model, shapes))
        labels = random_labels(chosen, loaded, rng)
        recipe = Recipe(
            chosen,
            OPTIMIZERS[optimizer](1e-3),
            batch_statistics=batch_statistics,  # type: ignore[arg-type]  # it checks that
        )
        subject = replace(subject, recipe=recipe, labels=labels)
    setups = [
        Setup(
            *(each_machine, _items(processors), each_policy, each_condition, each_engine),
            *(precision, wait, seed, runs, seconds),
            fusion=fusion,
            memory=memory,
            lossy=memory_lossy,
        )
        for each_machine, each_condition, each_engine, each_policy in itertools.product(
            _items(machine), _items(condition), _items(engine), _items(policy)
        )
    ]
    found, refused = _simulated(subject, setups)
    best = min(found, key=lambda each: each.ms)
    _write(found, best, html, trace, compare)
    if as_json:
        results = [record(each) for each in found]
        refusals = [refused_record(each) for each in refused]
        print_json({"model": str(model), "results": results, "refused": refusals})
    else:
        show(found, best, energy=energy)
        show_refused([(each.name, str(each.reason)) for each in refused])


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


@dataclass(frozen=True)
class Refused:
    """What could not be simulated beside what could: a phone without the memory or processor."""

    setup: Setup
    reason: MemoryBudgetError | ProcessorError

    @property
    def name(self) -> str:
        setup = self.setup
        return f"{setup.machine} {setup.condition} {setup.engine} {setup.policy}"


def _simulated(subject: Subject, setups: Sequence[Setup]) -> tuple[list[Simulation], list[Refused]]:
    """All that can be simulated, and why the rest cannot.

    Raises:
        UsageError: nothing was asked for, or something unknown.
        ProcessorError, MemoryBudgetError: nothing can be simulated; the reason for the last one.
    """
    if not setups:
        flags = "--machine, --condition, --engine or --policy"
        raise UsageError(f"nothing to simulate: {flags} names nothing")
    found: list[Simulation] = []
    refused: list[Refused] = []
    with notes.status("") as status:
        for setup in setups:
            status.update(escape(f"{setup.machine}, {setup.condition}, {setup.engine}"))
            try:
                found += simulate(subject, setup)
            except (MemoryBudgetError, ProcessorError) as reason:
                refused.append(Refused(setup, reason))
    if not found:
        show_refused([(each.name, str(each.reason)) for each in refused[:-1]])
        raise refused[-1].reason
    return found, refused


def _write(
    found: Sequence[Simulation],
    best: Simulation,
    html: Path | None,
    trace: Path | None,
    compare: Path | None,
) -> None:
    if html is not None:
        write_html(best.record, html)
    if trace is not None:
        write_perfetto(best.trace, trace, best.program)
    if compare is not None:
        draw(found, compare)
    for path in (html, trace, compare):
        if path is not None:
            notes.print(f"written {escape(str(path))} ({bytes_text(path.stat().st_size)})")


def record(each: Simulation) -> dict[str, Any]:
    """One result as JSON values; milliseconds, millijoules, bytes."""
    setup = each.setup
    return {
        "machine": setup.machine,
        "condition": setup.condition,
        "engine": setup.engine,
        "policy": each.policy,
        "ms": each.ms,
        "latencies_ms": each.latencies_ms,
        "predicted_ms": None if each.plan.predicted_us is None else each.plan.predicted_us / 1e3,
        "energy_mj": {part: joules * 1e3 for part, joules in each.energy_j.items()},
        "busy": dict(each.busy),
        "copies": each.copies,
        "copied_bytes": each.copied_bytes,
        "needed_bytes": each.needed_bytes,
        "free_bytes": each.free_bytes,
        "build_ms": each.build_ms,
        "hottest_celsius": each.celsius,
        "battery_share": each.battery_share,
        "peak_gbps": each.peak_gbps,
        "plan": dict(each.plan.processors),
        "refusals": [vars(refusal) for refusal in each.plan.refusals],
        "left_out": dict(each.left_out),
        "memory": memory_record(each.memory_plan),
        "repetition": [vars(sample) for sample in each.samples],
    }


def refused_record(each: Refused) -> dict[str, Any]:
    """What could not be simulated as JSON values; ``least_bytes`` is what a budget would take."""
    reason = each.reason
    return {
        "machine": each.setup.machine,
        "condition": each.setup.condition,
        "engine": each.setup.engine,
        "policy": each.setup.policy,
        "reason": str(reason),
        "least_bytes": reason.least_bytes if isinstance(reason, MemoryBudgetError) else None,
    }


def draw(found: Sequence[Simulation], path: Path) -> None:
    """All results as a picture.

    Raises:
        UsageError: matplotlib is not installed.
        SaveError: the file cannot be written.
    """
    results = [
        Result(
            f"{each.setup.machine} {each.setup.condition} {each.setup.engine}",
            each.policy,
            each.ms,
            each.total_j,
        )
        for each in found
    ]
    record = found[0].record
    write_result_bars(results, f"{Path(record['model']).name}, {record['mode']}", path)
