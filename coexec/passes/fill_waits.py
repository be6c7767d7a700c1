"""Order the backward pass of a divided step so that processors compute while they wait.

Between sending its part of a sum and needing the sums of the others, a processor has nothing to do
in the order of the layers: where processors exchange statistics, each layer waits for the slower
one. Gradients of parameters are wanted at the end only, so each is held back until the next
exchange was sent, and fills the wait for it. Results are the same bits: only the order changes.
Source: Qi and others, "Zero Bubble Pipeline Parallelism" (2023, arXiv 2401.10241), where gradients
of weights, apart from those of activations, fill the waits of a pipeline; the overlap of exchanges
with the rest of the backward pass is as in Li and others, "PyTorch Distributed: Experiences on
Accelerating Data Parallel Training" (2020).

What is held back keeps its operands longer. That may cost :data:`GROWTH` of the memory in use at
once; beyond it, only smaller gradients wait.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.ops.builder import PHASE
from coexec.ops.node import type_of
from coexec.passes.updates import is_update, storage_roots

BACKWARD = "backward"
GROWTH = 0.05
"""Part of the most bytes in use at once on a processor by which the order may raise it."""


def fill_waits(graph: ir.Graph, plan: Plan) -> Plan:
    """Reorder ``graph`` (static types, a legal order, a place for each node in ``plan``), in place.

    Returns the plan with the new order.
    """
    step = _Step(graph, plan.processors)
    limits = {place: (1 + GROWTH) * peak for place, peak in step.peaks(step.nodes).items()}
    sizes = sorted({step.operand_bytes(node) for node in step.patient}, reverse=True)
    order = step.nodes
    for most in _fewer(sizes):
        tried = step.ordered(most)
        if all(peak <= limits[place] for place, peak in step.peaks(tried).items()):
            order = tried
            break
    graph.remove(step.nodes)
    graph.extend(order)
    return replace(plan, order=tuple(str(node.name) for node in order))


def _fewer(sizes: Sequence[int]) -> list[int]:
    """Limits to try: all sizes, those up to the median, up to the quartile, ..."""
    found, start = [], 0
    while start < len(sizes):
        found.append(sizes[start])
        start += max((len(sizes) - start) // 2, 1)
    return found


@dataclass
class _Lane:
    """One processor's side: what it holds back, and foreign values that it has waited for."""

    held: list[ir.Node] = field(default_factory=list)
    awaited: set[ir.Value] = field(default_factory=set)


class _Step:
    def __init__(self, graph: ir.Graph, places: Mapping[str, str]) -> None:
        self.nodes = list(graph)
        self.place = {node: places[str(node.name)] for node in self.nodes}
        self.roots = storage_roots(graph)
        self.fixed = {root for root in self.roots.values() if root.producer() is None}
        self.fixed |= set(graph.outputs)
        self.patient = self._patient()

    def _patient(self) -> set[ir.Node]:
        """Nodes of the backward pass that no other processor waits for before the updates."""
        urgent: set[ir.Node] = set()
        for node in reversed(self.nodes):
            if is_update(node):
                continue
            for value in node.inputs:
                maker = None if value is None else value.producer()
                if maker in self.place and (node in urgent or value in self._foreign(node)):
                    urgent.add(maker)
        backward = (n for n in self.nodes if n.metadata_props.get(PHASE) == BACKWARD)
        return {node for node in backward if node not in urgent}

    def _foreign(self, node: ir.Node) -> set[ir.Value]:
        """What a node reads that another processor makes."""
        read = {value: value.producer() for value in node.inputs if value is not None}
        here = self.place[node]
        return {v for v, maker in read.items() if maker and self.place.get(maker, here) != here}

    def operand_bytes(self, node: ir.Node) -> int:
        """What a node keeps in memory while it is held back."""
        return sum(map(self._nbytes, {self.roots[v] for v in node.inputs if v is not None}))

    def ordered(self, most: int) -> list[ir.Node]:
        """Nodes that can wait, with operands of ``most`` bytes, behind the next exchange sent."""
        lanes: defaultdict[str, _Lane] = defaultdict(_Lane)
        found: list[ir.Node] = []
        for node in self.nodes:
            lane = lanes[self.place[node]]
            if self._waits(node, lane, most):
                lane.held.append(node)
                continue
            new = self._foreign(node) - lane.awaited
            makers = {value.producer() for value in node.inputs if value is not None}
            for each in lanes.values():
                if is_update(node) or (each is lane and new) or not makers.isdisjoint(each.held):
                    found += self._released(each)
            lane.awaited |= new
            found.append(node)
        return found + [node for lane in lanes.values() for node in self._released(lane)]

    def _released(self, lane: _Lane) -> list[ir.Node]:
        """What was held back, in order; nothing is any more."""
        held, lane.held = lane.held, []
        lane.awaited.update(value for node in held for value in self._foreign(node))
        return held

    def _waits(self, node: ir.Node, lane: _Lane, most: int) -> bool:
        """Whether a node is held back: it can be and is small enough, or it needs one that is."""
        if node not in self.patient:
            return False
        makers = {value.producer() for value in node.inputs if value is not None}
        return self.operand_bytes(node) <= most or not makers.isdisjoint(lane.held)

    def peaks(self, nodes: Sequence[ir.Node]) -> dict[str, int]:
        """The most bytes of tensors in use at once on each processor that made them."""
        readers = Counter(root for node in nodes for root in self._read(node))
        now: Counter[str] = Counter()
        most: Counter[str] = Counter()
        for node in nodes:
            place = self.place[node]
            made = {self.roots[value] for value in node.outputs if value.name}
            now[place] += sum(map(self._nbytes, made & set(node.outputs)))
            most[place] = max(most[place], now[place])
            for root in self._read(node):
                readers[root] -= 1
                if not readers[root]:
                    now[self._home(root)] -= self._nbytes(root)
        return dict(most)

    def _read(self, node: ir.Node) -> set[ir.Value]:
        read = {self.roots[value] for value in node.inputs if value is not None}
        return read - self.fixed

    def _home(self, root: ir.Value) -> str:
        maker = root.producer()
        assert maker is not None
        return self.place[maker]

    def _nbytes(self, root: ir.Value) -> int:
        """Bytes of a tensor that is in memory for a time only."""
        return 0 if root in self.fixed or not root.name else type_of(root).nbytes
