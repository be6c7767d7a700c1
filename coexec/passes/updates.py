"""The updates of states in a training step: which nodes belong together, and who must come first.

A state is replaced where it lives. So its new value may only be made when nobody reads the old one
any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from coexec.ops.builder import PHASE
from coexec.ops.node import type_of
from coexec.ops.table import OPERATORS

FORWARD, OPTIMIZER = "forward", "optimizer"


def is_update(node: ir.Node) -> bool:
    """Whether a node belongs to the optimizer."""
    return node.metadata_props.get(PHASE) == OPTIMIZER


def storage_roots(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """The tensor in whose memory each value of the graph lies: its own, or what it is a view of."""
    roots = {value: value for value in graph.inputs}
    for node in graph:
        for value in node.inputs:
            if value is not None:
                roots.setdefault(value, value)
        roots.update((value, value) for value in node.outputs)
        if is_view(node) and node.inputs[0] is not None:
            roots[node.outputs[0]] = roots[node.inputs[0]]
    return roots


def is_view(node: ir.Node) -> bool:
    """Whether a node's result is its operand under another shape."""
    op = OPERATORS.get(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
    return op is not None and op.view


def replaced_states(graph: ir.Graph, state: Mapping[str, str]) -> dict[ir.Node, list[ir.Value]]:
    """The inputs that each node replaces; ``state`` maps outputs to what they replace."""
    inputs = {str(value.name): value for value in graph.inputs}
    found: dict[ir.Node, list[ir.Value]] = {}
    for value in graph.outputs:
        old, producer = inputs.get(state.get(str(value.name), "")), value.producer()
        if old is not None and producer is not None:
            found.setdefault(producer, []).append(old)
    return found


def grouped_updates(nodes: Iterable[ir.Node]) -> list[list[ir.Node]]:
    """Nodes of the optimizer by what they update, in order.

    They hang together by tensors. Numbers that many updates read (rates) are groups of their own.
    """
    group: dict[ir.Node, list[ir.Node]] = {}
    for node in filter(is_update, nodes):
        own = [node]
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if value is None or producer not in group or type_of(value).size == 1:
                continue
            if group[producer] is not own:
                own[:0] = group[producer]
        group.update(dict.fromkeys(own, own))
    unique = {id(each): each for each in group.values()}
    return list(unique.values())


def replace_after_readers(graph: ir.Graph, state: Mapping[str, str]) -> None:
    """Move updates behind nodes that were put in later and read what they replace; in place."""
    roots = storage_roots(graph)
    place = {node: index for index, node in enumerate(graph)}
    last: dict[ir.Value, int] = {}
    for node, index in place.items():
        last.update((roots[value], index) for value in node.inputs if value is not None)
    replaced = replaced_states(graph, state)
    early = {n for n, old in replaced.items() if any(last.get(v, -1) > place[n] for v in old)}
    moved = _with_followers(graph, early)
    graph.remove(moved)
    graph.extend(moved)


def forward_first(graph: ir.Graph) -> None:
    """Move the forward pass and what it needs in front of all else; in place.

    Plans order nodes by their times. With early updates, the host looks at the loss before anything
    else begins.
    """
    needed: set[ir.Node] = set()
    for node in reversed(graph):
        if node.metadata_props.get(PHASE) == FORWARD or node in needed:
            made = (value.producer() for value in node.inputs if value is not None)
            needed |= {node, *(producer for producer in made if producer is not None)}
    late = [node for node in graph if node not in needed]
    graph.remove(late)
    graph.extend(late)


def _with_followers(graph: ir.Graph, nodes: set[ir.Node]) -> Sequence[ir.Node]:
    """Nodes and whatever needs them, in order."""
    found: dict[ir.Node, None] = {}
    for node in graph:
        needs = {value.producer() for value in node.inputs if value is not None}
        if node in nodes or not found.keys().isdisjoint(needs):
            found[node] = None
    return list(found)
