"""Programs over states that stay on devices: parameters, optimizer state, batch statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from coexec.autodiff.step import StepGraph, accumulator_name
from coexec.core.plan import Plan
from coexec.core.processor import Buffer, Processor
from coexec.core.program import Program
from coexec.core.types import Array
from coexec.passes.rematerialise import rematerialise
from coexec.placement.policies.first_that_can import place
from coexec.runtime.executor import Executor
from coexec.runtime.lower import Lowering, lower
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.session import apply_plan, legalise, warn_of_fallbacks
from coexec.step_builder import TRAINING, Kind

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Compiled:
    """A step graph with its plan, its program and the executor over the shared states."""

    graph: StepGraph
    plan: Plan
    executor: Executor


class Lowered(NamedTuple):
    """A graph in the order in which it runs, with its plan and its program."""

    plan: Plan
    program: Program
    graph: ir.Graph


class ResidentPrograms:
    """Programs that share states; each state lives on one processor.

    Training steps follow the plan ``follow``, if there is one; all else runs on the first processor
    that can. States that no program has asked for yet wait on the host.
    """

    def __init__(
        self,
        processors: Mapping[str, Processor],
        mode: ExecutionMode = DEFAULT,
        follow: Plan | None = None,
    ) -> None:
        self.processors = processors
        self.mode = mode
        self.follow = follow
        self._compiled: dict[tuple[Kind, Shapes], Compiled] = {}
        self._buffers: dict[str, Buffer] = {}
        self._homes: dict[str, str] = {}
        self._loaded: dict[str, Array] = {}

    def find(self, kind: Kind, arrays: Mapping[str, Array]) -> Compiled | None:
        """The program of a kind for inputs of these shapes, if it is compiled."""
        return self._compiled.get((kind, _shapes(arrays)))

    def training(self) -> Compiled | None:
        """The training step (or accumulation) compiled last."""
        found = [c for (kind, _), c in self._compiled.items() if kind in TRAINING]
        return found[-1] if found else None

    def compile(
        self,
        kind: Kind,
        arrays: Mapping[str, Array],
        graph: StepGraph,
        recompute: Sequence[str] = (),
    ) -> Compiled:
        """Place and compile ``graph``; states that are new get their first values.

        Activations named in ``recompute`` are made again for the backward pass.

        Raises:
            ModelError: the plan to follow is not of this graph.
            ProcessorError: it needs a processor that is not there or does not support its part.
        """
        lowered = self.lower(kind, graph, recompute)
        plan, program = lowered.plan, lowered.program
        if kind != "step" or self.follow is None:
            warn_of_fallbacks(plan)
        executor = Executor(program, self.processors, self._buffers)
        self._adopt(graph, executor)
        self._compiled[kind, _shapes(arrays)] = Compiled(graph, plan, executor)
        return self._compiled[kind, _shapes(arrays)]

    def lower(self, kind: Kind, graph: StepGraph, recompute: Sequence[str] = ()) -> Lowered:
        """``graph`` placed, and its program with all memory planned; nothing is built or allocated.

        Raises as :meth:`compile` does.
        """
        follow = self.follow if kind == "step" else None
        model = legalise(graph.model, self.processors, follow)
        rematerialise(model.graph, recompute)
        if follow is None:
            plan = place(model.graph, self.processors)
        else:
            plan = apply_plan(model.graph, follow, self.processors)
        how = Lowering(
            plan,
            self.processors,
            state=graph.state,
            state_inputs=frozenset(graph.initial),
            homes=self._homes,
            gate=graph.watched,
            mode=self.mode,
            # Frozen parameters are constants: copies in a kernel's layout take up to four times
            # their bytes, and a training that freezes them wants its memory for other things.
            prepares=kind == "inference",
        )
        return Lowered(plan, lower(model.graph, how), model.graph)

    def read(self) -> dict[str, Array]:
        """All states by name, read from the devices or (not in use yet) from the host."""
        owner: dict[str, Executor] = {}
        for compiled in self._compiled.values():
            for name in compiled.executor.program.state:
                owner.setdefault(name, compiled.executor)
        read = {name: executor.read_state(name) for name, executor in owner.items()}
        return {**self._loaded, **read}

    def write(self, state: Mapping[str, Array]) -> None:
        """Set states by name; those that nobody uses yet are kept for whoever does."""
        self._loaded = dict(state)
        for compiled in self._compiled.values():
            for name in compiled.executor.program.state:
                if name in state:
                    compiled.executor.write_state(name, state[name])

    def clear_accumulators(self) -> None:
        """Zero the sums of gradients over micro-batches."""
        for compiled in self._compiled.values():
            for name in map(accumulator_name, compiled.graph.trainable):
                if name in compiled.executor.program.state:
                    kind = compiled.executor.program.types[name]
                    compiled.executor.write_state(name, np.zeros(kind.shape, kind.dtype))

    def _adopt(self, graph: StepGraph, executor: Executor) -> None:
        """Remember where states live, and fill those that are new."""
        homes = {spec.name: spec.processor for spec in executor.program.buffers}
        for name in executor.program.state:
            if name not in self._homes:
                self._homes[name] = homes[name]
                executor.write_state(name, self._loaded.get(name, graph.initial[name]))
        self._buffers.update(executor.buffers)


def _shapes(arrays: Mapping[str, Array]) -> Shapes:
    return tuple(array.shape for array in arrays.values())
