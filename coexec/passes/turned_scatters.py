"""Rows written into a turned tensor, which is turned back, are written where they lie.

PyTorch's exporter writes ``cache.index_copy(2, positions, rows)`` so: all of the cache is moved
twice for a few rows.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.node import attributes_of, type_of
from coexec.passes.insert import Inserter, New, replace_node


def write_in_place(graph: ir.Graph) -> None:
    """ScatterND of rows between two Transposes becomes ScatterElements; in place."""
    inserter = Inserter(graph)
    for back in [node for node in graph if _is(node, "Transpose")]:
        scatter = _alone(back.inputs[0], "ScatterND")
        turned = None if scatter is None else _alone(scatter.inputs[0], "Transpose")
        if scatter is None or turned is None:
            continue
        order, again = _order(turned), _order(back)
        indices = scatter.inputs[1]
        assert indices is not None
        rows = type_of(indices)
        inverse = [again[axis] for axis in order] == [*range(len(order))]
        replaces = attributes_of(scatter).get("reduction", "none") == "none"
        if inverse and replaces and rows.rank == 2 and rows.shape[1] == 1:
            _rewrite(inserter, back, scatter, turned)


def _rewrite(inserter: Inserter, back: ir.Node, scatter: ir.Node, turned: ir.Node) -> None:
    data, (_, indices, updates) = turned.inputs[0], scatter.inputs
    assert data is not None
    assert indices is not None
    axis, rank = _order(turned)[0], type_of(data).rank
    count = type_of(indices).shape[0]
    line = [count if place == axis else 1 for place in range(rank)]
    shape = [count if n == axis else size for n, size in enumerate(type_of(data).shape)]
    perm = {"perm": _order(back)}
    (rows,) = inserter.before(back, New("Transpose", [updates], perm, domain=""))
    builder = inserter.builder
    lines = New("Reshape", [indices, builder.constant(line, "int64")], domain="")
    (places,) = inserter.before(back, lines)
    wide = New("Expand", [places, builder.constant(shape, "int64")], domain="")
    (places,) = inserter.before(back, wide)
    write = New("ScatterElements", [data, places, rows], {"axis": axis}, domain="")
    replace_node(inserter.graph, back, inserter.before(back, write))
    inserter.graph.remove([scatter, turned], safe=True)


def _is(node: ir.Node, op_type: str) -> bool:
    return node.op_type == op_type and not node.domain


def _alone(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of a kind that makes a value which one node reads, and nobody outside."""
    producer = None if value is None else value.producer()
    if value is None or producer is None or not _is(producer, op_type):
        return None
    return producer if len(value.uses()) == 1 and not value.is_graph_output() else None


def _order(node: ir.Node) -> list[int]:
    """The axes of the operand in the order in which the result has them."""
    (value,) = node.inputs
    assert value is not None
    return [*(attributes_of(node).get("perm") or range(type_of(value).rank)[::-1])]
