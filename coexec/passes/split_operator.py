"""Divide nodes into shares for several processors, as a plan says.

A share reads its part of each operand: of constants it gets an initializer of its own, of other
values a Slice, made where the value is. Shares are joined by a Concat where a value is wanted
whole. A share that reads what shares along the same axis made takes their pieces: equal cuts pass
from share to share, and a window over a cut (halo) moves only the elements beyond it, or none where
shares overlap. A processor that refuses to cut or to join a value has another one do it.

What was quantised moves in its integers: whoever reads a dequantised value dequantises what it
reads of it itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.base.pieces import sources
from coexec.base.window import Window
from coexec.core.plan import Plan, Split
from coexec.core.processor import Processor
from coexec.core.types import OpCall
from coexec.ops.builder import PHASE, PIECE, SOURCE, GraphBuilder
from coexec.ops.dequantised import integers_of, is_repeated
from coexec.ops.node import attributes_of, call_of, constant_of, type_of
from coexec.ops.split import CannotSplit, Way, cut_call, join_call
from coexec.ops.split_rules import way

NOBODY: Mapping[str, Processor] = MappingProxyType({})
"""Of processors that are not known none refuses anything."""


@dataclass(frozen=True)
class Piece:
    """Elements ``start`` to ``stop`` of a divided value, and the processor that makes them.

    ``value`` has the elements ``first`` to ``last``: those, and what it overlaps its neighbours by.
    """

    value: ir.Value
    start: int
    stop: int
    processor: str
    first: int
    last: int


@dataclass(frozen=True)
class Divided:
    """A value that exists in pieces along an axis."""

    axis: int
    pieces: tuple[Piece, ...]

    @property
    def largest(self) -> Piece:
        return max(self.pieces, key=lambda piece: piece.stop - piece.start)


def split_operators(
    graph: ir.Graph, plan: Plan, processors: Mapping[str, Processor] = NOBODY
) -> Plan:
    """Divide the nodes of ``plan.splits`` in ``graph`` (static types, execution order); in place.

    Returns the plan of the new graph, in which every node is on one processor; of ``processors``
    (by the plan's names) none cuts or joins that refuses to, if any does not.

    Raises:
        ModelError: a node that does not divide as the plan says; the message says why.
    """
    several = len({*plan.processors.values()}) > 1 and any(map(is_repeated, graph))
    return _Splitter(graph, plan, processors).run() if plan.splits or several else plan


class _Splitter:
    def __init__(
        self, graph: ir.Graph, plan: Plan, known: Mapping[str, Processor] = NOBODY
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.known = known
        self.builder = GraphBuilder(graph, "")
        self.processors: dict[str, str] = {}
        self.nodes: list[ir.Node] = []
        self.divided: dict[ir.Value, Divided] = {}
        # Parts of values by value, axis, bounds and place; constants and slices are made once.
        self.parts: dict[tuple[ir.Value, int, int, int, str], ir.Value] = {}
        self.wholes: dict[ir.Value, dict[str, ir.Value]] = {}
        self.cut_constants: dict[ir.Value, None] = {}
        # Nodes that each reader repeats for itself, by value: its region may be another one.
        self.dequantised: dict[ir.Value, ir.Node] = {}

    def run(self) -> Plan:
        unknown = self.plan.splits.keys() - {str(node.name) for node in self.graph}
        if unknown:
            raise ModelError(f"the plan divides nodes that the model has not: {sorted(unknown)}")
        replaced = []
        for node in list(self.graph):
            self.builder.phase = node.metadata_props.get(PHASE, "")
            self.builder.source = node.metadata_props.get(SOURCE) or str(node.name)
            split = self.plan.splits.get(str(node.name))
            if is_repeated(node):
                self.dequantised[node.outputs[0]] = node
                replaced.append(node)
            elif split is None:
                self._keep(node)
            else:
                self._divide(node, split)
                replaced.append(node)
        self._join_outputs()
        for node in reversed(replaced):
            self.graph.remove(node, safe=True)
        self.graph.remove(self.nodes)
        self.graph.extend(self.nodes)
        for value in self.cut_constants:
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[str(value.name)]
        order = tuple(str(node.name) for node in self.nodes)
        return replace(self.plan, processors=self.processors, order=order, splits={})

    def _keep(self, node: ir.Node) -> None:
        processor = self.plan.processors[str(node.name)]
        for index, value in enumerate(node.inputs):
            if value in self.divided or value in self.dequantised:
                node.replace_input_with(index, self._whole(value, processor))
        self.nodes.append(node)
        self.processors[str(node.name)] = processor

    def _divide(self, node: ir.Node, split: Split) -> None:
        call = call_of(node)
        try:
            how = way(call, split.axis)
            shares = [(name, *how.units(start, stop)) for name, start, stop in split.shares]
            if not shares or shares[-1][2] != how.count:
                raise CannotSplit(f"shares end before {how.count * how.quantum}")
            for more in split.overlap:
                if more < 0 or more % how.quantum:
                    raise CannotSplit(f"an overlap of {more} is no multiple of {how.quantum}")
        except CannotSplit as error:
            raise ModelError(f"node {node.name!r} cannot be divided: {error}") from error
        # What others wait for comes first: cuts of all operands, then joins and shares.
        computed = [how.overlapping(start, stop, split.overlap) for _, start, stop in shares]
        for (processor, _, _), span in zip(shares, computed, strict=True):
            for value, read in _reads(node, how, *span):
                if value is not None and read is not None:
                    self._cuts(value, read[0].axis, *read[1:], processor)
        outputs = _used(node)
        pieces: list[list[Piece]] = [[] for _ in outputs]
        for (processor, *owned), span in zip(shares, computed, strict=True):
            inputs = self._operands(node, how, *span, processor)
            attributes = {**attributes_of(node), **how.changes(*span)}
            made = self._emit_all(node.op_type, inputs, attributes, processor, node)
            start, stop, first, last = (unit * how.quantum for unit in (*owned, *span))
            for value, each in zip(made, pieces, strict=True):
                each.append(Piece(value, start, stop, processor, first, last))
        for output, each in zip(outputs, pieces, strict=True):
            self.divided[output] = Divided(split.axis, tuple(each))

    def _operands(
        self, node: ir.Node, how: Way, start: int, stop: int, processor: str
    ) -> list[ir.Value | None]:
        operands: list[ir.Value | None] = []
        own = how.operands(start, stop)
        for index, (value, read) in enumerate(_reads(node, how, start, stop)):
            if index in own:
                operands.append(self.builder.constant(own[index], own[index].dtype))
            elif value is None:
                operands.append(None)
            elif read is None:
                operands.append(self._whole(value, processor))
            else:
                window, first, last = read
                operands.append(self._part(value, window.axis, first, last, processor))
        return operands

    def _part(self, value: ir.Value, axis: int, start: int, stop: int, reader: str) -> ir.Value:
        """Elements ``start`` to ``stop`` of ``axis`` of a value, for a reader."""
        maker = self.dequantised.get(value)
        if maker is None:
            return self._joined(self._cuts(value, axis, start, stop, reader), axis, reader)
        part = self._part(integers_of(maker), axis, start, stop, reader)
        return self._dequantise(part, maker, reader)

    def _dequantise(self, value: ir.Value, maker: ir.Node, reader: str) -> ir.Value:
        """The floats of a part or of all of what ``maker`` dequantises, for a reader."""
        inputs = [value, *maker.inputs[1:]]
        place = self._able(call_of(maker), [reader, self.plan.processors[str(maker.name)]])
        return self._emit_all(maker.op_type, inputs, attributes_of(maker), place, maker)[0]

    def _cuts(
        self, value: ir.Value, axis: int, start: int, stop: int, reader: str
    ) -> list[ir.Value]:
        """What has to be joined to these elements: of a value in one piece, one cut."""
        if value in self.dequantised:
            return self._cuts(integers_of(self.dequantised[value]), axis, start, stop, reader)
        known = self.divided.get(value)
        if known is None or known.axis != axis:
            return [self._slice(self._whole(value, reader), axis, start, stop, reader)]
        pieces = [(p.processor, p.start, p.stop, p.first, p.last) for p in known.pieces]
        return [
            self._piece(known, number, first, last)
            for number, first, last in sources(pieces, start, stop, reader)
        ]

    def _piece(self, known: Divided, number: int, start: int, stop: int) -> ir.Value:
        """Elements of a divided value out of one of its pieces."""
        piece = known.pieces[number]
        bounds = (start - piece.first, stop - piece.first)
        return self._slice(piece.value, known.axis, *bounds, piece.processor)

    def _slice(self, value: ir.Value, axis: int, start: int, stop: int, reader: str) -> ir.Value:
        """A part of one value, made where the value is: only what is read need move."""
        if (start, stop) == (0, type_of(value).shape[axis]):
            return value
        producer = value.producer()
        place = reader if producer is None else self.processors[str(producer.name)]
        constant = None if value.is_graph_input() else constant_of(value)
        key = (value, axis, start, stop, "" if constant is not None else place)
        if key not in self.parts:
            if constant is not None:
                cut = np.ascontiguousarray(constant[(*[slice(None)] * axis, slice(start, stop))])
                self.parts[key] = self.builder.initializer(f"{value.name}[{start}:{stop}]", cut)
                self.cut_constants[value] = None
            else:
                bounds = [self._numbers(number) for number in (start, stop, axis)]
                able = self._able(cut_call(type_of(value), axis, start, stop), [place])
                self.parts[key] = self._emit("Slice", [value, *bounds], {}, able)
        return self.parts[key]

    def _whole(self, value: ir.Value, reader: str) -> ir.Value:
        """A value in one piece; each reader joins shares itself, so that each moves once."""
        maker = self.dequantised.get(value)
        if maker is not None:
            return self._dequantise(self._whole(integers_of(maker), reader), maker, reader)
        if value not in self.divided:
            return value
        joined, divided = self.wholes.setdefault(value, {}), self.divided[value]
        pieces = [
            self._piece(divided, number, piece.start, piece.stop)
            for number, piece in enumerate(divided.pieces)
        ]
        place = self._joiner(pieces, divided.axis, reader)
        if place not in joined:
            joined[place] = self._joined(pieces, divided.axis, place)
        return joined[place]

    def _joined(self, parts: Sequence[ir.Value], axis: int, reader: str) -> ir.Value:
        if len(parts) == 1:
            return parts[0]
        return self._emit("Concat", parts, {"axis": axis}, self._joiner(parts, axis, reader))

    def _joiner(self, parts: Sequence[ir.Value], axis: int, reader: str) -> str:
        """Who joins parts for a reader: itself, else the maker of most that is able to."""
        found = sorted(parts, key=lambda part: -type_of(part).shape[axis])
        makers = [maker for part in found if (maker := part.producer()) is not None]
        places = [self.processors[str(maker.name)] for maker in makers]
        return self._able(join_call([type_of(part) for part in parts], axis), [reader, *places])

    def _able(self, call: OpCall, wanted: Sequence[str]) -> str:
        """The first of ``wanted`` that does not refuse a call, else the first of all processors."""
        for name in (*wanted, *self.known):
            if name not in self.known or self.known[name].supports(call).yes:
                return name
        return wanted[0]

    def _join_outputs(self) -> None:
        """Outputs of the graph are whole and keep their names."""
        for index, value in enumerate(list(self.graph.outputs)):
            if value in self.divided:
                known = self.wholes.get(value, {})
                place = next(iter(known), self.divided[value].largest.processor)
                joined = self._whole(value, place)
                value.name, joined.name = f"{value.name}#divided", value.name
                self.graph.outputs[index] = joined

    def _emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, object],
        processor: str,
    ) -> ir.Value:
        """A node that cuts or joins, see :meth:`_emit_all`."""
        (value,) = self._emit_all(op_type, inputs, attributes, processor)
        return value

    def _emit_all(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, object],
        processor: str,
        like: ir.Node | None = None,
    ) -> tuple[ir.Value, ...]:
        """A new node on a processor; ``like`` is the node whose operator and version it has.

        Without one it cuts or joins.
        """
        domain = "" if like is None else like.domain
        outputs = 1 if like is None else len(_used(like))
        values = self.builder.ops(op_type, inputs, attributes, outputs=outputs, domain=domain)
        node = values[0].producer()
        assert node is not None
        node.version = None if like is None else like.version
        if like is None:
            node.metadata_props[PIECE] = op_type
        self.nodes.append(node)
        self.processors[str(node.name)] = processor
        return values

    def _numbers(self, number: int) -> ir.Value:
        return self.builder.constant([number], np.dtype(np.int64))


def _used(node: ir.Node) -> Sequence[ir.Value]:
    """Results up to the last one that has a name."""
    names = [bool(value.name) for value in node.outputs]
    return node.outputs[: len(names) - names[::-1].index(True)]


def _reads(
    node: ir.Node, how: Way, start: int, stop: int
) -> Iterator[tuple[ir.Value | None, tuple[Window, int, int] | None]]:
    """Each operand with what units ``start`` to ``stop`` read of it."""
    for index, value in enumerate(node.inputs):
        yield value, how.span(index, start, stop) if index < len(how.windows) else None
