"""What a session runs: a model at fixed shapes, as one program or in parts that data divide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.core.program import Program
from coexec.core.types import Array
from coexec.frontend.division import Search
from coexec.ops.node import call_of
from coexec.ops.table import opdef
from coexec.passes.float16 import Conversion
from coexec.placement.in_floats import NO_LAYERS, QuantisedLayers
from coexec.runtime.executor import Executor
from coexec.runtime.region_work import RegionWork

LIGHT_FLOP = 10**6
"""NumPy takes less than a millisecond for it; kernels would be built for every number of boxes."""


def is_light(model: ir.Model) -> bool:
    """Whether the work of a model whose values are typed is next to nothing."""
    return sum(opdef(call).work(call).flop for call in map(call_of, model.graph)) < LIGHT_FLOP


@dataclass(frozen=True)
class Prepared:
    """A model at fixed shapes: its plan, its program and the executor that runs it.

    ``names`` are the model's outputs and ``outputs`` the program's tensors behind them, in order:
    an output that is an input or stands twice has another name there. ``work`` says what each
    launch computes, of a plan that was followed; ``conversions`` what computes in float16, if that
    was asked for; ``quantised`` which layers compute in floats though they are quantised.
    """

    plan: Plan
    program: Program
    executor: Executor
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    work: tuple[RegionWork, ...] = ()
    conversions: tuple[Conversion, ...] = ()
    quantised: QuantisedLayers = NO_LAYERS

    @property
    def programs(self) -> tuple[Program, ...]:
        return (self.program,)

    def results(
        self, arrays: Mapping[str, Array], names: Sequence[str], trace: Trace | None
    ) -> dict[str, Array]:
        """The outputs ``names`` of a run on those of ``arrays`` that the program reads."""
        made = dict(zip(self.names, self.outputs, strict=True))
        read = {name: arrays[name] for name in self.program.inputs}
        fetch = {made[name]: None for name in names}
        results = self.executor.run(read, [*fetch], trace=trace)
        return {name: results[made[name]] for name in names}


class Part(Protocol):
    """A part of a model behind what data decide: a session."""

    @property
    def model(self) -> ir.Model: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def programs(self) -> tuple[Program, ...]: ...

    @property
    def conversions(self) -> tuple[Conversion, ...]: ...

    @property
    def quantised(self) -> QuantisedLayers: ...

    def results(
        self, arrays: Mapping[str, Array], names: Sequence[str], trace: Trace | None
    ) -> dict[str, Array]: ...


@dataclass(frozen=True)
class Stages:
    """A model in which data decide shapes, run in parts one after the other.

    First what can be computed at once, then on the host what is as large as data say, then what
    reads that, at the shapes that were found. Parts that would compute nothing are ``None``.
    """

    head: Prepared | None
    searches: tuple[Search, ...]
    tail: Part | None

    work: tuple[RegionWork, ...] = ()

    def results(
        self, arrays: Mapping[str, Array], names: Sequence[str], trace: Trace | None
    ) -> dict[str, Array]:
        """The outputs ``names`` of a run."""
        values = dict(arrays)
        if self.head is not None:
            values |= self.head.results(arrays, self.head.names, trace)
        for search in self.searches:
            values |= search.results(values)
        if self.tail is not None:
            graph = self.tail.model.graph
            made = {str(value.name) for value in graph.outputs}
            given = {str(value.name): values[str(value.name)] for value in graph.inputs}
            values |= self.tail.results(given, [name for name in names if name in made], trace)
        return {name: values[name] for name in names}

    @property
    def plan(self) -> Plan:
        """Where the nodes of all parts went; the last one as it ran last."""
        plans = [part.plan for part in (self.head, self.tail) if part is not None]
        processors = {node: name for plan in plans for node, name in plan.processors.items()}
        return Plan(processors, tuple(each for plan in plans for each in plan.refusals))

    @property
    def programs(self) -> tuple[Program, ...]:
        return tuple(
            p for part in (self.head, self.tail) if part is not None for p in part.programs
        )

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        return tuple(
            each for part in (self.head, self.tail) if part is not None for each in part.conversions
        )

    @property
    def quantised(self) -> QuantisedLayers:
        """Those of all parts; the last one as it ran last."""
        found = [part.quantised for part in (self.head, self.tail) if part is not None]
        in_floats = tuple(layer for each in found for layer in each.in_floats)
        return QuantisedLayers(sum(each.layers for each in found), in_floats)

    @property
    def program(self) -> Program:
        """There is none.

        Raises:
            ModelError: with advice.
        """
        found = ", ".join(dict.fromkeys(f"{s.call.op_type} {s.call.name!r}" for s in self.searches))
        raise ModelError(
            f"the model runs in parts, as data decide shapes in it ({found or 'control flow'}): "
            "bundles, plans and profiles are of one program. Cut the model in front of that "
            "(onnx.utils.extract_model)"
        )
