"""Training: a step graph compiled for processors, its states resident there across steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, get_args

import numpy as np
import onnx_ir as ir

from coexec.autodiff.loss_scale import LossScale
from coexec.autodiff.losses import Loss
from coexec.autodiff.optimizers import Optimizer
from coexec.autodiff.step import (
    StepGraph,
    accumulator_name,
    build_accumulation,
    build_inference,
    build_step,
    build_update,
)
from coexec.base.errors import DataError, NonFiniteLoss, UsageError
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.core.processor import Buffer, Processor
from coexec.core.program import Program
from coexec.core.types import Array
from coexec.diagnosis import first_offender
from coexec.frontend.export import save_model
from coexec.frontend.specialise import specialise
from coexec.ops.node import type_of
from coexec.ops.table import OPERATORS
from coexec.passes.expand import expand
from coexec.passes.mixed_precision import mixed_precision
from coexec.passes.training_mode import training_mode
from coexec.placement.policies.first_that_can import place
from coexec.report.lines import watched
from coexec.runtime.executor import Executor
from coexec.runtime.lower import Lowering, lower
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.session import check_array, check_feeds, legalise, warn_of_fallbacks

Shapes = tuple[tuple[int, ...], ...]
Precision = Literal["float32", "mixed"]
LOSS_SCALE = "#loss_scale"
"""Name of the loss scale among the states."""


class _Gradients(TypedDict):
    """What a step and an accumulation have in common."""

    trainable: tuple[str, ...]
    scaled: bool


@dataclass(frozen=True)
class _Outcome:
    """The loss of a batch, and whether its gradients were too large for float16."""

    loss: float
    overflowed: bool = False


class _Overflow(Exception):
    """Leaves a program at its gate: gradients are not finite, and the loss is."""

    def __init__(self, loss: float) -> None:
        super().__init__(loss)
        self.loss = loss


@dataclass(frozen=True)
class Compiled:
    """A step graph with its plan, its program and the executor over the shared states."""

    graph: StepGraph
    plan: Plan
    executor: Executor


class Trainer:
    """Trains a model. Parameters, optimizer state and batch statistics stay on the device.

    ``trainable`` are shell patterns of parameter names (all if empty). ``clip_norm`` bounds the
    joint norm of all gradients. ``micro_batches`` splits each batch along its first axis, adds up
    gradients and updates once. ``seed`` draws dropout masks. Steps are bit-exactly repeatable: the
    same seed, data and device give the same parameters.

    ``precision`` ``mixed`` computes products, convolutions and what is between them in float16,
    with float32 parameters and a dynamic loss scale (:attr:`loss_scale`); a step whose gradients
    overflow changes nothing but that scale.
    """

    def __init__(  # noqa: PLR0913  options by keyword
        self,
        model: ir.Model,
        loss: Loss,
        optimizer: Optimizer,
        processors: Mapping[str, Processor],
        *,
        trainable: Sequence[str] = (),
        clip_norm: float | None = None,
        micro_batches: int = 1,
        seed: int = 0,
        mode: ExecutionMode = DEFAULT,
        precision: Precision = "float32",
    ) -> None:
        if micro_batches < 1:
            raise DataError(f"micro_batches must be at least 1, not {micro_batches}")
        check_precision(precision, processors)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.processors = processors
        self.trainable = tuple(trainable)
        self.clip_norm = clip_norm
        self.micro_batches = micro_batches
        self.seed = seed
        self.mode = mode
        self.precision = precision
        self.loss_scale = LossScale()
        self.steps = 0
        self._compiled: dict[tuple[str, Shapes], Compiled] = {}
        self._buffers: dict[str, Buffer] = {}
        self._homes: dict[str, str] = {}
        self._loaded: dict[str, Array] = {}
        self._parameters: tuple[str, ...] = ()

    def step(self, feeds: Mapping[str, Array], labels: Array, trace: Trace | None = None) -> float:
        """One optimizer step on a batch; returns its loss (before the update).

        Raises:
            DataError: data or labels that do not fit.
            NonFiniteLoss: the loss is NaN or infinite; parameters are as before the step.
        """
        arrays = check_feeds(self.model, feeds)
        with watched(trace) as watching:
            if self.micro_batches == 1:
                compiled = self._get("step", arrays)
                outcome = self._run(compiled, arrays, labels, self.steps, watching)
            else:
                outcome = self._accumulated_step(arrays, labels, watching)
        if self.precision == "mixed":
            self.loss_scale = self.loss_scale.after(outcome.overflowed)
        self.steps += 1
        return outcome.loss

    def predict(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of the model in inference form with the current parameters."""
        arrays = check_feeds(self.model, feeds)
        compiled = self._get("inference", arrays)
        return compiled.executor.run(_wanted(compiled, arrays))

    def state(self) -> dict[str, Array]:
        """Parameters, statistics and optimizer state by name, read from the device.

        What was loaded and no program has asked for yet is part of it: after :meth:`load_state`
        and :meth:`predict`, the optimizer's state is still on the host.
        """
        owner: dict[str, Executor] = {}
        for compiled in self._compiled.values():
            for name in compiled.executor.program.state:
                owner.setdefault(name, compiled.executor)
        read = {name: executor.read_state(name) for name, executor in owner.items()}
        scale = {LOSS_SCALE: self.loss_scale.to_array()} if self.precision == "mixed" else {}
        return {**self._loaded, **read, **scale}

    def load_state(self, state: Mapping[str, Array], steps: int) -> None:
        """Continue from a state that :meth:`state` gave after ``steps`` steps."""
        self._loaded = {name: array for name, array in state.items() if name != LOSS_SCALE}
        if LOSS_SCALE in state:
            self.loss_scale = LossScale.from_array(state[LOSS_SCALE])
        self.steps = steps
        for compiled in self._compiled.values():
            for name in compiled.executor.program.state:
                if name in state:
                    compiled.executor.write_state(name, state[name])

    def trained_model(self) -> ir.Model:
        """A copy of the model with the current parameters and statistics."""
        copy = self.model.clone()
        state = self.state()
        for name, value in copy.graph.initializers.items():
            if name in state:
                value.const_value = ir.tensor(state[name], name=name)
        return copy

    def save(self, path: str | Path) -> None:
        """Write the trained model as ONNX, atomically."""
        save_model(self.trained_model(), Path(path))

    @property
    def plan(self) -> Plan:
        """Plan of the training step compiled last."""
        return self._training().plan

    @property
    def program(self) -> Program:
        """Program of the training step compiled last."""
        return self._training().executor.program

    @property
    def step_graph(self) -> StepGraph:
        """The training step compiled last, as one ONNX graph."""
        return self._training().graph

    @property
    def peak_bytes(self) -> int:
        """Device memory of the training step: buffers and constants."""
        return self.program.peak_bytes

    def build_step(self, arrays: Mapping[str, Array]) -> StepGraph:
        """The training step on inputs of these shapes as one ONNX graph; nothing is compiled."""
        return self._build("step", arrays)

    def _training(self) -> Compiled:
        kinds = [c for (kind, _), c in self._compiled.items() if kind in ("step", "accumulate")]
        if not kinds:
            raise DataError("nothing is compiled yet: make a step first")
        return kinds[-1]

    def _run(
        self,
        compiled: Compiled,
        arrays: Mapping[str, Array],
        labels: Array,
        counter: int,
        trace: Trace | None,
    ) -> _Outcome:
        """Run a graph with a loss; the gate keeps bad numbers from reaching the parameters."""
        graph = compiled.graph
        label_input = next(v for v in graph.model.graph.inputs if v.name == graph.labels)
        checked = check_array(label_input, labels)
        self.loss.check_labels(checked, type_of(self._prediction(graph)))
        feeds = {**arrays, graph.labels: checked, **self._scalars(graph, counter)}

        def gate(host: Mapping[str, Array]) -> None:
            loss = float(host[graph.loss])
            if not np.isfinite(loss):
                raise NonFiniteLoss(self._explain(compiled, feeds, loss))
            if graph.magnitude and not np.isfinite(host[graph.magnitude]):
                raise _Overflow(loss)

        wanted = _wanted(compiled, feeds)
        try:
            results = compiled.executor.run(wanted, (*graph.watched,), gate, trace)
        except _Overflow as overflow:
            return _Outcome(overflow.loss, overflowed=True)
        return _Outcome(float(results[graph.loss]))

    def _accumulated_step(
        self, arrays: Mapping[str, Array], labels: Array, trace: Trace | None
    ) -> _Outcome:
        count = self.micro_batches
        pieces = {name: _split(name, array, count) for name, array in arrays.items()}
        label_pieces = _split("labels", labels, count)
        outcomes = []
        try:
            for i in range(count):
                piece = {name: parts[i] for name, parts in pieces.items()}
                compiled = self._get("accumulate", piece)
                counter = self.steps * count + i
                outcomes.append(self._run(compiled, piece, label_pieces[i], counter, trace))
        except NonFiniteLoss:
            self._clear_accumulators()
            raise
        loss = float(np.mean([outcome.loss for outcome in outcomes]))
        if any(outcome.overflowed for outcome in outcomes):
            self._clear_accumulators()
            return _Outcome(loss, overflowed=True)
        update = self._get("update", {})
        update.executor.run(self._scalars(update.graph, self.steps), (), trace=trace)
        return _Outcome(loss)

    def _clear_accumulators(self) -> None:
        for compiled in self._compiled.values():
            for name in compiled.graph.trainable:
                gradient = accumulator_name(name)
                if gradient in compiled.executor.program.state:
                    kind = compiled.executor.program.types[gradient]
                    zeros = np.zeros(kind.shape, kind.dtype)
                    compiled.executor.write_state(gradient, zeros)

    def _scalars(self, graph: StepGraph, counter: int) -> dict[str, Array]:
        scalars: dict[str, Array] = {}
        if graph.rate:
            rate = self.optimizer.schedule.at(self.steps)
            scalars[graph.rate] = np.array(rate, np.float32)
        if graph.step:
            scalars[graph.step] = np.array(counter, np.int64)
        if graph.scale:
            scalars[graph.scale] = np.array(self.loss_scale.value, np.float32)
        return scalars

    def _get(self, kind: str, arrays: Mapping[str, Array]) -> Compiled:
        shapes = tuple(array.shape for array in arrays.values())
        if (kind, shapes) not in self._compiled:
            self._compiled[kind, shapes] = self._compile(self._build(kind, arrays))
        return self._compiled[kind, shapes]

    def _build(self, kind: str, arrays: Mapping[str, Array]) -> StepGraph:
        if kind == "update":
            return self._build_update()
        model = specialise(self.model, {name: a.shape for name, a in arrays.items()}, {})
        if kind == "inference":
            return build_inference(model, self._state_names(arrays))
        training_mode(model, self.seed)
        while expand(model, lambda call: OPERATORS[call.identifier].gradient is None):
            model = specialise(model, {}, {})
        scaled = self.precision == "mixed"
        if scaled:
            mixed_precision(model)
        how: _Gradients = {"trainable": self.trainable, "scaled": scaled}
        if kind == "accumulate":
            return build_accumulation(model, self.loss, **how)
        return build_step(model, self.loss, self.optimizer, clip_norm=self.clip_norm, **how)

    def _build_update(self) -> StepGraph:
        graph = self._training().graph
        parameters = {name: graph.initial[name] for name in graph.trainable}
        opset = graph.model.graph.opset_imports.get("", 21)
        return build_update(parameters, self.optimizer, self.micro_batches, self.clip_norm, opset)

    def _state_names(self, arrays: Mapping[str, Array]) -> tuple[str, ...]:
        """Initializers that training changes; before any step, those that it would."""
        if not self._parameters:
            kind = "step" if self.micro_batches == 1 else "accumulate"
            self._parameters = self._build(kind, arrays).parameters
        return self._parameters

    def _compile(self, graph: StepGraph) -> Compiled:
        self._parameters = self._parameters or graph.parameters
        model = legalise(graph.model, self.processors)
        plan = place(model.graph, self.processors)
        warn_of_fallbacks(plan)
        how = Lowering(
            plan,
            self.processors,
            state=graph.state,
            state_inputs=frozenset(graph.initial),
            homes=self._homes,
            gate=graph.watched,
            mode=self.mode,
        )
        executor = Executor(lower(model.graph, how), self.processors, self._buffers)
        self._adopt(graph, executor)
        return Compiled(graph, plan, executor)

    def _adopt(self, graph: StepGraph, executor: Executor) -> None:
        """Remember where states live, and fill those that are new."""
        homes = {spec.name: spec.processor for spec in executor.program.buffers}
        for name in executor.program.state:
            if name not in self._homes:
                self._homes[name] = homes[name]
                executor.write_state(name, self._loaded.get(name, graph.initial[name]))
        self._buffers.update(executor.buffers)

    def _prediction(self, graph: StepGraph) -> ir.Value:
        return next(v for v in graph.model.graph.outputs if v.name == graph.prediction)

    def _explain(self, compiled: Compiled, feeds: Mapping[str, Array], loss: float) -> str:
        states = {n: compiled.executor.read_state(n) for n in compiled.executor.program.state}
        offender = first_offender(compiled.graph.model.graph, {**feeds, **states})
        return (
            f"the loss is {loss} at step {self.steps}: {offender}; parameters are as before this "
            "step. Try a smaller learning rate, or clip gradients"
        )


def check_precision(precision: str, processors: Mapping[str, Processor]) -> None:
    """Refuse an unknown precision, or one that the first processor has no arithmetic for.

    Raises:
        UsageError: with what is known, or the processor that lacks float16.
    """
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise UsageError(f"precision {precision!r} is unknown; known: {known}")
    spec = next(iter(processors.values())).describe()
    if precision == "mixed" and not spec.features.get("fp16", True):
        raise UsageError(
            f"precision 'mixed' needs float16, which {spec.name} ({spec.device}) does not have; "
            "use another processor, or precision 'float32'"
        )


def _wanted(compiled: Compiled, feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {name: feeds[name] for name in compiled.executor.program.inputs}


def _split(name: str, array: Array, count: int) -> list[Array]:
    if array.ndim == 0 or len(array) % count:
        raise DataError(
            f"{name!r}: a batch of {array.shape[:1]} does not split into {count} micro-batches"
        )
    return np.split(array, count)
