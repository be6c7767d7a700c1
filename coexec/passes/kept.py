"""What a training step keeps of the forward pass for the backward pass; nodes put in between."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from coexec.ops.builder import PHASE
from coexec.ops.node import type_of
from coexec.ops.table import OPERATORS

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class Use:
    """An operand of a node of the backward pass: a kept tensor, or a view of it."""

    node: ir.Node
    position: int

    @property
    def value(self) -> ir.Value:
        value = self.node.inputs[self.position]
        assert value is not None
        return value


@dataclass
class Kept:
    """A tensor that the forward pass makes and the backward pass reads."""

    value: ir.Value
    uses: list[Use] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return type_of(self.value).nbytes


def phase_of(node: ir.Node) -> str:
    """The part of a step that a node belongs to."""
    return node.metadata_props.get(PHASE, "")


def kept_tensors(graph: ir.Graph) -> list[Kept]:
    """Tensors of the forward pass that the backward pass reads, by their first reader there.

    Views count as what they are views of. Not what something else needs later anyway: outputs of
    the graph, and what the optimizer's part reads (batch statistics).
    """
    found: dict[ir.Value, Kept] = {}
    for node in graph:
        if phase_of(node) == FORWARD:
            continue
        for position, value in enumerate(node.inputs):
            root = None if value is None else storage_of(value)
            producer = None if root is None else root.producer()
            if root is not None and producer is not None and phase_of(producer) == FORWARD:
                found.setdefault(root, Kept(root)).uses.append(Use(node, position))
    return [kept for kept in found.values() if not _is_needed_anyway(kept)]


def _is_needed_anyway(kept: Kept) -> bool:
    return kept.value.is_graph_output() or any(phase_of(use.node) != BACKWARD for use in kept.uses)


def kept_bytes(graph: ir.Graph) -> int:
    """Bytes of all tensors that live from the forward pass to the backward pass."""
    return sum(kept.nbytes for kept in kept_tensors(graph))


def storage_of(value: ir.Value) -> ir.Value:
    """The tensor that a view of the forward pass is a view of; other tensors are their own."""
    producer = value.producer()
    while producer is not None and phase_of(producer) == FORWARD and _is_view(producer):
        operand = producer.inputs[0]
        assert operand is not None
        value, producer = operand, operand.producer()
    return value


def _is_view(node: ir.Node) -> bool:
    identifier = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    op = OPERATORS.get(identifier)
    return op is not None and op.view


def forward_readers(value: ir.Value) -> Iterator[ir.Node]:
    """Nodes of the forward pass that read a tensor or a view of it."""
    for node, _ in value.uses():
        if phase_of(node) == FORWARD:
            yield node
            if _is_view(node):
                yield from forward_readers(node.outputs[0])


def dependents(graph: ir.Graph, names: Collection[str]) -> set[ir.Value]:
    """Values that are computed from graph inputs of these names."""
    reached = {value for value in graph.inputs if value.name in names}
    for node in graph:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
    return reached
