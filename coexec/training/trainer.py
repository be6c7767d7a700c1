"""Training: a step graph compiled for processors, its states resident there across steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import onnx_ir as ir

from coexec.autodiff.average import averaged, with_averages
from coexec.autodiff.loss_scale import LOSS_SCALE, LossScale, without_scale
from coexec.autodiff.selection import select
from coexec.autodiff.step import StepGraph
from coexec.base.errors import CheckpointError, DataError, NonFiniteLoss
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.keeper import MemoryKeeper
from coexec.budget.placed import PlacedSteps
from coexec.budget.settings import MemoryPlan, Setting
from coexec.budget.splitting import lay_out, part_of, split
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.program import Program
from coexec.core.types import Array
from coexec.frontend.export import save_model
from coexec.inputs import check_feeds
from coexec.passes.kept import kept_bytes
from coexec.report.lines import watched
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.steps.builder import (
    Kind,
    Recipe,
    StepBuilder,
    check_followed,
    check_precision,
)
from coexec.steps.gated import Outcome, run_gated
from coexec.steps.resident import Compiled, ResidentPrograms
from coexec.training.data import check_given, labels_of, part_shares
from coexec.training.held import check_held, check_of_model
from coexec.training.trained import trained_copy


class TrainerOptions(TypedDict, total=False):
    """Options of :class:`Trainer` that say how steps run, by name."""

    mode: ExecutionMode
    memory: str | int | None
    lossy: bool


class Trainer:
    """Trains a model. Parameters, optimizer state and batch statistics stay on the device.

    What a step computes is its :class:`coexec.steps.builder.Recipe`. Steps are bit-exactly
    repeatable: the same seed, data and device give the same parameters.

    ``memory`` is a budget for all that a step has on the devices (bytes, ``512MiB``, ``auto``): the
    fastest step that fits is taken (:mod:`coexec.budget.search`, :attr:`memory_plan`), by
    techniques that lose precision only if it may be ``lossy``. Only with ``batch_statistics``
    ``ghost`` or ``frozen`` may it divide batches that are normalised as a whole. ``auto`` also
    shrinks while the machine is short of memory (:attr:`memory`: what changed, and when).

    While :attr:`updating` is false, a step that broke off has left all states as they were. While
    it is true, they are neither the old nor the new ones: nothing but :meth:`load_state` goes on.

    With ``plan``, a plan of this training's step (of
    :func:`coexec.planning.planner.plan_training`, or from a file), nodes, shares of nodes and of
    the batch go where that says. Checkpoints do not depend on it: a training may be resumed with
    another plan.
    """

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        processors: Mapping[str, Processor],
        *,
        mode: ExecutionMode = DEFAULT,
        memory: str | int | None = None,
        lossy: bool = False,
        plan: Plan | None = None,
    ) -> None:
        check_precision(recipe.precision, processors)
        check_followed(plan, recipe)
        if recipe.trainable:
            select(model, recipe.trainable)  # what selects nothing is refused before data are read
        self.model = model
        self.recipe = recipe
        self.loss = recipe.loss
        self.optimizer = recipe.optimizer
        self.processors = processors
        self.mode = mode
        self.loss_scale = LossScale()
        self.steps = 0
        self.updating = False
        self._builder = StepBuilder(model, recipe)
        self._programs = ResidentPrograms(processors, mode, plan, sparing=memory is not None)
        self._lossy = lossy
        self.memory = MemoryKeeper(recipe, memory, self._budget, self._laid_out)

    def options(self) -> TrainerOptions:
        """What a trainer is made with beside model, recipe, processors and plan."""
        steps = self.memory.steps
        memory = None if steps is None else steps.memory
        return {"mode": self.mode, "memory": memory, "lossy": self._lossy}

    def with_plan(self, plan: Plan) -> Trainer:
        """A trainer as this one was before its first step, with another plan."""
        return Trainer(self.model, self.recipe, self.processors, plan=plan, **self.options())

    def step(
        self,
        feeds: Mapping[str, Array],
        labels: Array | None = None,
        trace: Trace | None = None,
    ) -> float:
        """One optimizer step on a batch; returns its loss (before the update).

        Raises:
            DataError: data or labels that do not fit, or none, or labels that the loss takes none.
            NonFiniteLoss: the loss is NaN or infinite; parameters are as before the step.
            CheckpointError: the step before broke off while states changed.
        """
        self._check_whole()
        arrays = check_feeds(self.model, feeds)
        check_given(self.loss, arrays, labels)
        self._programs = self.memory.turn(self.steps, arrays, self._programs)
        with watched(trace) as watching:
            setting = self.memory.setting(arrays)
            if setting.recipe.micro_batches == 1:
                compiled = self._get("step", arrays, setting)
                truth = labels_of(self.loss, compiled.graph, labels)
                feeds = {**arrays, **truth, **self._scalars(compiled.graph, self.steps)}
                outcome = self._run(compiled, feeds, watching)
            else:
                outcome = self._accumulated_step(setting, arrays, labels, watching)
        if setting.recipe.precision == "mixed":
            self.loss_scale = self.loss_scale.after(outcome.overflowed)
        self.steps += 1
        self.updating = False
        return outcome.loss

    def predict(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of the model in inference form with the current parameters, or averages."""
        self._check_whole()
        arrays = check_feeds(self.model, feeds)
        compiled = self._get("inference", arrays, Setting(self.recipe))
        return compiled.executor.run(_wanted(compiled, arrays))

    def state(self) -> dict[str, Array]:
        """Parameters, statistics and optimizer state by name, read from the device.

        What was loaded and no program has asked for yet is part of it, from the host.

        Raises:
            CheckpointError: a step broke off while states changed.
        """
        self._check_whole()
        return self._with_scale(self._programs.read())

    def _check_whole(self) -> None:
        if self.updating:
            raise CheckpointError(
                f"step {self.steps} broke off while parameters changed: not all are new. "
                "Load a state that was kept (Trainer.load_state, coexec train --resume)"
            )

    def _with_scale(self, states: Mapping[str, Array]) -> dict[str, Array]:
        scaled = self.recipe.precision == "mixed" or self.loss_scale != LossScale()
        return {**states, **({LOSS_SCALE: self.loss_scale.to_array()} if scaled else {})}

    def load_state(self, state: Mapping[str, Array], steps: int) -> None:
        """Continue from a state that :meth:`state` gave after ``steps`` steps.

        Averages that it lacks begin at its parameters.

        Raises:
            CheckpointError: it is of another model, or has other values than this one for what is
                not trained here.
        """
        check_of_model(self.model, state)
        check_held(self.model, self.recipe, state)
        if self.recipe.ema is not None:
            trained = select(self.model, self.recipe.trainable)
            state = with_averages(state, [each.name for each in trained])
        self._programs.write(without_scale(state))
        self._programs.clear_accumulators()
        self.updating = False
        if LOSS_SCALE in state:
            self.loss_scale = LossScale.from_array(state[LOSS_SCALE])
        self.steps = steps

    def set_memory(
        self, memory: str | int | None, *, lossy: bool | None = None, wait: bool = True
    ) -> None:
        """Keep another budget (``None``: none) from the next step on; states stay as they are.

        Without ``wait``, from the step on for which its plan is made and built, in the background.

        Raises:
            UsageError: no amount of memory.
        """
        self._lossy = self._lossy if lossy is None else lossy
        self.memory.change(self._budget(memory), wait=wait)

    def plan_memory(self, feeds: Mapping[str, Array]) -> MemoryPlan | None:
        """How steps on batches like ``feeds`` keep the budget; none without one. No state changes.

        Raises:
            MemoryBudgetError: nothing fits; the message says what would.
        """
        steps = self.memory.steps
        return None if steps is None else steps.plan(check_feeds(self.model, feeds))

    @property
    def memory_plan(self) -> MemoryPlan | None:
        """How the step made last keeps its budget; none without a budget or a step."""
        return self.memory.plan

    def prepare(
        self,
        feeds: Mapping[str, Array],
        plan: Plan | None,
        processors: Mapping[str, Processor] | None = None,
    ) -> ResidentPrograms:
        """Compile the step for batches like ``feeds`` to follow another plan, maybe elsewhere.

        Steps go on as they are meanwhile (call it from any thread) until :meth:`switch`.
        """
        arrays = check_feeds(self.model, feeds)
        there, sparing = processors or self.processors, self._programs.sparing
        programs = ResidentPrograms(there, self.mode, plan, sparing=sparing)
        programs.compile("step", arrays, self._builder.build("step", arrays), fills=False)
        return programs

    def switch(self, programs: ResidentPrograms, state: Mapping[str, Array] | None = None) -> None:
        """Go on with programs of :meth:`prepare`, from the states as they are or from ``state``."""
        programs.write(self._programs.read() if state is None else without_scale(state))
        self._programs = programs
        self.processors = programs.processors

    def trained_model(self) -> ir.Model:
        """A copy in inference form, adapters merged, with the current parameters and statistics.

        With ``ema``, parameters are their averages.
        """
        return trained_copy(self.model, averaged(self.state()))

    def save(self, path: str | Path) -> None:
        """Write the trained model as ONNX, atomically."""
        save_model(self.trained_model(), Path(path))

    @property
    def followed(self) -> Plan | None:
        """The plan that steps follow; none: nodes are on the first processor that can."""
        return self._programs.follow

    @property
    def plan(self) -> Plan:
        """Plan of the training step, of those on the largest batch."""
        return self._training().plan

    @property
    def program(self) -> Program:
        """Program of the training step, of those on the largest batch."""
        return self._training().executor.program

    @property
    def step_graph(self) -> StepGraph:
        """The training step on the largest batch, as one ONNX graph."""
        return self._training().graph

    @property
    def computed(self) -> dict[str, Mapping[str, str]]:
        """Kernels by node and processor, in words, of each program of the training so far."""
        return self._programs.computed

    @property
    def peak_bytes(self) -> int:
        """Device memory of the training steps so far: buffers and constants."""
        return self._programs.training_bytes

    @property
    def kept_activations(self) -> tuple[int, int]:
        """Bytes that the step keeps for its backward pass, and in full."""
        graph = self._training().graph
        kept = kept_bytes(graph.model.graph)
        return kept, max(graph.uncompressed_bytes, kept)

    def build_step(self, arrays: Mapping[str, Array]) -> StepGraph:
        """The training step on inputs of these shapes as one ONNX graph; nothing is compiled."""
        return self._builder.build("step", arrays)

    def planned_bytes(self, feeds: Mapping[str, Array]) -> int:
        """:attr:`peak_bytes` of a step on batches like ``feeds``; nothing is allocated or run."""
        kind, part = part_of(self.recipe, check_feeds(self.model, feeds))
        return self._programs.planned_bytes(self._builder.build_all(kind, part))

    def _training(self) -> Compiled:
        found = self._programs.training()
        if found is None:
            raise DataError("nothing is compiled yet: make a step first")
        return found

    def _run(self, compiled: Compiled, feeds: Mapping[str, Array], trace: Trace | None) -> Outcome:
        """Run a graph with a loss; the gate keeps bad numbers from reaching the parameters."""

        def passed() -> None:
            self.updating = True

        return run_gated(compiled, _wanted(compiled, feeds), self.steps, passed, trace)

    def _accumulated_step(
        self,
        setting: Setting,
        arrays: Mapping[str, Array],
        labels: Array | None,
        trace: Trace | None,
    ) -> Outcome:
        """The step of a batch in parts; those in which no label counts are left out."""
        count = setting.recipe.micro_batches
        inputs = {name: split(name, array, count) for name, array in arrays.items()}
        truths = [None] * count if labels is None else split("labels", labels, count)
        parts = [{name: pieces[i] for name, pieces in inputs.items()} for i in range(count)]
        compiled = self._get("accumulate", parts[0], setting)
        checked = [labels_of(self.loss, compiled.graph, truth) for truth in truths]
        shares = part_shares(self.loss, truths)
        loss, overflowed = 0.0, False
        try:
            for i in (i for i in range(count) if shares[i]):
                scalars = self._scalars(compiled.graph, self.steps * count + i, shares[i])
                outcome = self._run(compiled, {**parts[i], **checked[i], **scalars}, trace)
                loss += shares[i] * outcome.loss
                overflowed |= outcome.overflowed
        except NonFiniteLoss:
            self._programs.clear_accumulators()
            self.updating = False
            raise
        if overflowed:
            self._programs.clear_accumulators()
            return Outcome(loss, overflowed=True)
        update = self._get("update", {}, setting)
        self.updating = True
        update.executor.run(self._scalars(update.graph, self.steps), (), trace=trace)
        return Outcome(loss)

    def _scalars(self, graph: StepGraph, counter: int, share: float = 1.0) -> dict[str, Array]:
        rate = self.optimizer.schedule.at(self.steps)
        return graph.scalars(rate, counter, self.loss_scale.value, share)

    def _get(self, kind: Kind, arrays: Mapping[str, Array], setting: Setting) -> Compiled:
        found = self._programs.find(kind, arrays)
        if found is not None:
            return found
        builder = self._builder.of(setting.recipe)
        if kind == "update":
            graph = builder.build_update(self._training().graph)
            return self._programs.compile(kind, arrays, graph)
        graph = builder.build(kind, arrays)
        return self._programs.compile(kind, arrays, graph, setting.recompute)

    def _budget(self, memory: str | int | None) -> BudgetedSteps | None:
        if memory is None:
            return None
        how = (self.model, self.recipe, self.processors, memory)
        if self.followed is not None:
            return PlacedSteps(*how, self.followed, self.mode)
        return BudgetedSteps(*how, self.mode, lossy=self._lossy, runs=self.steps == 0)

    def _laid_out(self, setting: Setting, arrays: Mapping[str, Array]) -> ResidentPrograms:
        programs = ResidentPrograms(self.processors, self.mode, self.followed, sparing=True)
        lay_out(programs, self.model, setting, arrays)
        return programs


def _wanted(compiled: Compiled, feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {name: feeds[name] for name in compiled.executor.program.inputs}
