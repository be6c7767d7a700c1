"""Tensors that stay where they are from run to run: new values are written when nobody reads old.

A value that replaces an input is written to that input's memory. So whatever reads the old value
comes first. Where that cannot be (a reader needs the new value), and where an operator reads the
old one through several operands, the new value is copied there at the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import call_of, set_type, type_of
from coexec.passes.updates import FORWARD, is_view, storage_roots


def carry(
    graph: ir.Graph, state: Mapping[str, str], plan: Plan, processors: Mapping[str, Processor]
) -> Plan:
    """Order a placed graph for ``state`` (outputs to the inputs that they replace); in place.

    Every output has a node of its own that makes it. Returns the plan with the copies that were
    put in.
    """
    carrier = _Carrier(graph, state, plan, processors)
    carrier.keep_old_values()
    carrier.order()
    return replace(plan, processors=carrier.places)


class _Carrier:
    def __init__(
        self,
        graph: ir.Graph,
        state: Mapping[str, str],
        plan: Plan,
        processors: Mapping[str, Processor],
    ) -> None:
        self.graph = graph
        self.builder = GraphBuilder(graph, FORWARD)
        self.processors = processors
        self.places = dict(plan.processors)
        inputs = {str(value.name): value for value in graph.inputs}
        self.replaced = {new: inputs[old] for new, old in state.items()}
        self.olds = set(self.replaced.values())

    def keep_old_values(self) -> None:
        """Copy old values that are asked for as they are: as an output, or by other processors."""
        roots = storage_roots(self.graph)
        for index, output in enumerate(list(self.graph.outputs)):
            producer = output.producer()
            if producer is not None and roots[output] in self.olds and is_view(producer):
                producer.replace_input_with(0, self._copy(producer, f"{output.name}#{index}"))
        roots = storage_roots(self.graph)
        for node in list(self.graph):
            if is_view(node) and roots[node.outputs[0]] in self.olds and self._is_sent(node):
                node.replace_input_with(0, self._copy(node, str(node.outputs[0].name)))

    def _is_sent(self, node: ir.Node) -> bool:
        """Whether a node on another processor reads the result."""
        own = self.places[str(node.name)]
        readers = (reader for value in node.outputs for reader in value.consumers())
        return any(self.places[str(reader.name)] != own for reader in readers)

    def _copy(self, node: ir.Node, name: str) -> ir.Value:
        """The first operand of a node, in memory of its own."""
        source = node.inputs[0]
        assert source is not None
        always = self.builder.constant(True, np.dtype(np.bool_))
        copy = ir.node("Where", [always, source, source], name=f"{name}#kept", version=16)
        copy.outputs[0].name = f"{name}#kept"
        set_type(copy.outputs[0], type_of(source))
        self.graph.insert_before(node, copy)
        self._put(copy, self.places[str(node.name)])
        return copy.outputs[0]

    def _put(self, node: ir.Node, wanted: str) -> None:
        """Place a new node on a processor, or on the first other one that executes it."""
        call = call_of(node)
        names = (wanted, *self.processors)
        able = (name for name in names if self.processors[name].supports(call).yes)
        self.places[str(node.name)] = next(able)

    def order(self) -> None:
        """Bring nodes that replace a value behind all that read it; others stay in their order."""
        needs = {node: _makers(node) for node in self.graph}
        for index, output in enumerate(list(self.graph.outputs)):
            old, writer = self.replaced.get(str(output.name)), output.producer()
            if old is None or writer is None:
                continue
            roots = storage_roots(self.graph)
            readers = {node for node in self.graph if _reads(node, old, roots)} - {writer}
            operands = [value for value in writer.inputs if value is not None]
            several = sum(roots[value] is old for value in operands) > 1
            if several or any(_follows(reader, writer, needs) for reader in readers):
                readers |= {writer}
                writer = self._copied_at_the_end(index, output)
                needs[writer] = set()
            needs[writer] |= readers
        self._sort(needs)

    def _copied_at_the_end(self, index: int, output: ir.Value) -> ir.Node:
        """Let a node of its own make an output; other nodes read what they did."""
        maker, name = output.producer(), str(output.name)
        assert maker is not None
        output.name = f"{name}#new"
        node = ir.node("Identity", [output], name=f"{name}#carried", version=16)
        node.outputs[0].name = name
        set_type(node.outputs[0], type_of(output))
        self.graph.append(node)
        self.graph.outputs[index] = node.outputs[0]
        self._put(node, self.places[str(maker.name)])
        return node

    def _sort(self, needs: Mapping[ir.Node, set[ir.Node]]) -> None:
        """Nodes after what they need, otherwise as they were."""
        nodes = list(self.graph)
        place = {node: index for index, node in enumerate(nodes)}
        waiting = {node: len(needs[node]) for node in nodes}
        followers: dict[ir.Node, list[ir.Node]] = {}
        for node in nodes:
            for other in needs[node]:
                followers.setdefault(other, []).append(node)
        ready = [place[node] for node in nodes if not waiting[node]]
        order: list[ir.Node] = []
        while ready:
            node = nodes[heapq.heappop(ready)]
            order.append(node)
            for follower in followers.get(node, ()):
                waiting[follower] -= 1
                if not waiting[follower]:
                    heapq.heappush(ready, place[follower])
        assert len(order) == len(nodes), "nodes wait for each other"
        self.graph.remove(nodes)
        self.graph.extend(order)


def _makers(node: ir.Node) -> set[ir.Node]:
    """Nodes whose results a node reads."""
    made = (value.producer() for value in node.inputs if value is not None)
    return {producer for producer in made if producer is not None}


def _reads(node: ir.Node, old: ir.Value, roots: Mapping[ir.Value, ir.Value]) -> bool:
    """Whether a node reads a value, or a view of it."""
    return any(value is not None and roots[value] is old for value in node.inputs)


def _follows(node: ir.Node, other: ir.Node, needs: Mapping[ir.Node, set[ir.Node]]) -> bool:
    """Whether a node can only run after another one."""
    seen: set[ir.Node] = set()
    stack = [node]
    while stack:
        for maker in needs[stack.pop()]:
            if maker is other:
                return True
            if maker not in seen:
                seen.add(maker)
                stack.append(maker)
    return False
