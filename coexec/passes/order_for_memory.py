"""Order what follows the forward pass of a training step so that less memory is in use at once.

List scheduling by bytes: of the next nodes, whichever frees most runs at once if it frees more than
it makes; else the first of them. So a weight gradient, which lets an activation go, comes before
the gradient of that activation. Nodes of later layers are not drawn ahead: what they read may be
recomputed then. The new order is kept unless it needs more. Source: Sethi and Ullman, "The
Generation of Optimal Code for Arithmetic Expressions", 1970 (an order of evaluation for the fewest
registers), as a greedy rule for graphs. Comparisons stay with the masks that compilers fuse them
with.

Updates of states can take part: each then runs as soon as its gradient is there and nobody reads
the old state any more, and the memory of the gradient is free for others (Lv et al., "Full
Parameter Fine-tuning for Large Language Models with Limited Resources", 2023, arXiv 2306.09782).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from coexec.ops.builder import PHASE
from coexec.ops.node import constant_of, type_of
from coexec.ops.table import OPERATORS
from coexec.passes.updates import grouped_updates, is_update, replaced_states, storage_roots

FORWARD = "forward"
SMALL = 1 << 16
"""Bytes of gradients below which an update waits for the others: they share a few launches."""
WINDOW = 6
"""Nodes that are looked at, in the order in which they were: about those of a layer."""


def order_for_memory(graph: ir.Graph, state: Mapping[str, str], *, early: bool = False) -> None:
    """Reorder ``graph``, a training step in a legal order, in place.

    ``state`` maps outputs that are new states to the inputs that they replace. Updates stay behind
    all else, unless large ones may come ``early``.
    """
    step = _Step(graph, state, early)
    ordered = step.ordered()
    if early or step.peak(ordered) <= step.peak(step.units):
        nodes = [node for unit in ordered for node in unit.nodes]
        graph.remove(nodes)
        graph.extend(nodes)


@dataclass(eq=False)
class _Unit:
    """Nodes that run one after the other; memory that they read and make; who must come first.

    A ``late`` one stays where it was, behind all others.
    """

    nodes: list[ir.Node]
    late: bool = False
    reads: set[ir.Value] = field(default_factory=set)
    makes: set[ir.Value] = field(default_factory=set)
    before: set[int] = field(default_factory=set)

    @property
    def tests(self) -> bool:
        """Whether it makes truth values: whoever masks with them computes them again."""
        return any(type_of(v).dtype == bool for node in self.nodes for v in node.outputs if v.name)


class _Step:
    """What follows the forward pass, as units in their order."""

    def __init__(self, graph: ir.Graph, state: Mapping[str, str], early: bool) -> None:
        self.roots = storage_roots(graph)
        nodes = list(graph)
        first = 1 + max((i for i, n in enumerate(nodes) if _is_forward(n)), default=-1)
        self.units = list(_units(nodes[first:], early))
        for unit in self.units:
            inputs = {v for node in unit.nodes for v in node.inputs if v is not None}
            outputs = {v for node in unit.nodes for v in node.outputs}
            unit.makes = {self.roots[value] for value in outputs} & outputs
            unit.reads = {self.roots[value] for value in inputs} - unit.makes
        self._find_predecessors(replaced_states(graph, state))
        self._find_late()
        roots = {root for unit in self.units for root in unit.reads | unit.makes}
        self.size = {root: _nbytes(root) for root in roots}
        made = {root for unit in self.units for root in unit.makes}
        self.kept = sum(n for root, n in self.size.items() if root not in made)

    def _find_predecessors(self, replaced: Mapping[ir.Node, list[ir.Value]]) -> None:
        place = {node: index for index, unit in enumerate(self.units) for node in unit.nodes}
        readers: dict[ir.Value, set[int]] = {}
        for index, unit in enumerate(self.units):
            for root in unit.reads:
                readers.setdefault(root, set()).add(index)
        for index, unit in enumerate(self.units):
            makers = (v.producer() for n in unit.nodes for v in n.inputs if v is not None)
            unit.before = {place[maker] for maker in makers if maker in place}
            for node in unit.nodes:
                for old in replaced.get(node, ()):
                    unit.before |= readers.get(old, set())
            unit.before.discard(index)

    def _find_late(self) -> None:
        """Whatever waits for a late unit is late, too."""
        late: set[int] = set()
        for index in _topological(self.units):
            unit = self.units[index]
            unit.late = unit.late or not late.isdisjoint(unit.before)
            if unit.late:
                late.add(index)

    def ordered(self) -> list[_Unit]:
        """All units, the late ones last."""
        waiting = {i: set(unit.before) for i, unit in enumerate(self.units) if not unit.late}
        followers: dict[int, list[int]] = {}
        for index, before in waiting.items():
            for other in before:
                followers.setdefault(other, []).append(index)
        ready = {index for index, before in waiting.items() if not before}
        readers, found = self._readers(), []
        while ready:
            index = self._next(ready, readers)
            ready.remove(index)
            found.append(self.units[index])
            readers.subtract(self.units[index].reads)
            for follower in followers.get(index, ()):
                waiting[follower].discard(index)
                if not waiting[follower]:
                    ready.add(follower)
        return found + [self.units[i] for i in _topological(self.units) if self.units[i].late]

    def _next(self, ready: set[int], readers: Counter[ir.Value]) -> int:
        """An update; what frees most, if more than it makes; else the unit that was next."""
        updates = [index for index in ready if is_update(self.units[index].nodes[0])]
        if updates:
            return min(updates)
        first = min(ready)
        near = [i for i in ready if i == first or (i < first + WINDOW and not self.units[i].tests)]
        grown, best = min((self._growth(self.units[index], readers), index) for index in near)
        return best if grown < 0 else first

    def _growth(self, unit: _Unit, readers: Counter[ir.Value]) -> int:
        """Bytes more in use once a unit has run, given the readers that wait for each tensor."""
        freed = sum(self.size[root] for root in unit.reads if readers[root] == 1)
        return sum(self.size[root] for root in unit.makes if readers[root]) - freed

    def _readers(self) -> Counter[ir.Value]:
        return Counter(root for unit in self.units for root in unit.reads)

    def peak(self, units: Sequence[_Unit]) -> int:
        """The most bytes in use in this order, without the working memory of kernels."""
        readers, now, most = self._readers(), self.kept, 0
        for unit in units:
            makes = sum(self.size[root] for root in unit.makes)
            most = max(most, now + makes - self._in_place(unit, readers))
            now += self._growth(unit, readers)
            readers.subtract(unit.reads)
        return most

    def _in_place(self, unit: _Unit, readers: Counter[ir.Value]) -> int:
        """Bytes of an operand that dies in a node and may become one of its results."""
        node = unit.nodes[0]
        op = OPERATORS.get(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
        for output, operand in op.in_place if op is not None and len(unit.nodes) == 1 else ():
            if output >= len(node.outputs) or operand >= len(node.inputs):
                continue
            read, made = node.inputs[operand], node.outputs[output]
            if read is None or readers[self.roots[read]] != 1:
                continue
            if self.size[self.roots[read]] == self.size.get(made):
                return self.size[made]
        return 0


def _units(tail: Sequence[ir.Node], early: bool) -> Iterator[_Unit]:
    """A unit for each node; the nodes of one update are one, where the first of them stands."""
    grouped = {node: group for group in grouped_updates(tail) for node in group}
    for node in tail:
        if not is_update(node):
            yield _Unit([node])
        elif node is grouped[node][0]:
            yield _Unit(grouped[node], late=not (early and _is_worth(grouped[node])))


def _is_worth(update: Sequence[ir.Node]) -> bool:
    """Whether an update lets large gradients go, or makes a number that others wait for."""
    if all(type_of(value).size == 1 for node in update for value in node.outputs):
        return True
    operands = {v for node in update for v in node.inputs if v is not None}
    made = {value for node in update for value in node.outputs}
    return sum(map(_nbytes, operands - made)) >= SMALL


def _topological(units: Sequence[_Unit]) -> list[int]:
    """Units such that each comes after all that it waits for, else in their order."""
    ordered: dict[int, None] = {}
    for start in range(len(units)):
        pending = [start]
        while pending:
            missing = [i for i in sorted(units[pending[-1]].before) if i not in ordered]
            if missing:
                pending += missing
            else:
                ordered[pending.pop()] = None
    return list(ordered)


def _nbytes(root: ir.Value) -> int:
    """Bytes of a tensor in the arena: none if it has memory of its own all the time."""
    own = root.producer() is None or root.is_graph_output()
    constant = constant_of(root) is not None
    return 0 if own or constant or not root.name else type_of(root).nbytes


def _is_forward(node: ir.Node) -> bool:
    return node.metadata_props.get(PHASE) == FORWARD
