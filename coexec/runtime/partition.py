"""Regions of a placed graph: each processor's nodes together for as long as nobody waits.

The nodes of several processors may stand in any mixture in the graph. What counts is who waits for
whom: a region ends with a value that another processor reads, so that it is there when the region
is done, and begins where a value of another processor is needed that was not needed before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.ops.builder import PHASE
from coexec.ops.node import constant_of


@dataclass
class Part:
    """Nodes of one processor and one phase that become a region."""

    processor: str
    gated: bool
    nodes: list[ir.Node] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True)
class Partitioning:
    """How to partition.

    ``gated_phase``: nodes of this phase share no region with others (none: ""). ``state`` maps
    state outputs to state inputs. ``alone``: a region for every node.
    """

    plan: Plan
    gated_phase: str = ""
    state: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False


def partition(graph: ir.Graph, how: Partitioning) -> list[Part]:
    """Parts in an order in which they can run; within one, nodes in the order of the graph."""
    return _Partitioner(graph, how).run()


def exported(graph: ir.Graph, plan: Plan) -> frozenset[str]:
    """Values that a node on another processor reads."""
    return frozenset(
        str(value.name)
        for node in graph
        for value, producer in _made(node)
        if plan.processors[str(node.name)] != plan.processors[str(producer.name)]
    )


class _Partitioner:
    def __init__(self, graph: ir.Graph, how: Partitioning) -> None:
        self.graph = graph
        self.how = how
        self.exported = exported(graph, how.plan)
        self.parts: list[Part] = []
        # The last part of each processor; the part of each node.
        self.last: dict[str, int] = {}
        self.place: dict[ir.Node, int] = {}
        # Parts of others that a processor has waited for by the time its last part begins.
        self.awaited: dict[str, set[int]] = {}
        inputs = {str(value.name): value for value in graph.inputs}
        self.replaced = {new: inputs[old] for new, old in how.state.items() if old in inputs}

    def run(self) -> list[Part]:
        for node in self.graph:
            self._place(node)
        return self.parts

    def _place(self, node: ir.Node) -> None:
        processor = self.how.plan.processors[str(node.name)]
        gated = bool(self.how.gated_phase) and node.metadata_props.get(PHASE) == (
            self.how.gated_phase
        )
        needed = {self.place[producer] for _, producer in _made(node)}
        foreign = {index for index in needed if self.parts[index].processor != processor}
        if not self._joins(node, processor, gated, foreign):
            self.last[processor] = len(self.parts)
            self.parts.append(Part(processor, gated))
        self.awaited.setdefault(processor, set()).update(foreign)
        index = self.last[processor]
        self.place[node] = index
        self.parts[index].nodes.append(node)
        self.parts[index].ended |= any(value.name in self.exported for value in node.outputs)

    def _joins(self, node: ir.Node, processor: str, gated: bool, foreign: set[int]) -> bool:
        """Whether a node can go into the last part of its processor, and delays nothing there."""
        index = self.last.get(processor)
        if index is None or self.how.alone:
            return False
        part = self.parts[index]
        if part.ended or part.gated != gated:
            return False
        if gated != self.parts[-1].gated:
            return False
        before = all(reader < index for reader in self._readers(node, processor))
        return before and all(self._is_done(index, processor) for index in foreign)

    def _is_done(self, index: int, processor: str) -> bool:
        """Whether a processor has waited for a part, or for a later one of the same processor."""
        maker = self.parts[index].processor
        awaited = self.awaited.get(processor, set())
        return any(late >= index and self.parts[late].processor == maker for late in awaited)

    def _readers(self, node: ir.Node, processor: str) -> Iterator[int]:
        """Parts of other processors that read a state which this node replaces."""
        for value in node.outputs:
            old = self.replaced.get(str(value.name))
            for reader in () if old is None else old.consumers():
                index = self.place.get(reader)
                if index is not None and self.parts[index].processor != processor:
                    yield index


def _made(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Node]]:
    """Operands that another node makes, with that node."""
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if value is not None and producer is not None and constant_of(value) is None:
            yield value, producer
