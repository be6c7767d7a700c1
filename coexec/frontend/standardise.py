"""Operators of ONNX Runtime and of scikit-learn, and quantised ones, as standard operators."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.frontend import (
    classical,
    fused,
    fused_attention,
    grouped_attention,
    packed_weights,
    quantised,
)
from coexec.frontend.elements import propagate_elements
from coexec.frontend.modernise import TARGET_OPSET
from coexec.frontend.operands import Rewrite
from coexec.frontend.rewrite import Emitter, graph_of, replace_value
from coexec.frontend.schema import label

ONNX_RUNTIME = "com.microsoft"
CLASSICAL = "ai.onnx.ml"

REWRITES: Mapping[str, Mapping[str, Rewrite]] = {
    "": {**quantised.OF_ONNX, **fused.OF_ONNX},
    ONNX_RUNTIME: {
        **quantised.OF_ONNX_RUNTIME,
        **fused.OF_ONNX_RUNTIME,
        **fused_attention.OF_ONNX_RUNTIME,
        **grouped_attention.OF_ONNX_RUNTIME,
        **packed_weights.OF_ONNX_RUNTIME,
    },
    CLASSICAL: classical.OF_CLASSICAL,
}
"""By domain and name of the operator."""


def standardise(model: ir.Model) -> None:
    """Replace every node that has a rewriting, subgraphs included, in place.

    What has none, or one that does not cover the node's attributes, is left as it is.
    ``ModelError`` names a node without an operand that it must have.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        rewrite = REWRITES.get(node.domain, {}).get(node.op_type)
        if rewrite is not None:
            _replace(node, rewrite)
        else:
            propagate_elements([node])
    _raise_opset(model)


def _raise_opset(model: ir.Model) -> None:
    """The model is in the newest opset that one of its nodes is meant in."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    written = [node.version or 0 for node in nodes if node.domain == ""]
    model.opset_imports[""] = max([model.opset_imports.get("", 0), *written])


def _replace(node: ir.Node, rewrite: Rewrite) -> None:
    """Every node in front of ``node`` is typed by now; so are those that take its place."""
    results = rewrite(node, Emitter(node, TARGET_OPSET))
    if not results:
        return
    for index, old in enumerate(node.outputs):
        if not (old.uses() or old.is_graph_output()):
            continue
        new = results[index] if index < len(results) else None
        if new is None:
            raise ModelError(f"{label(node)}: its output {old.name!r} is for its own training only")
        _type(new)
        replace_value(old, new, node)
    graph_of(node).remove(node, safe=True)


def _type(value: ir.Value) -> None:
    """Element types of a value and of all it is computed from, as far as they are not known."""
    producer = value.producer()
    if value.type is None and producer is not None:
        for operand in producer.inputs:
            if operand is not None:
                _type(operand)
        propagate_elements([producer])
