"""Replace operators by their function bodies: standard operators that every engine has."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from coexec.core.types import OpCall
from coexec.ops.builder import PHASE, SOURCE
from coexec.ops.node import call_of
from coexec.ops.table import OPERATORS


def expand(model: ir.Model, unwanted: Callable[[OpCall], bool]) -> int:
    """Inline the body of every node whose call is ``unwanted`` and has one; in place.

    Returns how many nodes were replaced; their inner values have no types yet.
    """
    expanded = 0
    for node in list(model.graph):
        call = call_of(node)
        body = OPERATORS[call.identifier].body
        if body is None or not unwanted(call):
            continue
        function = body(call)
        if function is not None:
            _call_function(model, node, function, expanded)
            expanded += 1
    if expanded:
        InlinePass()(model)
    return expanded


def _call_function(model: ir.Model, node: ir.Node, function: ir.Function, number: int) -> None:
    """Make ``node`` a call of ``function`` under a name of its own: bodies depend on types."""
    function.name = f"{function.name}_{number}"
    function.domain = "coexec.expanded"
    model.functions[function.identifier()] = function
    for inner in function:
        inner.name = f"{node.name}/{inner.name or inner.op_type}"
        if PHASE in node.metadata_props:
            inner.metadata_props.setdefault(PHASE, node.metadata_props[PHASE])
        source = node.metadata_props.get(SOURCE) or str(node.name)
        inner.metadata_props.setdefault(SOURCE, source)
    for domain, version in list(function.opset_imports.items()):
        # Bodies of our own operators do not know the model's opset.
        function.opset_imports[domain] = model.graph.opset_imports.setdefault(domain, version)
    node.resize_inputs(len(function.inputs))  # calls end with their last present operand
    node.domain, node.op_type, node.overload = function.domain, function.name, function.overload
    node.attributes.clear()
