"""The best schedule there is, by constraint programming: the yardstick on small graphs.

Each task is an optional interval on every processor that takes it; intervals on one resource do not
overlap; a task starts after its operands have arrived. Solved by OR-tools' CP-SAT (Perron, Didier,
"CP-SAT"), which starts from the best of the other policies. It knows no slowdown of processors by
each other and no host that hands tasks over: there it is optimal only for the times alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coexec.base.errors import UsageError
from coexec.placement.problem import Problem, Schedule
from coexec.placement.timeline import Timeline, simulate

SECONDS = 60.0
STEPS = 1_000_000
"""Resolution: the starting schedule's makespan in so many steps."""
MISSING = "the exact policy needs OR-tools: pip install 'coexec[plan]'"


@dataclass(frozen=True)
class Solution:
    """A schedule; ``proved`` if no better one exists, ``bound_us`` below which none can be."""

    schedule: Schedule
    proved: bool
    bound_us: float


def solver_is_there() -> bool:
    """Whether OR-tools is installed."""
    return importlib.util.find_spec("ortools") is not None


def exact(problem: Problem, start: Schedule, seconds: float = SECONDS) -> Solution:
    """Search for at most ``seconds``, from ``start``: never worse than that.

    Raises:
        UsageError: OR-tools is not installed.
    """
    try:
        cp_model = importlib.import_module("ortools.sat.python.cp_model")
    except ImportError as error:
        raise UsageError(MISSING) from error
    known = simulate(problem, start)
    if not problem.tasks or known.makespan_us == 0:
        return Solution(start, True, known.makespan_us)
    model = _Model(problem, cp_model.CpModel(), STEPS / known.makespan_us)
    model.build()
    model.hint(start, known)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.random_seed = 0
    solver.parameters.num_workers = max(2, os.cpu_count() or 1)
    status = solver.solve(model.model)
    proved = status == cp_model.OPTIMAL
    bound = solver.best_objective_bound / model.scale
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Solution(start, False, bound)
    found = model.schedule(solver)
    better = simulate(problem, found).makespan_us < known.makespan_us
    return Solution(found if better else start, proved, bound)


@dataclass
class _Model:
    """The constraint model; times are whole steps of ``1 / scale`` microseconds."""

    problem: Problem
    model: Any
    scale: float
    starts: list[Any] = field(default_factory=list)
    ends: list[Any] = field(default_factory=list)
    on: list[dict[int, Any]] = field(default_factory=list)
    makespan: Any = None

    def build(self) -> None:
        """All variables and constraints."""
        self.makespan = self.model.new_int_var(0, 2 * STEPS, "makespan")
        intervals: list[list[Any]] = [[] for _ in range(self.problem.resource_count)]
        for index in range(len(self.problem.tasks)):
            self._add_task(index, intervals)
        for resource in intervals:
            self.model.add_no_overlap(resource)
        for index, task in enumerate(self.problem.tasks):
            for tensor in task.inputs:
                self._add_input(index, tensor)
            for tensor in task.outputs:
                if self.problem.tensors[tensor].fetched:
                    self._add_fetch(index, tensor)
            self.model.add(self.makespan >= self.ends[index])
        self.model.minimize(self.makespan)

    def hint(self, schedule: Schedule, timeline: Timeline) -> None:
        """Where to start from."""
        for index, unit in enumerate(schedule.units):
            self.model.add_hint(self.starts[index], self._steps(timeline.start_us[index]))
            for choice, literal in self.on[index].items():
                self.model.add_hint(literal, choice == unit)

    def schedule(self, solver: Any) -> Schedule:
        """The solver's solution."""
        begins = [solver.value(start) for start in self.starts]
        placed = [
            next(unit for unit, literal in choices.items() if solver.value(literal))
            for choices in self.on
        ]
        order = sorted(range(len(placed)), key=lambda index: (begins[index], index))
        return Schedule(tuple(placed), tuple(order))

    def _steps(self, us: float) -> int:
        return round(us * self.scale)

    def _add_task(self, index: int, intervals: Sequence[list[Any]]) -> None:
        start = self.model.new_int_var(0, 2 * STEPS, f"start {index}")
        end = self.model.new_int_var(0, 2 * STEPS, f"end {index}")
        choices: dict[int, Any] = {}
        for unit, time in enumerate(self.problem.times[index]):
            if np.isfinite(time):
                literal = self.model.new_bool_var(f"{index} on {unit}")
                # Not intervals that share their end: with those, CP-SAT 9.15 has called schedules
                # optimal that were not.
                steps = self._steps(time)
                self.model.add(end == start + steps).only_enforce_if([literal])
                interval = self.model.new_optional_fixed_size_interval_var(
                    start, steps, literal, f"run {index} on {unit}"
                )
                for resource in self.problem.resources[unit]:
                    intervals[resource].append(interval)
                choices[unit] = literal
        self.model.add_exactly_one(choices.values())
        self.starts.append(start)
        self.ends.append(end)
        self.on.append(choices)

    def _add_input(self, index: int, tensor: int) -> None:
        described = self.problem.tensors[tensor]
        task = described.home if described.producer is None else described.producer
        made: Any = 0 if described.producer is None else self.ends[described.producer]
        self.model.add(self.starts[index] >= made)
        sources = {self.problem.host: None} if task is None else self.on[task]
        for source, there in sources.items():
            for unit, here in self.on[index].items():
                steps = self._steps(self.problem.delay(tensor, source, unit))
                if steps:
                    condition = [here] if there is None else [here, there]
                    constraint = self.model.add(self.starts[index] >= made + steps)
                    constraint.only_enforce_if(condition)

    def _add_fetch(self, index: int, tensor: int) -> None:
        for unit, here in self.on[index].items():
            steps = self._steps(self.problem.delay(tensor, unit, self.problem.host))
            constraint = self.model.add(self.makespan >= self.ends[index] + steps)
            constraint.only_enforce_if([here])
