"""Which values of a training step can be made in parts of the batch, and by which nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.ops.node import call_of, type_of
from coexec.passes.batch_ways import Divided, Way, find_way
from coexec.passes.divided_norm import (
    has_statistics,
    is_gradient,
    is_normalisation,
    statistics_of,
)
from coexec.passes.kept import BACKWARD, FORWARD, phase_of


def rows_of_widest(graph: ir.Graph) -> int:
    """The first extent of the largest activation: samples, if that is how a network is built."""
    kinds = [type_of(v) for n in graph if phase_of(n) == FORWARD for v in n.outputs if v.name]
    widest = max(kinds, key=lambda kind: kind.size, default=None)
    return widest.shape[0] if widest is not None and widest.shape else 0


class WideLayers:
    """Values with at least a ``share`` of the elements of the largest activation, if they divide.

    ``divided`` are made in ``parts`` along their first axis: those of the backward pass there and
    nowhere else, those of the forward pass there once more. ``ways`` are those of the nodes that
    make or read them. Not divided are results of the graph, and what several nodes of the forward
    pass read: from there on it is computed again.
    """

    def __init__(self, graph: ir.Graph, share: float, parts: int) -> None:
        self.parts = parts
        made = {v: n for n in graph if phase_of(n) in (FORWARD, BACKWARD) for v in n.outputs}
        sizes = {value: type_of(value).size for value in made if value.name}
        forward = (n for value, n in sizes.items() if phase_of(made[value]) == FORWARD)
        least = share * max(forward, default=0)
        self.divided = {v for v, size in sizes.items() if size >= least and self._may(v)}
        self.ways: dict[ir.Node, Way] = {}
        while self.divided and not self._settled(graph):
            pass
        self._leave_out(graph)

    @property
    def nodes(self) -> list[ir.Node]:
        """Nodes of the backward pass that are replaced by parts."""
        return [node for node in self.ways if phase_of(node) == BACKWARD]

    def normalisations(self) -> Iterator[ir.Node]:
        """Nodes of the forward pass whose statistics are needed."""
        found: dict[ir.Node, None] = {}
        for node in self.ways:
            if is_normalisation(node):
                found[node] = None
            elif is_gradient(node) and (forward := statistics_of(node)):
                found[forward] = None
        return iter(found)

    def _may(self, value: ir.Value) -> bool:
        producer = value.producer()
        shape = type_of(value).shape
        if producer is None or value.is_graph_output() or not shape or shape[0] % self.parts:
            return False
        readers = [node for node, _ in value.uses() if phase_of(node) == FORWARD]
        return value.index() == 0 and (phase_of(producer) == BACKWARD or len(readers) <= 1)

    def _settled(self, graph: ir.Graph) -> bool:
        """Find the ways of all nodes; what one stands in the way of is divided no more."""
        self.ways = {}
        refused: set[ir.Value] = set()
        for node in graph:
            inputs = {i: v for i, v in enumerate(node.inputs) if v in self.divided}
            makes = bool(node.outputs) and node.outputs[0] in self.divided
            reads = bool(inputs) and phase_of(node) != FORWARD
            if not (makes or reads):
                continue
            how = self._way(node, inputs, makes)
            if how is not None:
                self.ways[node] = how
                continue
            refused.update(node.outputs[:1] if makes else ())
            # A node of the forward pass still has the whole values.
            refused.update(v for v in inputs.values() if reads)
        self.divided -= refused
        return not refused

    def _way(self, node: ir.Node, inputs: Mapping[int, ir.Value], makes: bool) -> Way | None:
        if phase_of(node) not in (FORWARD, BACKWARD):
            return None
        call = call_of(node)
        if is_gradient(node):
            fits = statistics_of(node) is not None and call.input(0).shape[0] % self.parts == 0
            return Way({0: 0, 2: 0}, 0, {}) if fits else None
        if is_normalisation(node):
            return Way({0: 0}, 0, {}) if has_statistics(node) else None
        divided = {i: Divided(0, self._bounds(v), {}) for i, v in inputs.items()}
        first = node.inputs[0] if node.inputs else None
        if not divided and first is not None and type_of(first).shape:
            divided = {0: Divided(0, self._bounds(first), {})}
        how = find_way(call, divided) if divided else None
        wanted = (0,) if makes else (0, None)
        return how if how is not None and how.axis in wanted and self._even(call, how) else None

    def _even(self, call: OpCall, how: Way) -> bool:
        """Whether all operands that are divided, and the result, have parts of one size."""
        sizes = [call.input(index).shape[axis] for index, axis in how.operands.items()]
        sizes += [] if how.axis is None else [call.output(0).shape[how.axis]]
        return all(size % self.parts == 0 for size in sizes)

    def _bounds(self, value: ir.Value) -> dict[str, tuple[int, int]]:
        each = type_of(value).shape[0] // self.parts
        return {str(part): (part * each, (part + 1) * each) for part in range(self.parts)}

    def _leave_out(self, graph: ir.Graph) -> None:
        """Forget values of the forward pass that nobody needs in parts."""
        needed: set[ir.Node] = set()
        for node in reversed(list(graph)):
            if node in self.ways and (
                phase_of(node) == BACKWARD
                or any(reader in needed for v in node.outputs for reader, _ in v.uses())
            ):
                needed.add(node)
        self.ways = {node: how for node, how in self.ways.items() if node in needed}
        self.divided = {v for v in self.divided if v.producer() in needed}
