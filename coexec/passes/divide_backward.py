"""Compute the widest layers of a backward pass in parts of the batch, one after the other.

What a wide layer makes is then never there as a whole: each part makes its activations again, then
its gradients. Sums over the batch (weight gradients) grow from part to part, gradients that go on
are joined. Sums that others wait for, those of batch normalisation, come first, in a round of their
own (:mod:`coexec.passes.divided_norm`). The same as plain backward, but for the order of sums. A
batch in parts as in GPipe (Huang et al., 2019, arXiv 1811.06965), for single layers instead of the
whole network, so that normalisation keeps the statistics of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

import numpy as np
import onnx_ir as ir

from coexec.ops.builder import SOURCE, GraphBuilder
from coexec.ops.node import attributes_of, call_of, type_of
from coexec.ops.split_rules import way
from coexec.passes.batch_ways import is_reduction, results_of
from coexec.passes.divided_norm import DividedNorms, is_gradient, is_normalisation
from coexec.passes.kept import FORWARD, phase_of
from coexec.passes.rematerialise import RECOMPUTE
from coexec.passes.wide_layers import WideLayers, rows_of_widest

PARTS = (4, 8, 2, 3, 5, 7)
"""Numbers of parts, the best first: fewer save less, more compute on too little at once."""
LONGER, FEW = 1.0, 200
"""Of the nodes of a step: so many more at most, or so few in all. A layer is made again in each
round that needs it; where many are wide, that is far too often."""


def divide_backward(graph: ir.Graph, share: float) -> int:
    """Divide what makes or reads the widest tensors of the backward pass of a training step.

    In place; ``graph`` has static types and is in execution order. Wide are those with at least
    ``share`` (above 0, up to 1) of the elements of the largest. Returns the number of nodes that
    are divided; 0 if nothing can be, or only with too many repetitions.
    """
    rows = rows_of_widest(graph)
    parts = next((number for number in PARTS if rows % number == 0), 0) if rows else 0
    layers = WideLayers(graph, share, parts) if parts else None
    return _Division(graph, layers).run() if layers is not None and layers.divided else 0


class _Division:
    """``rounds``: nodes whose results are whole, by the round that they are made in."""

    def __init__(self, graph: ir.Graph, layers: WideLayers) -> None:
        self.graph = graph
        self.layers = layers
        self.builder = GraphBuilder(graph, "")
        self.norms = DividedNorms(self.builder)
        self.place = {node: (number, 0) for number, node in enumerate(graph)}
        self.rounds: dict[int, list[ir.Node]] = {}
        self.levels: dict[ir.Value, int] = {}

    def run(self) -> int:
        before = list(self.graph)
        for node in before:
            self._find_round(node)
        work = sum(len(self._needed(nodes)) for nodes in self.rounds.values())
        if work * self.layers.parts > max(LONGER * len(before), FEW):
            return 0
        for node in self.layers.normalisations():
            self.norms.expose(node)
            self._place_new(self.place[node][0])
        for level in sorted(self.rounds):
            self._emit_round(level, self.rounds[level])
        nodes = self.layers.nodes
        for node in reversed(nodes):
            self.graph.remove(node, safe=True)
        self._order()
        return len(nodes)

    def _find_round(self, node: ir.Node) -> None:
        """When the results of a node are there: its divided operands take a round to be whole."""
        levels, divided = self.levels, self.layers.divided
        level = max((levels.get(v, 0) for v in node.inputs if v is not None), default=0)
        if node not in self.layers.ways:
            levels.update(dict.fromkeys(node.outputs, level))
            return
        if is_gradient(node):
            self.rounds.setdefault(level, []).append(node)
            level += 1
            levels.update(dict.fromkeys(node.outputs[1:], level))
        if node.outputs[0] in divided:
            levels[node.outputs[0]] = level
        else:
            self.rounds.setdefault(level, []).append(node)
            made = node.outputs[:1] if is_gradient(node) else node.outputs
            levels.update(dict.fromkeys(made, level + 1))

    def _needed(self, nodes: Sequence[ir.Node]) -> set[ir.Node]:
        """These nodes, and those that are made again in parts for them."""
        found: set[ir.Node] = set()
        pending = list(nodes)
        while pending:
            node = pending.pop()
            if node not in found:
                found.add(node)
                pending += [
                    m for v in node.inputs if v in self.layers.divided and (m := v.producer())
                ]
        return found

    def _emit_round(self, level: int, nodes: Sequence[ir.Node]) -> None:
        """All parts one after the other, and then what they make together."""
        sums: dict[tuple[ir.Node, int], ir.Value] = {}
        joined: dict[ir.Node, list[ir.Value]] = {}
        for part in range(self.layers.parts):
            values = _Part(self, part)
            for node in nodes:
                found: tuple[ir.Value, ...]
                if is_gradient(node) and level < self.levels[node.outputs[1]]:
                    found = self.norms.sums(node, values.of(node, 0), values.of(node, 2))
                elif not is_gradient(node) and self.layers.ways[node].axis is None:
                    found = values.made(node)
                else:
                    joined.setdefault(node, []).append(values.result(node))
                    continue
                for index, value in enumerate(found):
                    old = sums.get((node, index))
                    sums[node, index] = value if old is None else self._add(old, value)
        for node in nodes:
            if node in joined:
                self._mark(node)
                whole = self.builder.op("Concat", joined[node], {"axis": 0})
                _replace(node.outputs[0], whole)
            elif is_gradient(node):
                self._mark(node)
                made = self.norms.finish(node, sums[node, 0], sums[node, 1])
                for old, new in zip(node.outputs[1:], made, strict=False):
                    _replace(old, new)
            else:
                for index, old in enumerate(results_of(node)):
                    _replace(old, sums[node, index])
        self._place_new(max(self.place[node][0] for node in nodes))

    def _add(self, total: ir.Value, more: ir.Value) -> ir.Value:
        return self.builder.op("Add", [total, more])

    def _mark(self, node: ir.Node) -> None:
        """Nodes from now on belong to the layer of ``node``; repeated ones are no forward nodes."""
        phase = phase_of(node)
        self.builder.phase = RECOMPUTE if phase == FORWARD else phase
        self.builder.source = str(node.metadata_props.get(SOURCE) or node.name)

    def _place_new(self, number: int) -> None:
        """What was appended since the last time comes behind a node of the plain step."""
        new = [node for node in self.graph if node not in self.place]
        self.place.update((node, (number, 1 + index)) for index, node in enumerate(new))

    def _order(self) -> None:
        """By places; what reads sums of a round waits for all of its parts."""
        waiting = {node: len(set(_makers(node))) for node in self.graph}
        # Of what was put in the same place, the first made comes first.
        place = {node: (self.place[node], made) for made, node in enumerate(self.graph)}
        ready = [(place[node], node) for node, count in waiting.items() if not count]
        heapify(ready)
        done: list[ir.Node] = []
        while ready:
            node = heappop(ready)[1]
            done.append(node)
            for reader in dict.fromkeys(user for v in node.outputs for user, _ in v.uses()):
                waiting[reader] -= 1
                if not waiting[reader]:
                    heappush(ready, (place[reader], reader))
        self.graph.remove(done)
        self.graph.extend(done)


class _Part:
    """Values of one part of the batch in one round: each is made once."""

    def __init__(self, division: _Division, part: int) -> None:
        self.division = division
        self.layers = division.layers
        self.part = part
        self.values: dict[tuple[ir.Value, int], ir.Value] = {}

    def of(self, node: ir.Node, operand: int, axis: int = 0) -> ir.Value:
        """The part of an operand: made here if it is divided, else cut from the whole."""
        value = node.inputs[operand]
        assert value is not None  # the node is divided along this operand
        key = (value, axis)
        if key not in self.values:
            if value in self.layers.divided:
                producer = value.producer()
                assert producer is not None  # what has no producer is not divided
                self.values[key] = self.result(producer)
            else:
                self.values[key] = self._cut(node, value, axis)
        return self.values[key]

    def result(self, node: ir.Node) -> ir.Value:
        """The part of the first result of a node."""
        norms = self.division.norms
        if is_gradient(node):
            x, dy = self.of(node, 0), self.of(node, 2)
            self.division._mark(node)
            return norms.gradient(node, x, dy)
        if is_normalisation(node):
            x = self.of(node, 0)
            self.division._mark(node)
            return norms.normalised(node, x)
        return self.made(node)[0]

    def made(self, node: ir.Node) -> tuple[ir.Value, ...]:
        """A node's results of parts of its operands: a part of one, or summands of all."""
        how = self.layers.ways[node]
        inputs = [
            self.of(node, index, how.operands[index]) if index in how.operands else value
            for index, value in enumerate(node.inputs)
        ]
        call, attributes = call_of(node), attributes_of(node)
        self.division._mark(node)
        builder = self.division.builder
        if call.identifier == "Reshape":
            shape = (call.output(0).shape[0] // self.layers.parts, *call.output(0).shape[1:])
            inputs[1] = builder.constant(np.array(shape, np.int64), np.dtype(np.int64))
            attributes["allowzero"] = 0
        elif how.axis is not None and not is_reduction(call):
            attributes |= way(call, how.axis).changes(*self._bounds(call.output(0).shape[0]))
        outputs = len(results_of(node))
        made = builder.ops(node.op_type, inputs, attributes, outputs=outputs, domain=node.domain)
        _producer(made[0]).version = node.version
        return made

    def _cut(self, node: ir.Node, value: ir.Value, axis: int) -> ir.Value:
        self.division._mark(node)
        builder = self.division.builder
        # All that a round makes again begins with cuts, and repetitions are never merged.
        builder.phase = RECOMPUTE
        bounds = [
            builder.constant([number], np.dtype(np.int64))
            for number in (*self._bounds(type_of(value).shape[axis]), axis)
        ]
        return builder.op("Slice", [value, *bounds])

    def _bounds(self, size: int) -> tuple[int, int]:
        each = size // self.layers.parts
        return each * self.part, each * (self.part + 1)


def _makers(node: ir.Node) -> Iterator[ir.Node]:
    """Nodes of the graph that make what ``node`` reads."""
    for value in node.inputs:
        maker = None if value is None else value.producer()
        if maker is not None:
            yield maker


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None  # it was made by the builder
    return node


def _replace(old: ir.Value, new: ir.Value | None) -> None:
    """Let readers of a value read another one; a result of the graph keeps its name."""
    if new is None:
        return
    if old.is_graph_output():
        new.name, old.name = old.name, f"{old.name}#replaced"
    old.replace_all_uses_with(new, replace_graph_outputs=True)
