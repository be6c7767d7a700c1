"""The plan of ``coexec train --processors``; with policy ``auto``, plans are run before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from coexec.api import LAST_RESORT
from coexec.base.errors import MemoryBudgetError
from coexec.cli.memory_table import forms_record, show_forms
from coexec.cli.output import notes
from coexec.cli.tune import parse_budget
from coexec.cli.verified_plans import tried_steps
from coexec.core.plan import Plan
from coexec.placement.policies.table import AUTO
from coexec.placement.save import load_plan, save_plan
from coexec.planning.adaptive import adaptive
from coexec.planning.planner import Planning, PlanOptions, plan_training
from coexec.planning.replanning import training_planner
from coexec.planning.turns import SECONDS
from coexec.training.data import Dataset
from coexec.training.trainer import Trainer

PLAN = "plan.onnx"
"""File, among the checkpoints of a training, of the plan that it follows."""


def plan_options(policy: str, budget: str, specs: Sequence[str]) -> PlanOptions:
    """How to plan for ``--processors``."""
    seconds = 0.0 if budget.strip() == "0" else parse_budget(budget)
    return PlanOptions(policy, seconds, last_resort="" if LAST_RESORT in specs else LAST_RESORT)


def kept_plan(trainer: Trainer, folder: Path | None) -> Trainer | None:
    """``trainer`` again, with the plan that the training in a folder of checkpoints followed.

    None if it kept none, or one on processors that are not to be used now. That is told on stderr:
    which plan is the fastest is found by times, and another one would change last bits.
    """
    file = None if folder is None else folder / PLAN
    if file is None or not file.exists():
        return None
    plan = load_plan(file)[1]
    if missing := [name for name in plan.named if name not in trainer.processors]:
        notes.print(
            f"[yellow]the plan in {escape(str(file))} needs {escape(', '.join(missing))}[/]"
        )
        return None
    notes.print(f"plan: {plan.policy}, that of the training so far ({escape(str(file))})")
    return trainer.with_plan(plan)


def planned(
    plain: Trainer,
    data: Dataset,
    batch_size: int,
    how: PlanOptions,
    keep: tuple[Path | None, bool] = (None, False),
    *,
    adapt: bool,
) -> tuple[Trainer, dict[str, float], list[dict[str, Any]]]:
    """``plain`` again, with a plan of its step on the first batch; the plan is told on stderr.

    Unless it will ``adapt``, it is kept in a folder of checkpoints, the first of ``keep``, and if
    the training in there is resumed, the second, that of :func:`kept_plan` is followed.

    Also returns the milliseconds of a step by each plan that was run, if any was, and the forms of
    plans that were searched within a budget of memory, if there is one.
    """
    first = data.take(np.arange(batch_size) % len(data))
    tried: dict[str, float] = {}
    forms: list[dict[str, Any]] = []
    folder, resumed = keep
    if resumed and not adapt and (trainer := kept_plan(plain, folder)) is not None:
        return trainer, tried, forms
    with notes.status("planning") as status:
        how = replace(how, observe=lambda _, text: status.update(f"planning: {escape(text)}"))
        if adapt:
            names = [name for name in plain.processors if name != how.last_resort]
            planner = training_planner(plain, first.inputs, how)
            trainer = adaptive(plain, planner, names)
        else:
            try:
                planning = plan_training(plain, first.inputs, how)
            except MemoryBudgetError as error:
                return _alone(plain, first, how, error), {}, []
            forms = forms_record(planning.tried)
            if _runs_plans(plain, planning, how):
                status.update("running steps by the best plans and on each processor alone")
                planning, tried = _tried(plain, first, planning, min(SECONDS, how.seconds))
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                save_plan(planning.model, planning.plan, folder / PLAN)
            trainer = plain.with_plan(planning.plan)
    _tell(trainer, tried)
    show_forms(forms, notes)
    return trainer, tried, forms


def _alone(plain: Trainer, first: Dataset, how: PlanOptions, error: MemoryBudgetError) -> Trainer:
    """``plain`` on its first processor alone, where a budget is kept by more than recomputing.

    Raises:
        MemoryBudgetError: a policy was asked for by name, or nothing fits there either.
    """
    if how.policy != AUTO:
        raise error
    name = next(iter(plain.processors))
    processors = {n: p for n, p in plain.processors.items() if n in (name, how.last_resort)}
    alone = Trainer(plain.model, plain.recipe, processors, **plain.options())
    alone.plan_memory(first.inputs)
    notes.print(
        f"[yellow]on {escape(name)} alone, no plan on several fits:[/] {escape(str(error))}"
    )
    return alone


def _runs_plans(plain: Trainer, planning: Planning, how: PlanOptions) -> bool:
    """Plans within a budget of memory are not run: beside each other they would not keep it."""
    several = len(planning.planned.problem.units) > 1
    return how.policy == AUTO and how.seconds > 0 and several and plain.memory.steps is None


def _tried(
    plain: Trainer, first: Dataset, planning: Planning, seconds: float
) -> tuple[Planning, dict[str, float]]:
    found = tried_steps(plain, first.inputs, first.labels, planning, seconds)
    if found is None:
        return planning, {}
    return found.planning, {name: us / 1e3 for name, us in found.measured_us.items()}


def _tell(trainer: Trainer, tried: Mapping[str, float]) -> None:
    plan = trainer.followed
    assert plan is not None
    if tried:
        times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in sorted(tried.items()))
        notes.print(f"plan: {plan.policy} (a step: {escape(times)})", highlight=False)
        return
    assert plan.predicted_us is not None
    notes.print(f"plan: {plan.policy}, {plan.predicted_us / 1e3:.2f} ms predicted", highlight=False)


def plan_record(
    plan: Plan | None,
    tried: Mapping[str, float],
    forms: Sequence[Mapping[str, Any]] = (),
    batch_size: int = 0,
) -> dict[str, Any] | None:
    """A plan that is followed, for JSON; ``tried`` are milliseconds of a step by plans that ran.

    ``forms`` of plans were searched within a budget of memory. A plan that divides batches of
    another size than ``batch_size`` (0: it is the same) says for which it was made.
    """
    if plan is None:
        return None
    predicted = None if plan.predicted_us is None else plan.predicted_us / 1e3
    samples = sum(plan.batch.values())
    return {
        "policy": plan.policy,
        "predicted_ms": predicted,
        "tried_ms": dict(tried),
        "within": list(forms),
        "processors": list(plan.named),
        "batch": dict(plan.batch),
        "planned_for": None if samples in (0, batch_size) or not batch_size else samples,
    }


def plan_text(plan: dict[str, Any]) -> str:
    """The same in a line."""
    shares = ", ".join(f"{count} samples on {name}" for name, count in plan["batch"].items())
    measured, predicted = plan["tried_ms"].get(plan["policy"]), plan["predicted_ms"]
    time = "" if predicted is None else f", {predicted:.2f} ms a step predicted"
    if measured is not None:
        time = f", {measured:.2f} ms a step when it was tried"
    if plan["planned_for"]:
        time += f", planned for batches of {plan['planned_for']}"
    return f"{plan['policy'] or 'by hand'}: {shares or ', '.join(plan['processors'])}{time}"
