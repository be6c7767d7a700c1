"""Finding the node that made a loss non-finite, by running the forward graph on the references."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of, constant_of
from coexec.ops.table import OPERATORS


def first_offender(graph: ir.Graph, feeds: Mapping[str, Array]) -> str:
    """The first input, parameter or forward node whose value is not finite, in words."""
    values: dict[str, Array] = {}
    for name, array in feeds.items():
        if not _finite(array):
            return f"input or parameter {name!r} is not finite"
        values[name] = array
    for value in graph.initializers.values():
        constant = constant_of(value)
        if constant is not None:
            values[str(value.name)] = constant
    with np.errstate(all="ignore"):
        for node in graph:
            if node.metadata_props.get(PHASE) != "forward":
                continue
            for value, result in zip(node.outputs, _results(node, values), strict=False):
                if not _finite(result):
                    return f"the first non-finite value comes from {node.op_type} {node.name!r}"
                values[str(value.name)] = result
    return "every forward value is finite in the reference; the device's arithmetic differs"


def _results(node: ir.Node, values: Mapping[str, Array]) -> list[Array]:
    call = call_of(node)
    operands = [None if value is None else values[str(value.name)] for value in node.inputs]
    results = OPERATORS[call.identifier].reference(call, operands)
    return [np.asarray(result) for result in results]


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
