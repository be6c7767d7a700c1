"""A model in which data decide shapes, divided there: a part before, searches, a part behind.

``NonZero``, ``NonMaxSuppression`` and their like find as many elements as data say. What does not
hang on what they find has static shapes and is one model; what does is another one, whose shapes
are known once the searches are done. It may have to be divided again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from coexec.base.errors import DataError
from coexec.core.types import Array, OpCall
from coexec.frontend.sequences import is_of_sequences
from coexec.ops.node import call_of, constant_of
from coexec.ops.table import opdef

SEARCHES = frozenset({"NonZero", "Compress", "Unique", "NonMaxSuppression"})
"""Operators whose result is as large as the values of their operands say."""


def is_search(node: ir.Node) -> bool:
    """Whether ``node`` is one of :data:`SEARCHES`."""
    return node.domain == "" and node.op_type in SEARCHES


@dataclass(frozen=True)
class Search:
    """A node whose result is as large as data say.

    ``operands`` names the values it reads (``None``: absent, or among the call's constants),
    ``outputs`` those it makes (``""``: nobody asks for it).
    """

    call: OpCall
    operands: tuple[str | None, ...]
    outputs: tuple[str, ...]

    def results(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """What it finds in ``values``, by name.

        Raises:
            DataError: what it reads does not fit together.
        """
        given = {i: values[name] for i, name in enumerate(self.operands) if name is not None}
        constants = {**self.call.constants, **given}
        call = replace(self.call, constants=constants)
        try:
            found = opdef(call).reference(call, [constants.get(i) for i in range(len(call.inputs))])
        except ValueError as error:
            raise DataError(f"node {call.name!r} ({call.op_type}): {error}") from error
        made = zip(self.outputs, found, strict=False)
        return {name: np.asarray(array) for name, array in made if name}


@dataclass(frozen=True)
class Division:
    """A model in parts. Values keep their names from part to part.

    ``head`` is typed; its outputs are what others read of it. ``tail`` reads inputs of the model,
    values of the head and what searches found, whose sizes are open. A part that would compute
    nothing is ``None``.
    """

    head: ir.Model | None
    searches: tuple[Search, ...]
    tail: ir.Model | None


@dataclass
class Cut:
    """Where a graph can be typed no further before data are there."""

    searches: list[ir.Node] = field(default_factory=list)
    behind: dict[ir.Node, None] = field(default_factory=dict)
    unknown: set[ir.Value] = field(default_factory=set)

    def hangs(self, node: ir.Node) -> bool:
        """Whether ``node`` reads what is not known yet; then so is what it makes."""
        found = any(value in self.unknown for value in operands(node))
        if found:
            self.put_behind(node)
        return found

    def at(self, node: ir.Node) -> None:
        """Data decide the shape of what ``node`` makes."""
        if is_search(node):
            self.searches.append(node)
            self.unknown.update(node.outputs)
        else:
            self.put_behind(node)

    def put_behind(self, node: ir.Node) -> None:
        """``node`` is computed once the searches are done."""
        self.behind[node] = None
        self.unknown.update(node.outputs)


def operands(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, by itself and within the graphs among its attributes."""
    yield from (value for value in node.inputs if value is not None)
    for graph in _graphs(node):
        yield from graph.outputs
        for inner in graph:
            yield from operands(inner)


def _graphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among the attributes of a node: branches, bodies of loops."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        if attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _remove(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    """Take ``nodes`` out, with all that the graphs among their attributes read."""
    for node in nodes:
        for inner in _graphs(node):
            inner.outputs.clear()
            for each in ir.traversal.RecursiveGraphIterator(inner):
                for index in range(len(each.inputs)):
                    each.replace_input_with(index, None)
    graph.remove(nodes, safe=True)


def divide(model: ir.Model, cut: Cut) -> Division:
    """The parts of ``model``, whose nodes are typed as far as they are not behind the ``cut``."""
    _take_sequences(model.graph, cut)
    searches = tuple(_search(node) for node in cut.searches)
    later = [node in cut.behind for node in model.graph]
    first = [
        not behind and node not in cut.searches
        for node, behind in zip(model.graph, later, strict=True)
    ]
    made = {str(v.name) for node in _those(model.graph, first) for v in node.outputs}
    read = [str(v.name) for node in (*cut.behind, *cut.searches) for v in operands(node)]
    wanted = dict.fromkeys(name for name in read if name in made)
    head = _head(model, first, wanted)
    return Division(head, searches, _tail(model, later))


def _take_sequences(graph: ir.Graph, cut: Cut) -> None:
    """Sequences cannot be handed over: who makes one that is read behind the cut moves there."""
    for node in reversed(graph):
        if is_of_sequences(node) and any(
            reader in cut.behind for value in node.outputs for reader in value.consumers()
        ):
            cut.put_behind(node)


def _search(node: ir.Node) -> Search:
    names = tuple(
        None if value is None or constant_of(value) is not None else str(value.name)
        for value in node.inputs
    )
    return Search(call_of(node), names, tuple(value.name or "" for value in node.outputs))


def _those(nodes: Iterable[ir.Node], wanted: Sequence[bool]) -> list[ir.Node]:
    return [node for node, flag in zip(nodes, wanted, strict=True) if flag]


def _head(model: ir.Model, first: Sequence[bool], wanted: Iterable[str]) -> ir.Model | None:
    """What can be computed at once, with what of it is ``wanted`` among its outputs."""
    head = model.clone()
    graph = head.graph
    kept = _those(graph, first)
    made = {str(value.name): value for node in kept for value in node.outputs}
    names = dict.fromkeys([*(str(value.name) for value in graph.outputs), *wanted])
    outputs = [made[name] for name in names if name in made]
    constant = [v for v in graph.outputs if v.is_initializer() or v.is_graph_input()]
    graph.outputs.clear()
    graph.outputs.extend([*constant, *outputs])
    _remove(graph, _those(graph, [not flag for flag in first]))
    return head if graph.outputs else None


def _tail(model: ir.Model, later: Sequence[bool]) -> ir.Model | None:
    """What reads what is found, with all that it reads from elsewhere among its inputs."""
    tail = model.clone()
    graph = tail.graph
    kept, others = _those(graph, later), _those(graph, [not flag for flag in later])
    made = {value for node in kept for value in node.outputs}
    outputs = [value for value in graph.outputs if value in made]
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    read = dict.fromkeys(value for node in kept for value in operands(node))
    for node in others:
        for value in node.outputs:
            if value in read:
                graph.inputs.append(_given(value, node))
    for value in list(graph.inputs):
        if not value.uses() and value not in read:
            graph.inputs.remove(value)
    _remove(graph, others)
    return tail if outputs else None


def _given(value: ir.Value, node: ir.Node) -> ir.Value:
    """An input of its name that all read instead of what ``node`` makes."""
    kind = value.type or _found_type(node, value.index() or 0)
    given = ir.Value(name=value.name, type=kind, shape=None if is_search(node) else value.shape)
    value.name = None
    value.replace_all_uses_with(given)
    return given


def _found_type(node: ir.Node, output: int) -> ir.TypeProtocol | None:
    """Element type of what a search makes: elements of its operand first, positions behind."""
    source = node.inputs[0]
    takes = output == 0 and node.op_type in ("Compress", "Unique") and source is not None
    return source.type if takes and source is not None else ir.TensorType(ir.DataType.INT64)
