"""Pieces of a program's inputs and outputs that the host cuts and joins by copying them.

What the pass ``split_operator`` cuts out of an input, or joins to an output, has to be copied from
or to arrays of the host anyway: each processor copies its piece from or to its place there, and no
processor runs a Slice or a Concat. It is so where several processors take part, and only of nodes
that the pass made: plans count those of the model as work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from coexec.base.array_parts import Part
from coexec.core.plan import Plan
from coexec.ops.builder import PIECE
from coexec.ops.node import attributes_of, constant_of, type_of


@dataclass(frozen=True)
class HostPieces:
    """``cuts``: by value, the input that it is a part of; ``joins``: by output, the pieces of it.

    ``nodes`` are those that nobody has to execute.
    """

    nodes: frozenset[ir.Node] = frozenset()
    cuts: Mapping[str, tuple[str, Part]] = field(default_factory=dict)
    joins: Mapping[str, tuple[tuple[str, Part], ...]] = field(default_factory=dict)

    def results(self, outputs: Collection[str]) -> list[str]:
        """The values behind outputs: their pieces, or themselves."""
        return [name for output in outputs for name, _ in self.joins.get(output, ((output, ()),))]


def host_pieces(graph: ir.Graph, plan: Plan, states: Collection[str]) -> HostPieces:
    """Pieces of inputs and outputs other than ``states`` (names of both)."""
    if len({plan.processors[str(node.name)] for node in graph}) < 2:
        return HostPieces()
    nodes, cuts, joins = [], {}, {}
    for node in graph:
        name = str(node.outputs[0].name)
        if name in states or PIECE not in node.metadata_props:
            continue
        if (cut := _cut(node)) is not None and cut[0] not in states:
            cuts[name] = cut
        elif pieces := _join(graph, node, plan):
            joins[name] = pieces
        else:
            continue
        nodes.append(node)
    return HostPieces(frozenset(nodes), cuts, joins)


def _cut(node: ir.Node) -> tuple[str, Part] | None:
    """The input that a node cuts a part out of, along one axis and for other nodes only."""
    if node.op_type != "Slice" or node.outputs[0].is_graph_output():
        return None
    value, *bounds = node.inputs
    if value is None or not value.is_graph_input() or len(bounds) != 3:
        return None
    numbers = [None if each is None else constant_of(each) for each in bounds]
    if any(number is None or number.size != 1 for number in numbers):
        return None
    start, stop, axis = (int(number.item()) for number in numbers if number is not None)
    shape = type_of(value).shape
    inside = 0 <= axis < len(shape) and 0 <= start < stop <= shape[axis]
    return (str(value.name), (axis, start, stop)) if inside else None


def _join(graph: ir.Graph, node: ir.Node, plan: Plan) -> tuple[tuple[str, Part], ...]:
    """The pieces of an output that nobody reads and several processors make; none: it is not so."""
    (value,) = node.outputs[:1]
    if node.op_type != "Concat" or value.consumers():
        return ()
    if sum(output is value for output in graph.outputs) != 1:
        return ()
    makers = [None if piece is None else piece.producer() for piece in node.inputs]
    places = {plan.processors[str(maker.name)] for maker in makers if maker is not None}
    if None in makers or len(places) < 2 or len(set(node.inputs)) < len(makers):
        return ()
    axis = attributes_of(node)["axis"] % len(type_of(value).shape)
    pieces, start = [], 0
    for piece in node.inputs:
        assert piece is not None
        stop = start + type_of(piece).shape[axis]
        pieces.append((str(piece.name), (axis, start, stop)))
        start = stop
    return tuple(pieces)
