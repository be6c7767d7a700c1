"""Transposes that only move axes of length 1 become Reshapes, for which nothing is computed.

One row at a time, as when a language model decodes, heads and rows change places without moving.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.builder import GraphBuilder
from coexec.ops.node import attributes_of, set_type, type_of
from coexec.passes.insert import replace_node
from coexec.passes.kept import FORWARD


def view_transposes(graph: ir.Graph) -> None:
    """Write such transposes of a typed graph as views, under their names; in place."""
    builder = GraphBuilder(graph, FORWARD)
    for node in list(graph):
        if node.op_type != "Transpose" or node.domain or not _keeps_order(node):
            continue
        (source,), result = node.inputs, node.outputs[0]
        shape = builder.constant(type_of(result).shape, "int64")
        view = ir.node(
            "Reshape",
            [source, shape],
            name=node.name,
            version=node.version,
            metadata_props=dict(node.metadata_props),
        )
        set_type(view.outputs[0], type_of(result))
        if not result.is_graph_output():
            view.outputs[0].name, result.name = result.name, f"{result.name}#moved"
        graph.insert_before(node, view)
        replace_node(graph, node, view.outputs)


def _keeps_order(node: ir.Node) -> bool:
    """Whether elements stay in their order; none are no reason to look."""
    (source,) = node.inputs
    assert source is not None
    shape = type_of(source).shape
    order = attributes_of(node).get("perm") or range(len(shape))[::-1]
    moved = [axis for axis in order if shape[axis] != 1]
    return 0 not in shape and moved == sorted(moved)
