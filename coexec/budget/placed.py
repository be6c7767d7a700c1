"""Budgets of memory for steps that follow a plan, on processors that share one physical memory.

What is recomputed is decided first, on the step as one processor would run it; then repetitions are
placed like all other nodes, by cost, so that an idle processor may make them; then the arenas and
buffers of all processors are counted together. Where they are above the budget, more is recomputed
and the step placed again. Techniques that need another recipe are not used: a plan is that of the
step as asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx_ir as ir

from coexec.base.errors import MemoryBudgetError
from coexec.base.units import bytes_text
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.settings import MemoryPlan, Setting, TechniqueUse
from coexec.budget.techniques import REMATERIALISATION
from coexec.core.holders import holders_text
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.program import Program, combined_bytes
from coexec.core.types import Array
from coexec.memory.lifetimes import usage
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.steps.builder import Recipe, StepBuilder
from coexec.steps.resident import ResidentPrograms

ROUNDS = 3
"""Times that a step is placed: each time with more that is recomputed."""
Place = Callable[[tuple[str, ...], int], Plan]
"""A plan of a step in which these activations are recomputed; the round, from 0 on."""


class PlacedSteps(BudgetedSteps):
    """Steps that follow a plan, which says what is recomputed; the budget is checked."""

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        processors: Mapping[str, Processor],
        memory: str | int,
        follow: Plan,
        mode: ExecutionMode = DEFAULT,
    ) -> None:
        super().__init__(model, recipe, processors, memory, mode)
        self.follow = follow

    def _planned(self, arrays: Mapping[str, Array]) -> MemoryPlan:
        program = placed_program(self, self.follow, arrays)
        peak, plain = combined_bytes((program,)), self.lower(Setting(self.recipe), arrays)
        if peak > self.nbytes:
            raise refusal(self.nbytes, program)
        names = self.follow.recompute
        problem = self.problem(plain)
        cost_ms = usage(problem, *problem.numbers(names)).extra_us / 1e3
        saved = plain.peak_bytes - peak
        use = TechniqueUse(REMATERIALISATION, f"{len(names)} tensors, placed", True, saved, cost_ms)
        plain_ms = problem.total_us / 1e3
        predicted = self.follow.predicted_us
        return MemoryPlan(
            Setting(self.recipe, names),
            self.nbytes,
            peak,
            plain.peak_bytes,
            plain_ms + cost_ms if predicted is None else predicted / 1e3,
            plain_ms,
            (use,) if names else (),
        )


def placed_within(steps: BudgetedSteps, arrays: Mapping[str, Array], place: Place) -> Plan:
    """A plan of a step on ``arrays`` that keeps the budget of ``steps``.

    Raises:
        MemoryBudgetError: what was tried does not fit; with what stands in the way.
    """
    goal, program = steps.nbytes, None
    for number in range(ROUNDS):
        try:
            recompute = steps.recomputed(arrays, goal)
        except MemoryBudgetError as error:
            if program is None:
                raise
            raise refusal(steps.nbytes, program) from error
        plan = replace(place(recompute, number), recompute=recompute)
        program = placed_program(steps, plan, arrays)
        excess = combined_bytes((program,)) - steps.nbytes
        if excess <= 0:
            return plan
        goal -= excess
    assert program is not None
    raise refusal(steps.nbytes, program)


def placed_program(steps: BudgetedSteps, plan: Plan, arrays: Mapping[str, Array]) -> Program:
    """The program of a step that follows a plan; nothing is built or allocated."""
    programs = ResidentPrograms(steps.processors, steps.mode, plan)
    graph = StepBuilder(steps.model, steps.recipe).build("step", arrays)
    return programs.lower("step", graph, builds=False).program


def refusal(budget: int, program: Program) -> MemoryBudgetError:
    """A placed step is above the budget: what it holds on each processor."""
    needed = combined_bytes((program,))
    holders = "; ".join(f"{name}: {holders_text(program, name)}" for name in program.processors)
    return MemoryBudgetError(
        f"no plan was found whose step fits {bytes_text(budget)} on all processors together: the "
        f"last one takes {bytes_text(needed)}. In the way: {holders}. Give --memory more, use one "
        "processor, or a smaller batch",
        needed,
    )
