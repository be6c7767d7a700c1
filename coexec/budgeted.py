"""Training steps under a budget of memory: their settings by the shapes of batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.base.errors import DataError, UsageError
from coexec.core.processor import Processor
from coexec.core.program import SCRATCH
from coexec.core.types import Array, OpCall
from coexec.memory_amounts import budget_bytes
from coexec.memory_budget import (
    Lowered,
    MemoryPlan,
    Question,
    Setting,
    plan_memory,
)
from coexec.processor_costs import processor_costs
from coexec.resident import ResidentPrograms
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.step_builder import Kind, Recipe, StepBuilder


class BudgetedSteps:
    """Plans the memory of the steps of a training, once for each shape of a batch.

    Times are those known of the first processor. Nothing is allocated here.
    """

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        processors: Mapping[str, Processor],
        memory: str | int,
        mode: ExecutionMode = DEFAULT,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.processors = processors
        self.mode = mode
        self.memory = memory
        self.nbytes = budget_bytes(memory)
        self.last: MemoryPlan | None = None
        self._plans: dict[tuple[tuple[int, ...], ...], MemoryPlan] = {}

    def plan(self, arrays: Mapping[str, Array]) -> MemoryPlan:
        """The plan for batches of these shapes.

        Raises:
            MemoryBudgetError: nothing fits; the message says what would.
            UsageError: no processor plans the memory of its steps.
        """
        key = tuple(array.shape for array in arrays.values())
        if key not in self._plans:
            self._plans[key] = self._planned(arrays)
        self.last = self._plans[key]
        return self.last

    def _planned(self, arrays: Mapping[str, Array]) -> MemoryPlan:
        name, processor = next(iter(self.processors.items()))
        costs = processor_costs({name: processor})[name]

        def cost_us(call: OpCall) -> float:
            return costs.cost(call).time.median_us

        def lower(setting: Setting) -> Lowered:
            return self.lower(setting, arrays)

        question = Question(self.model, self.recipe, arrays)
        return plan_memory(question, self.nbytes, lower, cost_us)

    def lower(self, setting: Setting, arrays: Mapping[str, Array]) -> Lowered:
        """The programs of a step on a batch, with all memory planned."""
        count = setting.recipe.micro_batches
        builder = StepBuilder(self.model, setting.recipe)
        programs = ResidentPrograms(self.processors, self.mode)
        kind: Kind = "step" if count == 1 else "accumulate"
        pieces = {name: split(name, array, count)[0] for name, array in arrays.items()}
        graph = builder.build(kind, pieces)
        first = programs.lower(kind, graph, setting.recompute)
        if not any(buffer.role == SCRATCH for buffer in first.program.buffers):
            raise UsageError(
                f"--memory: {', '.join(self.processors)} plan no memory for what is between "
                "operators, so that no budget can be kept; use an OpenCL processor"
            )
        if count == 1:
            return Lowered(first.graph, (first.program,))
        update = programs.lower("update", builder.build_update(graph))
        return Lowered(first.graph, (first.program, update.program))


def split(name: str, array: Array, count: int) -> list[Array]:
    """``array`` in ``count`` parts of one size along its first axis.

    Raises:
        DataError: it does not divide.
    """
    if count == 1:
        return [array]
    if array.ndim == 0 or len(array) % count:
        raise DataError(
            f"{name!r}: a batch of {array.shape[:1]} does not split into {count} micro-batches"
        )
    return np.split(array, count)
