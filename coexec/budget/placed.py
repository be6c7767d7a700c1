"""Steps that follow a plan within a budget: all processors share one physical memory.

What they hold is counted together (:func:`combined_bytes`). Techniques that need another recipe
are not used: a plan is that of the step as asked for. How such plans are found says
:mod:`coexec.budget.placing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from coexec.autodiff.step import StepGraph
from coexec.base.errors import MemoryBudgetError
from coexec.base.units import bytes_text
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.settings import MemoryPlan, Setting, TechniqueUse
from coexec.budget.techniques import REMATERIALISATION, EarlyUpdates
from coexec.core.holders import holders_text
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.program import Program, combined_bytes
from coexec.core.types import Array
from coexec.memory.lifetimes import usage
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.steps.builder import Recipe, StepBuilder
from coexec.steps.resident import ResidentPrograms


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
        program = placed_program(self, self.follow, step_graph(self, arrays))
        peak, plain = combined_bytes((program,)), self.lower(Setting(self.recipe), arrays)
        if peak > self.nbytes:
            raise refusal(self.nbytes, program)
        names = self.follow.recompute
        problem = self.problem(plain)
        cost_ms = usage(problem, *problem.numbers(names)).extra_us / 1e3
        before, used = plain.peak_bytes, []
        if self.follow.early:
            ahead = self.lower(Setting(replace(self.recipe, updates="early")), arrays).peak_bytes
            used.append(
                TechniqueUse(EarlyUpdates.name, "of large parameters", True, before - ahead, 0.0)
            )
            before = ahead
        if names:
            what = f"{len(names)} tensors, placed"
            used.append(TechniqueUse(REMATERIALISATION, what, True, before - peak, cost_ms))
        plain_ms = problem.total_us / 1e3
        predicted = self.follow.predicted_us
        return MemoryPlan(
            Setting(self.recipe, names),
            self.nbytes,
            peak,
            plain.peak_bytes,
            plain_ms + cost_ms if predicted is None else predicted / 1e3,
            plain_ms,
            tuple(used),
        )


def step_graph(steps: BudgetedSteps, arrays: Mapping[str, Array]) -> StepGraph:
    """The graph of a step as it was asked for."""
    return StepBuilder(steps.model, steps.recipe).build("step", arrays)


def placed_program(steps: BudgetedSteps, plan: Plan, graph: StepGraph) -> Program:
    """The program of a step that follows a plan; nothing is built or allocated."""
    programs = ResidentPrograms(steps.processors, steps.mode, plan)
    own = replace(graph, model=graph.model.clone())
    return programs.lower("step", own, builds=False).program


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
