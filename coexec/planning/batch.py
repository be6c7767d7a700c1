"""Plans that divide the batch of a model: built, priced and corrected by their own timeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from coexec.base.errors import ModelError, ProcessorError
from coexec.core.plan import Plan, Refusal
from coexec.core.types import OpCall
from coexec.cost.model import ProcessorCosts
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of, type_of
from coexec.passes.batch_parallel import SHARE, batch_size, divide_batch
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


@dataclass(frozen=True)
class Built:
    """A division of the batch with its problem by known times; see :class:`BatchPlanning`.

    ``shares`` are the names of nodes of which each processor has its own.
    """

    plan: Plan
    placed: Plan
    planned: Planned
    shares: frozenset[str] = frozenset()

    def with_rows(self, rows: Mapping[str, int]) -> Built:
        """The same with other numbers of samples, as an estimate: no graph is built, no cost asked.

        What a processor takes beyond a launch for its share is in proportion to samples. Updates
        stay where they are, and moves take what they took.
        """
        problem, own = self.planned.problem, self.plan.batch
        times = problem.time_us.copy()
        numbers = {unit.name: number for number, unit in enumerate(problem.units)}
        for task, call in enumerate(self.planned.calls):
            place = self.placed.processors[call.name]
            if call.name in self.shares or _has_rows(call, own[place]):
                unit = numbers[place]
                time = times[task, unit]
                launch = min(problem.units[unit].launch_us, time)
                times[task, unit] = launch + (time - launch) * rows[place] / own[place]
        planned = replace(self.planned, problem=replace(problem, time_us=times))
        return replace(self, plan=replace(self.plan, batch=rows), planned=planned)


def _has_rows(call: OpCall, rows: int) -> bool:
    """Whether an operand or a result has so many of something along its first axis."""
    kinds = (kind for kind in (*call.inputs, *call.outputs) if kind is not None)
    return any(kind.shape[:1] == (rows,) for kind in kinds)


Rows = tuple[tuple[str, int], ...]
"""Samples by processor; the first has what stays whole."""
Batches = dict[Rows, Built]
"""Divisions that were built: a graph is cloned, divided and priced once for the same shares."""


@dataclass(frozen=True)
class Steps:
    """What is divided: a model with its states, what processors take for it, and what is known.

    Shares of samples are those of a plan to be ``like``, if it has some: they were measured.
    """

    model: ir.Model
    costs: Mapping[str, ProcessorCosts]
    states: States
    batches: Batches
    like: Plan | None = None


def plan_batch(
    steps: Steps, whole: Planned, measure: Measure | None, adjusted: Callable[[Planned], Planned]
) -> BatchPlanning:
    """The best division that is found of a model whose problem is ``whole``.

    ``measure`` gets the calls of divided models that are new; what it measures decides, once a
    problem by such times is ``adjusted``, as ``whole`` is. Without it what new divisions take is
    estimated by the nearest one that is known: at once, where looking their costs up means to clone
    graphs and to train regressions.

    Raises:
        NoDivision: one processor alone can do it, or the model has too few samples.
    """
    names = [whole.problem.units[unit].name for unit in team(whole.problem)]
    if len(names) < 2:
        raise NoDivision("it needs two processors that can be busy at once and do all of it")

    def attempt(rows: Mapping[str, int]) -> BatchPlanning:
        key = tuple((name, rows[name]) for name in names)
        built = steps.batches.get(key)
        if built is None and measure is None:
            built = _estimated(steps.batches, rows)
        if built is None:
            built = _Attempt(steps, rows, names[0]).built(whole.refusals, measure or _nothing)
            steps.batches[key] = built
        return _priced(built, adjusted)

    try:
        size = batch_size(steps.model.graph, len(names))
        before = steps.like.batch if steps.like is not None else {}
        known = set(before) == set(names) and sum(before.values()) == size
        rows = before if known else balanced_rows(_whole_us(whole.problem, names), size)
        found = [attempt(rows)]
        for _ in range(0 if known else CORRECTIONS):
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
    steps: Steps
    rows: Mapping[str, int]
    first: str

    def built(self, refusals: tuple[Refusal, ...], measure: Measure) -> Built:
        """The division, with its problem by known times."""
        plan = Plan(self._homes(), refusals, policy=BATCH_PARALLEL, batch=self.rows)
        divided = self.steps.model.clone()
        placed = divide_batch(divided.graph, plan)
        measure([call_of(node) for node in divided.graph])
        costs = {name: each for name, each in self.steps.costs.items() if name in self.rows}
        shares = frozenset(str(n.name) for n in divided.graph if SHARE in n.metadata_props)
        return Built(plan, placed, build_problem(divided.graph, costs, self.steps.states), shares)

    def _homes(self) -> dict[str, str]:
        """Where nodes run that stay whole: updates in proportion to samples, the rest first."""
        nodes = list(self.steps.model.graph)
        gated = self.steps.states.gated_phase
        updates = [n for n in nodes if n.metadata_props.get(PHASE) == gated]
        sizes = [sum(type_of(v).nbytes for v in n.outputs if v.name) for n in updates]
        found = {str(node.name): self.first for node in nodes}
        places = homes(sizes, self.rows, self.first)
        return found | {str(n.name): place for n, place in zip(updates, places, strict=True)}


def _nothing(_calls: Sequence[OpCall]) -> None:
    """Measures nothing."""


def _estimated(batches: Batches, rows: Mapping[str, int]) -> Built | None:
    """The known division among the same processors that is nearest, with other samples."""

    def distance(built: Built) -> int:
        return sum(abs(built.plan.batch[name] - count) for name, count in rows.items())

    known = [each for each in batches.values() if each.plan.batch.keys() == rows.keys()]
    return min(known, key=distance).with_rows(rows) if known else None


def _priced(built: Built, adjusted: Callable[[Planned], Planned]) -> BatchPlanning:
    """What a division leads to."""
    planned = adjusted(built.planned)
    outcome = priced(planned.problem, built.placed)
    plan = replace(built.plan, predicted_us=outcome.makespan_us)
    return BatchPlanning(plan, built.placed, planned, outcome)


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
