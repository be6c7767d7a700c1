"""Products of a backward pass read matrices transposed where they lie, instead of a copy of them.

The gradients of a batched MatMul are products with its operands transposed. As nodes of their own,
these copies are memory that is there beside what they are copies of: in attention, one of the
probabilities and one each of queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from coexec.core.processor import Support
from coexec.core.types import OpCall
from coexec.ops.node import attributes_of, call_of, set_type, type_of
from coexec.ops.opdef import COEXEC
from coexec.passes.insert import replace_node
from coexec.passes.kept import BACKWARD, phase_of

Supports = Callable[[OpCall], Support]


def read_transposed(graph: ir.Graph, supports: Supports) -> int:
    """Let MatMuls of the backward pass take in the Transposes in front of them; in place.

    ``graph`` is a training step with static types. Only products of as many matrices on both sides
    as kernels can step through, and only what ``supports`` says yes to. Returns how many.
    """
    found = 0
    for node in list(graph):
        if node.op_type != "MatMul" or node.domain or phase_of(node) != BACKWARD:
            continue
        flags = [int(_turned(value)) for value in node.inputs]
        if any(flags) and _alike(node) and (product := _product(node, flags, supports)):
            graph.insert_before(node, product)
            turned = [
                v.producer() for v, flag in zip(node.inputs, flags, strict=True) if v and flag
            ]
            replace_node(graph, node, product.outputs)
            unread = [t for t in dict.fromkeys(turned) if t and not t.outputs[0].uses()]
            graph.remove(unread, safe=True)
            found += 1
    return found


def _alike(node: ir.Node) -> bool:
    """Whether both operands are as many matrices."""
    a, b = (type_of(value).shape for value in node.inputs if value is not None)
    return len(a) > 1 and len(b) > 1 and a[:-2] == b[:-2]


def _turned(value: ir.Value | None) -> bool:
    """Whether a value is a copy with its last two axes exchanged, made in the backward pass."""
    producer = None if value is None else value.producer()
    if value is None or producer is None or value.is_graph_output():
        return False
    if producer.op_type != "Transpose" or producer.domain or phase_of(producer) != BACKWARD:
        return False
    rank = type_of(value).rank
    order = attributes_of(producer).get("perm") or range(rank)[::-1]
    return rank > 1 and [*order] == [*range(rank - 2), rank - 1, rank - 2]


def _product(node: ir.Node, flags: list[int], supports: Supports) -> ir.Node | None:
    """The product under the name of ``node``, if it is supported."""
    inputs = [_source(v) if flag else v for v, flag in zip(node.inputs, flags, strict=True)]
    product = ir.node(
        "TransposedMatMul",
        inputs,
        {"transA": flags[0], "transB": flags[1]},
        domain=COEXEC,
        name=node.name,
        metadata_props=dict(node.metadata_props),
    )
    old = node.outputs[0]
    set_type(product.outputs[0], type_of(old))
    if not supports(call_of(product)).yes:
        product.resize_inputs(0)  # uses of a node that is in no graph
        return None
    if not old.is_graph_output():
        product.outputs[0].name, old.name = old.name, f"{old.name}#turned"
    return product


def _source(value: ir.Value | None) -> ir.Value | None:
    producer = None if value is None else value.producer()
    return None if producer is None else producer.inputs[0]
