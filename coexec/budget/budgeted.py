"""Training steps under a budget of memory: their settings by the shapes of batches."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from coexec.autodiff.step import StepGraph
from coexec.base.collection import collection_paused
from coexec.base.errors import UsageError
from coexec.base.knobs import RUN_SECONDS
from coexec.base.units import bytes_text
from coexec.budget.amounts import budget_bytes
from coexec.budget.apart import Request, plan_apart, worth_a_process
from coexec.budget.runs import StepRuns
from coexec.budget.search import plan_memory
from coexec.budget.settings import Lowered, MemoryPlan, Setting, step_problem
from coexec.budget.splitting import part_of
from coexec.budget.techniques import TECHNIQUES, Question, Technique
from coexec.budget.variants import Known
from coexec.core.processor import Processor
from coexec.core.program import SCRATCH
from coexec.core.types import Array
from coexec.cost.model import ProcessorCosts
from coexec.memory.build_problem import Measure
from coexec.memory.choose import forget_problems
from coexec.memory.problem import StepProblem
from coexec.processor_costs import processor_costs, step_measure
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.steps.builder import Kind, Recipe, StepBuilder
from coexec.steps.pager import pager_of, unable
from coexec.steps.resident import ResidentPrograms

log = logging.getLogger(__name__)


class BudgetedSteps:
    """Plans the memory of the steps of a training, once for each shape of a batch.

    Times are those known of the first processor. Nothing is allocated or built here. ``lossy``
    techniques may be used if that is said. All shapes share the optimizer's states: what the first
    plan keeps them in, later ones do. With ``runs``, forms of a step may be run for the first plan
    by the process that searches for it, if that is another one (:mod:`coexec.budget.runs`).
    """

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        processors: Mapping[str, Processor],
        memory: str | int,
        mode: ExecutionMode = DEFAULT,
        *,
        lossy: bool = False,
        runs: bool = False,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.processors = processors
        self.mode = mode
        self.memory = memory
        self.lossy = lossy
        self.runs = runs
        self.nbytes = budget_bytes(memory)
        self.last: MemoryPlan | None = None
        self._plans: dict[tuple[tuple[int, ...], ...], MemoryPlan] = {}
        # Graphs of the search that is under way.
        self._built: list[tuple[Recipe, StepGraph]] = []

    def by(self, recipe: Recipe) -> BudgetedSteps:
        """Steps by another recipe within as many bytes."""
        how = (self.model, recipe, self.processors, self.nbytes, self.mode)
        return BudgetedSteps(*how, lossy=self.lossy)

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
        request = self._request(arrays)
        if worth_a_process(self.model):
            self._costs()  # limits that were never measured are now, not beside this process
            found = plan_apart(self.model, request)
            if found is not None and self._is_ours(found, arrays):
                return found
        return self.search(replace(request, runs=False))

    def _request(self, arrays: Mapping[str, Array]) -> Request:
        recipe = self.recipe
        if self.last is not None:
            recipe = replace(recipe, optimizer=self.last.setting.recipe.optimizer)
        return Request(
            recipe,
            tuple(processor.describe() for processor in self.processors.values()),
            self.nbytes,
            self.mode,
            self.lossy,
            optimizer_stays=self.last is not None,
            batch={name: (array.shape, array.dtype.str) for name, array in arrays.items()},
            runs=self.runs and self.last is None,
        )

    def _is_ours(self, plan: MemoryPlan, arrays: Mapping[str, Array]) -> bool:
        """Whether a plan that another process found is lowered here to what it says."""
        peak = self.lower(plan.setting, arrays).peak_bytes
        gc.collect()  # graphs are cycles: this one would stay while that of the training is made
        if peak != plan.peak_bytes:
            found, here = bytes_text(plan.peak_bytes), bytes_text(peak)
            log.warning("another process planned %s, which take %s here: once more", found, here)
        return peak == plan.peak_bytes

    def search(self, request: Request) -> MemoryPlan:
        """The plan that is asked for, found by this process; nothing is remembered.

        Raises:
            MemoryBudgetError: nothing fits.
        """
        first = next(iter(self.processors.values()))
        half = bool(first.describe().features.get("fp16"))
        stays = request.optimizer_stays
        techniques = tuple(t for t in TECHNIQUES if not (stays and t.changes == "optimizer"))
        unpaged = unable(first)
        pages = (None if unpaged else pager_of(first), unpaged)
        how = (request.recipe, request.arrays(), request.lossy, half, *pages)
        seconds = RUN_SECONDS.number if request.runs else 0
        question = Question(self.model, *how)
        return self._search(question, request.nbytes, techniques, seconds=seconds)

    def recomputed(
        self, arrays: Mapping[str, Array], nbytes: int, known: Known | None = None
    ) -> tuple[str, ...]:
        """What to recompute, with no other technique, so that steps fit so many bytes.

        ``known`` is what was found out for other budgets, and learns what is for this one.

        Raises:
            MemoryBudgetError: they do not.
        """
        question = Question(self.model, self.recipe, arrays)
        return self._search(question, nbytes, (), known).setting.recompute

    def problem(self, lowered: Lowered) -> StepProblem:
        """The memory problem of a step, with times on the first processor."""
        return step_problem(lowered, self._costs())

    def _search(
        self,
        question: Question,
        nbytes: int,
        techniques: Sequence[Technique],
        known: Known | None = None,
        *,
        seconds: int | None = None,
    ) -> MemoryPlan:
        """``seconds`` are for runs of forms; none: no form was ever run, or is."""
        plain: list[tuple[Signature, Lowered]] = []

        def lower(setting: Setting) -> Lowered:
            kind, pieces = part_of(setting.recipe, question.arrays)
            graph = self._graph(setting.recipe, kind, pieces)
            signature = _signature(kind, graph)
            if plain and not setting.recompute and plain[0][0] == signature:
                return plain[0][1]  # a technique that changes nothing
            lowered = self._lowered(setting, kind, graph)
            if not plain:
                plain.append((signature, lowered))
            return lowered

        def runs() -> StepRuns:
            parts = (self.model, self.processors, self.mode, question.arrays)
            return StepRuns(*parts, self._first_costs(), plain[0][1].graph, seconds or 0)

        ran = runs if seconds is not None and RUN_SECONDS.number else None
        try:
            return plan_memory(question, nbytes, lower, self._costs(), techniques, known, ran)
        finally:
            self._built.clear()
            forget_problems()

    def _costs(self) -> Measure:
        return step_measure(self._first_costs())

    def _first_costs(self) -> ProcessorCosts:
        name, processor = next(iter(self.processors.items()))
        return processor_costs({name: processor})[name]

    def lower(self, setting: Setting, arrays: Mapping[str, Array]) -> Lowered:
        """The programs of a step on a batch, with all memory planned."""
        kind, pieces = part_of(setting.recipe, arrays)
        graph = StepBuilder(self.model, setting.recipe).build(kind, pieces)
        return self._lowered(setting, kind, graph)

    @collection_paused()
    def _graph(self, recipe: Recipe, kind: Kind, pieces: Mapping[str, Array]) -> StepGraph:
        """The graph of a recipe: built once for all that change order, pages or kernels alone."""
        same = replace(recipe, updates="together", paging=0.0, workspace=0)
        found = next((graph for known, graph in self._built if known == same), None)
        if found is None:
            found = StepBuilder(self.model, same).build(kind, pieces)
            self._built.append((same, found))
        early = recipe.updates == "early"
        return replace(
            found,
            model=found.model.clone(),
            early=early,
            paging=recipe.paging,
            workspace=recipe.workspace,
        )

    def _lowered(self, setting: Setting, kind: Kind, graph: StepGraph) -> Lowered:
        programs = ResidentPrograms(self.processors, self.mode)
        first = programs.lower(kind, graph, setting.recompute, builds=False)
        if not any(buffer.role == SCRATCH for buffer in first.program.buffers):
            raise UsageError(
                f"--memory: {', '.join(self.processors)} plan no memory for what is between "
                "operators, so that no budget can be kept; use an OpenCL processor"
            )
        if kind == "step":
            return Lowered(first.graph, (first.program,))
        update_graph = StepBuilder(self.model, setting.recipe).build_update(graph)
        update = programs.lower("update", update_graph, builds=False)
        return Lowered(first.graph, (first.program, update.program))


Signature = tuple[object, ...]


def _signature(kind: Kind, graph: StepGraph) -> Signature:
    """What tells graphs of one model apart: nodes by name and operator with what they read."""
    nodes = (
        (node.name, node.op_type, *(value and value.name for value in node.inputs))
        for node in graph.model.graph
    )
    return (kind, graph.early, graph.paging, graph.workspace, *nodes)
