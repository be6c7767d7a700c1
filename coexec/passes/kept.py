"""What a training step keeps of the forward pass for the backward pass; nodes put in between."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from coexec.ops.builder import PHASE, SOURCE, GraphBuilder
from coexec.ops.node import type_of
from coexec.ops.opdef import COEXEC
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


class Inserter:
    """Emits nodes next to others, in their phase and for the same layer."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.builder = GraphBuilder(graph, FORWARD)

    def behind(
        self,
        anchor: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int = 1,
        domain: str = COEXEC,
    ) -> tuple[ir.Value, ...]:
        """A node right behind ``anchor``."""
        made = self._emit(anchor, op_type, inputs, attributes, outputs, domain)
        self.graph.insert_after(anchor, self._taken_out(made))
        return made

    def before(
        self,
        anchor: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int = 1,
        domain: str = COEXEC,
    ) -> tuple[ir.Value, ...]:
        """A node right before ``anchor``."""
        made = self._emit(anchor, op_type, inputs, attributes, outputs, domain)
        self.graph.insert_before(anchor, self._taken_out(made))
        return made

    def _emit(
        self,
        anchor: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None,
        outputs: int,
        domain: str,
    ) -> tuple[ir.Value, ...]:
        self.builder.phase = phase_of(anchor)
        self.builder.source = str(anchor.metadata_props.get(SOURCE) or anchor.name)
        return self.builder.ops(op_type, inputs, attributes, outputs=outputs, domain=domain)

    def _taken_out(self, values: Sequence[ir.Value]) -> ir.Node:
        """The node that was appended, without a place."""
        node = values[0].producer()
        assert node is not None
        self.graph.remove(node)
        return node


def replace_node(graph: ir.Graph, node: ir.Node, values: Sequence[ir.Value]) -> None:
    """Let readers of a node's outputs read ``values``, and take the node out.

    A graph output keeps its name.
    """
    for old, new in zip(node.outputs, values, strict=True):
        if old.is_graph_output():
            new.name, old.name = old.name, f"{old.name}#replaced"
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
