"""Plans that divide the batch of a model: built, priced and corrected by their own timeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from coexec.base.errors import ModelError, ProcessorError
from coexec.core.plan import Plan
from coexec.core.types import OpCall
from coexec.cost.model import ProcessorCosts
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of, type_of
from coexec.passes.batch_parallel import batch_size, divide_batch
from coexec.placement.build_problem import Planned, States, build_problem
from coexec.placement.divide import Plain
from coexec.placement.policies.batch_parallel import (
    balanced_rows,
    corrected_rows,
    homes,
    team,
)
from coexec.placement.policies.table import BATCH_PARALLEL, Outcome
from coexec.placement.problem import Problem, Schedule
from coexec.placement.timeline import simulate

CORRECTIONS = 2
Measure = Callable[[Sequence[OpCall]], None]


class NoDivision(Exception):
    """Why the batch is not divided, in words."""


@dataclass(frozen=True)
class BatchPlanning:
    """A division of the batch: ``plan`` is of the model as it was, all else of the divided one.

    ``placed`` says where each node of that runs.
    """

    plan: Plan
    placed: Plan
    planned: Planned
    outcome: Outcome


def plan_batch(
    model: ir.Model,
    costs: Mapping[str, ProcessorCosts],
    states: States,
    whole: Planned,
    measure: Measure,
    factors: Mapping[str, float],
) -> BatchPlanning:
    """The best division that is found of ``model``, whose problem is ``whole``.

    ``measure`` gets the calls of the divided model; what it measures decides, times ``factors``.

    Raises:
        NoDivision: one processor alone can do it, or the model has too few samples.
    """
    names = [whole.problem.units[unit].name for unit in team(whole.problem)]
    if len(names) < 2:
        raise NoDivision("it needs two processors that can be busy at once and do all of it")

    def attempt(rows: Mapping[str, int]) -> BatchPlanning:
        return _Attempt(model, rows, names[0], factors).priced(costs, states, whole, measure)

    try:
        rows = balanced_rows(_whole_us(whole.problem, names), batch_size(model.graph, len(names)))
        found = [attempt(rows)]
        for _ in range(CORRECTIONS):
            busy = _busy(found[-1].outcome)
            rows = corrected_rows(rows, busy)
            if any(rows == each.plan.batch for each in found):
                break
            found.append(attempt(rows))
    except (ModelError, ProcessorError) as error:
        raise NoDivision(str(error)) from error
    return min(found, key=lambda each: each.outcome.makespan_us)


@dataclass(frozen=True)
class _Attempt:
    model: ir.Model
    rows: Mapping[str, int]
    first: str
    factors: Mapping[str, float]

    def priced(
        self,
        costs: Mapping[str, ProcessorCosts],
        states: States,
        whole: Planned,
        measure: Measure,
    ) -> BatchPlanning:
        """What the division leads to."""
        plan = Plan(self._homes(states), whole.refusals, policy=BATCH_PARALLEL, batch=self.rows)
        divided = self.model.clone()
        placed = divide_batch(divided.graph, plan)
        measure([call_of(node) for node in divided.graph])
        team_costs = {name: each for name, each in costs.items() if name in self.rows}
        planned = build_problem(divided.graph, team_costs, states).slowed(self.factors)
        outcome = priced(planned.problem, placed)
        plan = replace(plan, predicted_us=outcome.makespan_us)
        return BatchPlanning(plan, placed, planned, outcome)

    def _homes(self, states: States) -> dict[str, str]:
        """Where nodes run that stay whole: updates in proportion to samples, the rest first."""
        nodes = list(self.model.graph)
        updates = [n for n in nodes if n.metadata_props.get(PHASE) == states.gated_phase]
        sizes = [sum(type_of(v).nbytes for v in n.outputs if v.name) for n in updates]
        found = {str(node.name): self.first for node in nodes}
        places = homes(sizes, self.rows, self.first)
        return found | {str(n.name): place for n, place in zip(updates, places, strict=True)}


def priced(problem: Problem, placed: Plan) -> Outcome:
    """The timeline of a problem whose tasks all have their places.

    Raises:
        NoDivision: a task is on a processor that refuses it.
    """
    numbers = {unit.name: number for number, unit in enumerate(problem.units)}
    units = tuple(numbers[placed.processors[task.name]] for task in problem.tasks)
    for task, unit, times in zip(problem.tasks, units, problem.times, strict=True):
        if times[unit] == float("inf"):
            name = problem.units[unit].name
            raise NoDivision(f"{name} does not execute {task.operator} {task.name!r}")
    schedule = Schedule(units, tuple(range(len(problem.tasks))))
    plain = Plain(problem, schedule, schedule.order)
    return Outcome(BATCH_PARALLEL, schedule, plain, simulate(problem, schedule))


def _whole_us(problem: Problem, names: Sequence[str]) -> dict[str, float]:
    """Time of all tasks on each processor."""
    sums = problem.time_us.sum(axis=0)
    numbers = {unit.name: number for number, unit in enumerate(problem.units)}
    return {name: float(sums[numbers[name]]) for name in names}


def _busy(outcome: Outcome) -> dict[str, float]:
    units = outcome.plain.problem.units
    return dict(zip((unit.name for unit in units), outcome.timeline.busy_us, strict=True))
