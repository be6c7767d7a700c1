"""What ``coexec train`` prints: the training as a record, and for people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.markup import escape

from coexec.base.units import bytes_text
from coexec.cli.memory_table import memory_record, show_memory
from coexec.cli.output import console, notes
from coexec.cli.train_plan import plan_text
from coexec.core.timeline import clock_name
from coexec.planning.adaptive import AdaptiveTrainer
from coexec.report.sparkline import sparkline
from coexec.report.wording import counted
from coexec.training.fit import Result
from coexec.training.trainer import Trainer


def training_record(trainer: Trainer, result: Result, out: Path | None) -> dict[str, Any]:
    """All of a training as JSON values; times in milliseconds."""
    trained = result.steps_run > 0
    return {
        "steps": result.steps,
        "loss_first": result.loss_first,
        "loss_last": result.loss_last,
        "accuracy": result.accuracy,
        "validation_loss": result.validation_loss,
        "validations": [each._asdict() for each in result.validations],
        "kept_step": result.kept_step,
        "step_ms_median": result.step_ms_median,
        "peak_bytes": trainer.peak_bytes if trained else None,
        "activations": _activations_record(trainer) if trained else None,
        "memory": memory_record(trainer.memory_plan, trainer.memory.events),
        "naive_bytes": trainer.program.naive_bytes if trained else None,
        "processor": next(iter(trainer.processors)),
        "ema": trainer.recipe.ema,
        "clock": clock_name(trainer.processors.values()),
        "adaptations": [vars(each) for each in trainer.adaptations]
        if isinstance(trainer, AdaptiveTrainer)
        else [],
        "overflows": trainer.loss_scale.overflows if trainer.recipe.precision == "mixed" else None,
        "fallbacks": trainer.plan.table().splitlines() if trained else [],
        "notes": list(result.notes),
        "out": out,
    }


def _activations_record(trainer: Trainer) -> dict[str, Any]:
    kept, full = trainer.kept_activations
    plan = trainer.memory_plan
    way = plan.setting.recipe.activations if plan else trainer.recipe.activations
    paged = trainer.program.page_bytes
    return {"kept": way, "kept_bytes": kept, "full_bytes": full, "paged_bytes": paged}


def show_training(record: dict[str, Any], losses: list[float]) -> None:
    """Print the record for people, with the curve of the losses."""
    # With a plan, nodes that one processor refuses are another one's, not the last resort's.
    refusal = "fallback" if record["plan"] is None else "refused"
    for line in record["fallbacks"]:
        notes.print(f"[yellow]{refusal}:[/] {escape(line)}")
    for note in record["notes"]:
        notes.print(f"[yellow]note:[/] {escape(note)}")
    if losses:
        # Losses fall by orders of magnitude: the curve is that of their logarithm.
        curve = sparkline([math.log(max(loss, 1e-12)) for loss in losses], 50)
        console.print(f"loss      {curve}  {losses[0]:.4f} -> {losses[-1]:.4f} (log scale)")
    _show_held_out(record)
    for each in record["adaptations"]:
        text = f"before step {each['step']}: {each['kind']}: {each['text']}"
        notes.print(f"[yellow]adapted:[/] {escape(text)}")
    if record["plan"] is not None:
        console.print(f"plan      {escape(plan_text(record['plan']))}", highlight=False)
    console.print(f"steps     {record['steps']}, {_speed(record)}")
    if record["peak_bytes"] is not None:
        planned, naive = bytes_text(record["peak_bytes"]), bytes_text(record["naive_bytes"])
        console.print(f"memory    {planned} planned ({naive} without reuse)")
    show_memory(record["memory"])
    kept = record["activations"]
    if kept is not None and kept["kept"] != "full":
        small, full = bytes_text(kept["kept_bytes"]), bytes_text(kept["full_bytes"])
        console.print(f"kept      {small} of activations ({kept['kept']}) instead of {full}")
    if kept is not None and kept["paged_bytes"]:
        console.print(f"paged     {bytes_text(kept['paged_bytes'])} off the device")
    if record["overflows"] is not None:
        overflows = counted(record["overflows"], "step")
        console.print(f"float16   {overflows} overflowed and changed nothing")
    if record["out"] is not None:
        console.print(f"written   {escape(str(record['out']))}")


def _speed(record: dict[str, Any]) -> str:
    if math.isnan(record["step_ms_median"]):
        return "all done before: raise --epochs to train on"
    virtual = " of virtual time" if record["clock"] == "virtual" else ""
    return f"median {record['step_ms_median']:.2f} ms{virtual}"


def _show_held_out(record: dict[str, Any]) -> None:
    if record["validation_loss"] is not None:
        kept = f", after step {record['kept_step']}" if record["validations"][1:] else ""
        console.print(f"held out  loss {record['validation_loss']:.4f}{kept}")
    if record["accuracy"] is not None:
        console.print(f"accuracy  [bold green]{record['accuracy']:.2%}[/] on held-out data")
