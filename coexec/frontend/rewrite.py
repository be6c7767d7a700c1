"""Small edits of a graph that keep names, outputs and order intact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array


class Emitter:
    """Makes nodes just before ``node``, in the opset version that rewritten nodes have."""

    def __init__(self, node: ir.Node, version: int) -> None:
        self.node = node
        self.version = version
        self.graph = graph_of(node)

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """A node of one output."""
        return self.ops(op_type, inputs, 1, attributes, domain)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> Sequence[ir.Value]:
        """A node of several outputs; those of other domains than ONNX's are of version 1."""
        label = self.node.name or next((v.name for v in self.node.outputs if v.name), "")
        node = ir.node(
            op_type,
            inputs,
            attributes or {},
            domain=domain,
            version=1 if domain else self.version,
            num_outputs=outputs,
            name=f"{label}/{op_type}",
        )
        self.graph.insert_before(self.node, node)
        return node.outputs

    def constant(self, value: Any, dtype: np.dtype[Any] | type | str) -> ir.Value:
        """A tensor of the given element type."""
        array: Array = np.asarray(value, dtype)
        return self.op("Constant", [], {"value": ir.tensor(array)})

    def ints(self, values: Sequence[int]) -> ir.Value:
        """A 1-D int64 tensor: axes, a shape, pads."""
        return self.constant(list(values), np.int64)


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that holds ``node``."""
    if node.graph is None:
        raise ValueError(f"node {node.name!r} is in no graph")
    return node.graph


def put_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Set operand ``index``, making room with absent ones."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def replace_value(old: ir.Value, new: ir.Value, after: ir.Node) -> None:
    """Let every reader of ``old`` read ``new`` instead, which is there once ``after`` has run.

    A graph output keeps its name: ``new`` takes it over where it is free to, else an ``Identity``
    copies it. (onnx_ir's own IdentityEliminationPass renames a value that is already another
    graph output, and that output's name is lost.)
    """
    new.type = new.type or old.type
    if new.shape is None or not new.shape.is_static():
        new.shape = old.shape if old.shape is not None else new.shape
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    bound = new.is_graph_output() or new.is_graph_input() or new.producer() is None
    if bound or new.graph is not graph_of(after):
        new = _copied(new, after)
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = None
    new.name = name


def _copied(value: ir.Value, after: ir.Node) -> ir.Value:
    node = ir.node("Identity", [value], version=after.version, name=f"{after.name}/Identity")
    node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    graph_of(after).insert_after(after, node)
    return node.outputs[0]


def unique_names(graph: ir.Graph) -> None:
    """Give every node and value of ``graph`` and its subgraphs a unique name.

    Graph inputs, outputs and initializers keep theirs before all others. An absent optional
    output stays absent (onnx_ir's NameFixPass would name it, and so bring it into being).
    """
    taken: set[str | None] = set()
    kept = dict.fromkeys([*graph.inputs, *graph.outputs, *graph.initializers.values()])
    for value in kept:
        value.name = _fresh(value.name or "value", taken)
    nodes: set[str | None] = set()
    for node in ir.traversal.RecursiveGraphIterator(graph):
        node.name = _fresh(node.name or default_name(node), nodes)
        for value in node.outputs:
            if value.name != "" and value not in kept:
                value.name = _fresh(value.name or f"{node.name}_out", taken)
    for inner in graph.subgraphs():
        for value in [*inner.inputs, *inner.initializers.values()]:
            value.name = _fresh(value.name or "value", taken)


def default_name(node: ir.Node) -> str:
    """What a node without a name is called: its operator and what it makes."""
    return f"{node.op_type}_{next((v.name for v in node.outputs if v.name), '')}"


def _fresh(wanted: str, taken: set[str | None]) -> str:
    """``wanted``, or it with a number behind where it is taken."""
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def stamp_versions(graph: ir.Graph | ir.Function) -> None:
    """Write into every node, those of subgraphs too, the opset version it is meant in.

    From then on nodes can move between graphs of different opset imports.
    """
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.version is None:
            node.version = graph.opset_imports.get(node.domain)
