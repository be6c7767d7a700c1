"""Stages of a pipeline: the parts of a planned model that run on one processor after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.session import Session


@dataclass(frozen=True)
class Part:
    """Consecutive nodes of a model as a model of their own, and the processor they are on."""

    processor: str
    model: ir.Model

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors that it reads."""
        return tuple(str(value.name) for value in self.model.graph.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Tensors that others want of it."""
        return tuple(str(value.name) for value in self.model.graph.outputs)


@dataclass(frozen=True)
class Stage:
    """A compiled part; ``wanted`` are tensors that later stages or the caller read."""

    processor: str
    session: Session
    inputs: tuple[str, ...]
    wanted: frozenset[str]

    def run(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """What is wanted behind this stage, from what was there before it."""
        made = self.session.run({name: tensors[name] for name in self.inputs})
        return {name: a for name, a in {**tensors, **made}.items() if name in self.wanted}


def cut(model: ir.Model, plan: Plan) -> list[Part]:
    """The parts of ``model`` (a planned one: static types, nodes in order) on each processor.

    Raises:
        ModelError: the plan divides nodes, or is not of this model.
    """
    if plan.splits:
        some = next(iter(plan.splits))
        raise ModelError(f"the plan divides nodes ({some!r}); a pipeline has whole nodes only")
    strangers = [str(node.name) for node in model.graph if node.name not in plan.processors]
    if strangers:
        raise ModelError(f"the plan is not of this model: it lacks node {strangers[0]!r}")
    runs = groupby(model.graph, key=lambda node: plan.processors[str(node.name)])
    parts = [(processor, list(nodes)) for processor, nodes in runs]
    return [Part(processor, _extract(model, nodes)) for processor, nodes in parts]


def _extract(model: ir.Model, nodes: list[ir.Node]) -> ir.Model:
    own = set(nodes)
    inputs = {
        value: None
        for node in nodes
        for value in node.inputs
        if value is not None and value.producer() not in own and not value.is_initializer()
    }
    outputs = [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(user not in own for user, _ in value.uses())
    ]
    graph = ir.convenience.extract(model.graph, list(inputs), outputs)
    return ir.Model(graph, ir_version=model.ir_version)


def compile_stages(
    model: ir.Model, plan: Plan, processors: Mapping[str, Processor], last_resort: str
) -> list[Stage]:
    """Compile each part of a planned model for its processor, in order.

    Raises:
        ModelError: as :func:`cut`.
    """
    parts = cut(model, plan)
    results = frozenset(str(value.name) for value in model.graph.outputs)
    stages = []
    for index, part in enumerate(parts):
        names = dict.fromkeys((part.processor, last_resort))
        session = Session(part.model, {name: processors[name] for name in names})
        wanted = results.union(*(later.inputs for later in parts[index + 1 :]))
        stages.append(Stage(part.processor, session, part.inputs, wanted))
    return stages
