"""Regions of a placed graph: each processor's nodes together for as long as nobody waits.

The nodes of several processors may stand in any mixture in the graph. What counts is who waits for
whom: a region ends with a value that another processor reads, so that it is there when the region
is done, and begins where a value of another processor is needed that was not needed before. Where
little is to be done until the next such value (keys, then values), both end the same region:
handing over one more takes longer. But no node that waits for another processor by itself comes
between a value that is wanted there and the end of a region; nor behind the reader of a state that
another processor replaces, which waits for that region.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.ops.builder import MEETING, PHASE
from coexec.ops.node import call_of, constant_of
from coexec.ops.table import opdef

LIGHT_BYTES = 1 << 20
"""What is read and written in about 0.1 ms, as long as handing over another region takes."""


@dataclass
class Part:
    """Nodes of one processor, before the gate or behind it, that become a region.

    ``pauses``: the gate is inside, behind the nodes of the forward pass. ``closed``: others wait
    for its end, so that no node may join it that waits for them.
    """

    processor: str
    gated: bool
    nodes: list[ir.Node] = field(default_factory=list)
    ended: bool = False
    pauses: bool = False
    closed: bool = False


@dataclass(frozen=True)
class Partitioning:
    """How to partition.

    ``gated_phase``: nodes of this phase share no region with others (none: ""). ``free_phase``: if
    there is one, only its nodes and what they need share no region with others. ``state`` maps
    state outputs to state inputs. ``alone``: a region for every node; none for those ``skipped``.
    ``reuses``: who made a tensor waits for its readers on other processors to write there again.
    """

    plan: Plan
    gated_phase: str = ""
    state: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    free_phase: str = ""
    skipped: frozenset[ir.Node] = frozenset()
    reuses: bool = False


def partition(graph: ir.Graph, how: Partitioning) -> list[Part]:
    """Parts in an order in which they can run; within one, nodes in the order of the graph."""
    return _Partitioner(graph, how).run()


def exported(
    graph: ir.Graph, plan: Plan, skipped: Collection[ir.Node] = frozenset()
) -> frozenset[str]:
    """Values that a node on another processor reads; nobody executes those that are skipped."""
    return frozenset(
        str(value.name)
        for node in graph
        for value, producer in _made(node)
        if not {node, producer}.intersection(skipped)
        and plan.processors[str(node.name)] != plan.processors[str(producer.name)]
    )


def last_reads(parts: Sequence[Part]) -> dict[str, int]:
    """Number of the last part that reads each value, by the value's name."""
    return {
        str(value.name): number
        for number, part in enumerate(parts)
        for node in part.nodes
        for value in node.inputs
        if value is not None
    }


def meeting_places(graph: ir.Graph) -> frozenset[str]:
    """Names of the values in which processors meet."""
    made = (value for node in graph for value in node.outputs)
    return frozenset(str(value.name) for value in made if MEETING in value.metadata_props)


def meets(node: ir.Node) -> bool:
    """Whether a node waits for those of other processors."""
    return any(value is not None and MEETING in value.metadata_props for value in node.inputs)


class _Partitioner:
    def __init__(self, graph: ir.Graph, how: Partitioning) -> None:
        self.graph = graph
        self.how = how
        self.parts: list[Part] = []
        # The last part of each processor; the part of each node.
        self.last: dict[str, int] = {}
        self.place: dict[ir.Node, int] = {}
        # Parts of others that a processor has waited for by the time its last part begins.
        self.awaited: dict[str, set[int]] = {}
        inputs = {str(value.name): value for value in graph.inputs}
        self.replaced = {new: inputs[old] for new, old in how.state.items() if old in inputs}
        self.free = _needed(graph, how.free_phase) if how.free_phase else set()
        self.exported = self._awaited()
        self.going_on = set(self._going_on())

    def run(self) -> list[Part]:
        for node in self.graph:
            if node not in self.how.skipped:
                self._place(node)
        return self.parts

    def _awaited(self) -> frozenset[str]:
        """Values for which a node on another processor would wait if they came late.

        Not those that are read behind the gate only, where all before it has to be handed over.
        """
        behind = {node for node in self.graph if self.how.gated_phase and self._is_gated(node)}
        found = exported(self.graph, self.how.plan, self.how.skipped)
        return frozenset(
            str(value.name)
            for node in self.graph
            for value in node.outputs
            if value.name in found and (node in behind or not behind.issuperset(value.consumers()))
        )

    def _place(self, node: ir.Node) -> None:
        processor = self.how.plan.processors[str(node.name)]
        gated = self._is_gated(node)
        made = (producer for _, producer in _made(node))
        needed = {self.place[producer] for producer in made if producer not in self.how.skipped}
        foreign = {index for index in needed if self.parts[index].processor != processor}
        if not self._joins(node, processor, gated, foreign):
            self.last[processor] = len(self.parts)
            self.parts.append(Part(processor, gated))
        self.awaited.setdefault(processor, set()).update(foreign)
        for reader in self._readers(node, processor):
            self.parts[self.last[self.parts[reader].processor]].closed = True
        index = self.last[processor]
        self.place[node] = index
        self.parts[index].nodes.append(node)
        self.parts[index].ended |= any(value.name in self.exported for value in node.outputs)
        self.parts[index].closed |= self.how.reuses and bool(foreign) and not meets(node)

    def _going_on(self) -> Iterator[ir.Node]:
        """Nodes that do little between a value that others read and the next one."""
        # By processor, the nodes since such a value, and the bytes that are left for more.
        since: dict[str, tuple[list[ir.Node], int]] = {}
        for node in self.graph:
            processor = self.how.plan.processors[str(node.name)]
            nodes, left = since.pop(processor, ([], 0))
            left -= LIGHT_BYTES + 1 if meets(node) else _touched(node)
            if left >= 0:
                since[processor] = ([*nodes, node], left)
            if any(value.name in self.exported for value in node.outputs):
                yield from since.get(processor, ([], 0))[0]
                since[processor] = ([], LIGHT_BYTES)

    def _is_gated(self, node: ir.Node) -> bool:
        if self.how.free_phase:
            return node not in self.free
        return bool(self.how.gated_phase) and _phase(node) == self.how.gated_phase

    def _joins(self, node: ir.Node, processor: str, gated: bool, foreign: set[int]) -> bool:
        """Whether a node can go into the last part of its processor, and delays nothing there."""
        index = self.last.get(processor)
        if index is None or self.how.alone:
            return False
        part = self.parts[index]
        if (part.ended and node not in self.going_on) or part.gated != gated:
            return False
        if gated != self.parts[-1].gated or (part.closed and meets(node)):
            return False
        readers = [*self._readers(node, processor)]
        if readers and (max(readers) > index or any(map(meets, part.nodes))):
            return False
        return all(self._is_done(index, processor) for index in foreign)

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


def joined_at_gate(parts: Sequence[Part], pausing: Collection[str]) -> list[Part]:
    """``parts`` with the two around the gate as one, if a processor in ``pausing`` has both.

    Not where the first one meets others: what it replaces behind the gate, they may read.
    """
    found = list(parts)
    for index, (before, behind) in enumerate(pairwise(parts)):
        if before.gated or not behind.gated:
            continue
        alone = not any(map(meets, before.nodes))
        if alone and before.processor == behind.processor and before.processor in pausing:
            nodes = [*before.nodes, *behind.nodes]
            found[index : index + 2] = [Part(before.processor, True, nodes, behind.ended, True)]
        break
    return found


def _needed(graph: ir.Graph, phase: str) -> set[ir.Node]:
    """Nodes of a phase and all that they need."""
    found: set[ir.Node] = set()
    for node in reversed(graph):
        if _phase(node) == phase or node in found:
            found |= {node, *(producer for _, producer in _made(node))}
    return found


def _touched(node: ir.Node) -> int:
    """Bytes that a node reads and writes, or as many as take as long as its arithmetic."""
    call = call_of(node)
    work = opdef(call).work(call)
    return max(work.bytes, work.flop)


def _phase(node: ir.Node) -> str:
    return node.metadata_props.get(PHASE, "")


def _made(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Node]]:
    """Operands that another node makes, with that node."""
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if value is not None and producer is not None and constant_of(value) is None:
            yield value, producer
