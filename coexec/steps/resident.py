"""Programs over states that stay on devices: parameters, optimizer state, batch statistics."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from coexec.autodiff.state_bits import SCALE, state_as
from coexec.autodiff.step import ACCUMULATOR, StepGraph
from coexec.base.collection import collection_paused
from coexec.base.errors import ProcessorError
from coexec.base.pages import give_back_heap, let_go
from coexec.core.plan import Plan
from coexec.core.processor import Buffer, Processor, Ticket
from coexec.core.program import STATE, Program, combined_bytes
from coexec.core.types import Array, TensorType
from coexec.passes.meet_norms import meet_norms
from coexec.passes.order_for_memory import order_for_memory
from coexec.passes.page_activations import page_activations
from coexec.passes.rematerialise import rematerialise
from coexec.passes.transposed_products import read_transposed
from coexec.passes.updates import forward_first, replace_after_readers
from coexec.placement.policies.first_that_can import place
from coexec.runtime.executor import Executor
from coexec.runtime.lower import lower
from coexec.runtime.lowering import Lowering
from coexec.runtime.meeting_places import able_to_meet
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.session import apply_plan, legalise, warn_of_fallbacks
from coexec.steps.builder import TRAINING, Kind
from coexec.steps.pager import pager_of

Shapes = tuple[tuple[int, ...], ...]
AT_ONCE = 16 << 20
"""Bytes of states on their way to devices at once."""
OTHER_OPTIONS = (
    ". Its step may have other options than were planned (optimizer, --lora, --activations, "
    "--trainable, --clip-norm, ...): train --processors A,B plans the step as it is"
)
"""What is said of a plan that has only some nodes of a step."""


@dataclass(frozen=True)
class Compiled:
    """A step graph with its plan, its program and the executor over the shared states."""

    graph: StepGraph
    plan: Plan
    executor: Executor

    @cached_property
    def computed(self) -> dict[str, str]:
        """What each result is computed by, in words, by processor and name."""
        return {
            f"{name} on {each.processor}": how
            for each in self.executor.program.executables
            for name, how in each.computed().items()
        }


class Lowered(NamedTuple):
    """A graph in the order in which it runs, with its plan and its program."""

    plan: Plan
    program: Program
    graph: ir.Graph


class ResidentPrograms:
    """Programs that share states; each state lives on one processor.

    Training steps follow the plan ``follow``, if there is one; all else runs on the first processor
    that can. States that no program has asked for yet wait on the host. ``sparing`` programs keep
    the process small, even where more code has to be built for that.
    """

    def __init__(
        self,
        processors: Mapping[str, Processor],
        mode: ExecutionMode = DEFAULT,
        follow: Plan | None = None,
        *,
        sparing: bool = False,
    ) -> None:
        self.processors = processors
        self.mode = mode
        self.follow = follow
        self.sparing = sparing
        self._compiled: dict[tuple[Kind, Shapes], Compiled] = {}
        self._laid_out: dict[tuple[Kind, Shapes], tuple[StepGraph, Lowered]] = {}
        self._buffers: dict[str, Buffer] = {}
        self._homes: dict[str, str] = {}
        self._kinds: dict[str, TensorType] = {}
        self._loaded: dict[str, Array] = {}
        # First values of states that nothing was written to yet.
        self._unfilled: dict[str, Array] = {}

    def find(self, kind: Kind, arrays: Mapping[str, Array]) -> Compiled | None:
        """The program of a kind for inputs of these shapes, if it is compiled or laid out."""
        key = (kind, _shapes(arrays))
        if key in self._laid_out:
            return self._bind(key, *self._laid_out.pop(key))
        return self._compiled.get(key)

    def training(self) -> Compiled | None:
        """The training step (or accumulation) that takes the most memory: of the largest batch."""
        found = [c for (kind, _), c in self._compiled.items() if kind in TRAINING]
        return max(found, key=lambda c: c.executor.program.peak_bytes, default=None)

    @property
    def computed(self) -> dict[str, Mapping[str, str]]:
        """:attr:`Compiled.computed` of all programs that change states, by kind and inputs."""
        return {
            f"{kind} {_text(shapes)}".rstrip(): each.computed
            for (kind, shapes), each in self._compiled.items()
            if kind != "inference"
        }

    @property
    def training_bytes(self) -> int:
        """Device memory of all training steps that are compiled, updates included; 0 before one."""
        programs = {key: each.executor.program for key, each in self._compiled.items()}
        kinds = {kind for kind, _ in programs}
        if kinds.isdisjoint(TRAINING):
            return 0
        return combined_bytes([p for (kind, _), p in programs.items() if kind != "inference"])

    def planned_bytes(self, graphs: Mapping[Kind, StepGraph]) -> int:
        """:attr:`training_bytes` of programs of these graphs; nothing is allocated."""
        lowered = (self.lower(kind, graph, builds=False) for kind, graph in graphs.items())
        return combined_bytes([each.program for each in lowered])

    def compile(
        self,
        kind: Kind,
        arrays: Mapping[str, Array],
        graph: StepGraph,
        recompute: Sequence[str] = (),
        *,
        fills: bool = True,
    ) -> Compiled:
        """Place and compile ``graph``; states that are new get their first values.

        Activations named in ``recompute`` are made again for the backward pass. If it does not fill
        states, :meth:`write` does: processors that are at work come to that after all they have.

        Raises:
            ModelError: the plan to follow is not of this graph.
            ProcessorError: it needs a processor that is not there or does not support its part.
        """
        graph = self._as_followed(kind, graph)
        lowered = self.lower(kind, graph, recompute)
        return self._bind((kind, _shapes(arrays)), graph, lowered, fills=fills)

    def lay_out(
        self,
        kind: Kind,
        arrays: Mapping[str, Array],
        graph: StepGraph,
        recompute: Sequence[str] = (),
    ) -> None:
        """As :meth:`compile`, but memory is taken only when the program is looked for."""
        graph = self._as_followed(kind, graph)
        self._laid_out[kind, _shapes(arrays)] = (graph, self.lower(kind, graph, recompute))

    def put_away(self) -> None:
        """Give all memory back, that of states too; programs stay laid out."""
        for key, each in self._compiled.items():
            lowered = Lowered(each.plan, each.executor.program, each.graph.model.graph)
            self._laid_out[key] = (each.graph, lowered)
        for kept in (self._compiled, self._buffers, self._homes, self._kinds):
            kept.clear()
        self._loaded, self._unfilled = {}, {}

    def _as_followed(self, kind: Kind, graph: StepGraph) -> StepGraph:
        """A graph with updates when the plan has them, if it follows one."""
        if kind != "step" or self.follow is None:
            return graph
        return replace(graph, early=self.follow.early)

    def _bind(
        self,
        key: tuple[Kind, Shapes],
        graph: StepGraph,
        lowered: Lowered,
        *,
        fills: bool = True,
    ) -> Compiled:
        if key[0] != "step" or self.follow is None:
            warn_of_fallbacks(lowered.plan)
        executor = Executor(lowered.program, self.processors, self._buffers)
        self._adopt(graph, executor, fills=fills)
        self._compiled[key] = Compiled(graph, lowered.plan, executor)
        return self._compiled[key]

    @collection_paused()
    def lower(
        self, kind: Kind, graph: StepGraph, recompute: Sequence[str] = (), *, builds: bool = True
    ) -> Lowered:
        """``graph`` placed, and its program with all memory planned; nothing is allocated.

        With ``builds``, the code of its kernels is built. Raises as :meth:`compile` does.
        """
        follow = self.follow if kind == "step" else None
        graph = self._as_followed(kind, graph)
        recompute = recompute if follow is None else follow.recompute
        model = legalise(graph.model, self.processors, follow)
        if kind in TRAINING and follow is None:
            read_transposed(model.graph, next(iter(self.processors.values())).supports)
        if kind in TRAINING and (follow is None or follow.recompute or follow.early):
            order_for_memory(model.graph, graph.state, early=graph.early)
        if kind in TRAINING and follow is None:
            self._page(model.graph, graph.paging)
        rematerialise(model.graph, recompute)
        if recompute:
            replace_after_readers(model.graph, graph.state)
        if follow is None:
            plan = place(model.graph, self.processors)
        else:
            plan = apply_plan(model.graph, follow, self.processors, OTHER_OPTIONS)
            if graph.early:
                forward_first(model.graph)
                replace_after_readers(model.graph, graph.state)
            if not self.mode.by_operator:
                plan = meet_norms(model.graph, plan, able_to_meet(self.processors))
        how = Lowering(
            plan,
            self.processors,
            state=graph.state,
            state_inputs=frozenset(graph.initial),
            homes=self._homes,
            gate=graph.gate,
            early=graph.early,
            mode=self.mode,
            # Frozen parameters are constants: copies in a kernel's layout take up to four times
            # their bytes, and a training that freezes them wants its memory for other things.
            prepares=kind == "inference",
            builds=builds,
            reuses=bool(recompute) or (follow is not None and graph.early),
            sparing=self.sparing,
            workspace=graph.workspace,
        )
        return Lowered(plan, lower(model.graph, how), model.graph)

    def _page(self, graph: ir.Graph, share: float) -> None:
        """Let a share of what a step keeps leave the first processor between the passes."""
        if share:
            pager = pager_of(next(iter(self.processors.values())))
            page_activations(graph, pager.pages(graph, share))

    def read(self) -> dict[str, Array]:
        """All states by name, read from the devices or (not in use yet) from the host."""
        return {**self._loaded, **self._read_all(self._homes)}

    def outliving(self, there: Collection[str]) -> dict[str, Array]:
        """As :meth:`read`, where only the processors ``there`` can be asked.

        States of others are read from memory of the host that was theirs, too; no work that writes
        them may be under way.

        Raises:
            ProcessorError: one of them lies elsewhere.
        """
        left = [name for name, home in self._homes.items() if home not in there]
        behind = {name: self._left_behind(name) for name in left}
        return {**self._loaded, **self._read_all(self._homes.keys() - behind.keys()), **behind}

    def _left_behind(self, name: str) -> Array:
        kind, home, memory = self._kinds[name], self._homes[name], self._buffers[name].over
        if memory is None or not self.processors[home].sees_host_memory():
            raise ProcessorError(f"state {name!r} lies in memory of {home}")
        return memory[: kind.nbytes].view(kind.dtype).reshape(kind.shape).copy()

    def _read_all(self, names: Iterable[str]) -> dict[str, Array]:
        """States from devices: all on their way before the first is waited for."""
        found = {name: np.empty(self._kinds[name].shape, self._kinds[name].dtype) for name in names}
        runners = {name: self.processors[self._homes[name]] for name in found}
        tickets = {n: runners[n].copy(found[n], self._buffers[n], ()) for n in found}
        for name in reversed(tickets):
            runners[name].wait(tickets[name])
        return found

    def write(self, state: Mapping[str, Array]) -> None:
        """Set states by name; those that nobody uses yet are kept for whoever does."""
        self._loaded = dict(state)
        first, self._unfilled = self._unfilled, {}
        kept = {n: v for n, v in first.items() if state_as(n, self._kinds[n], state) is None}
        self._write_all(kept)
        self._fill(self._homes)

    def _write_all(self, values: Mapping[str, Array]) -> None:
        """Write states, some MiB on their way at once: their pages may lie in a file.

        Raises:
            ValueError: one has another shape.
        """
        under_way: list[tuple[Processor, Ticket, Array]] = []
        for name, value in values.items():
            kind, runner = self._kinds[name], self.processors[self._homes[name]]
            if value.shape != kind.shape:
                raise ValueError(f"state {name!r} is {kind}, not {value.shape}")
            array = np.ascontiguousarray(value, kind.dtype)
            under_way.append((runner, runner.copy(self._buffers[name], array, ()), array))
            if sum(array.nbytes for _, _, array in under_way) > AT_ONCE:
                _wait_for(under_way)
        _wait_for(under_way)

    def inherit(self, old: ResidentPrograms) -> None:
        """Take over the states of other programs: in place where they stay, else by the host.

        Sums of gradients are zero between two steps and are not taken over.
        """
        wanted = self._state_types()
        self._loaded = dict(old._loaded)
        for name, home in old._homes.items():
            if name.endswith(ACCUMULATOR):
                continue
            if wanted.get(name) == (home, old._kinds[name]):
                self._own(name, home, old._kinds[name], old._buffers[name])
            else:
                self._loaded.update(old._read_all([name]))

    def _own(self, name: str, home: str, kind: TensorType, buffer: Buffer) -> None:
        self._homes[name], self._kinds[name], self._buffers[name] = home, kind, buffer

    def _state_types(self) -> dict[str, tuple[str, TensorType]]:
        """Home and type of the states of programs that are laid out."""
        programs = [lowered.program for _, lowered in self._laid_out.values()]
        return {
            spec.name: (spec.processor, program.types[spec.name])
            for program in programs
            for spec in program.buffers
            if spec.role == STATE
        }

    def clear_accumulators(self) -> None:
        """Zero the sums of gradients over micro-batches."""
        for name in self._homes:
            if name.endswith(ACCUMULATOR):
                zeros = np.zeros(self._kinds[name].shape, self._kinds[name].dtype)
                self._write_all({name: zeros})

    def _adopt(self, graph: StepGraph, executor: Executor, *, fills: bool) -> None:
        """Remember where states live, and fill those that are new."""
        program = executor.program
        homes = {spec.name: spec.processor for spec in program.buffers}
        self._buffers.update(executor.buffers)
        new = [name for name in program.state if name not in self._homes]
        initial: dict[str, Array] = {}
        for name in new:
            self._own(name, homes[name], program.types[name], executor.buffers[name])
            if not fills:
                self._unfilled[name] = graph.initial[name]
            elif state_as(name, program.types[name], self._loaded) is None:
                initial[name] = graph.initial[name]
        if fills:
            self._write_all(initial)
            self._fill(new)
        if new:
            give_back_heap()

    def _fill(self, names: Collection[str]) -> None:
        """Give states their values among those loaded, which are forgotten then."""
        known = {name: state_as(name, self._kinds[name], self._loaded) for name in names}
        found = {name: value for name, value in known.items() if value is not None}
        self._write_all(found)
        for name in found:
            self._loaded.pop(name, None)
            if f"{name}{SCALE}" not in self._homes:
                self._loaded.pop(f"{name}{SCALE}", None)


def _wait_for(under_way: list[tuple[Processor, Ticket, Array]]) -> None:
    """Wait for copies, the last one first: it tells for those before."""
    while under_way:
        runner, ticket, array = under_way.pop()
        runner.wait(ticket)
        let_go(array)


def _text(shapes: Shapes) -> str:
    return " ".join("x".join(map(str, shape)) for shape in shapes)


def _shapes(arrays: Mapping[str, Array]) -> Shapes:
    return tuple(array.shape for array in arrays.values())
