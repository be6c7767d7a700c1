"""Finding the node that made a loss non-finite, by running the forward graph on the references."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of, constant_of
from coexec.ops.table import OPERATORS

SMALLER = "Try a smaller learning rate, or clip gradients"


def explain(
    graph: ir.Graph, feeds: Mapping[str, Array], states: Mapping[str, Array], loss: float, step: int
) -> str:
    """Why the loss of a step that changed nothing is not finite, and what to do about it."""
    offender = f"the loss is {loss} at step {step}: "
    kept = "; parameters are as before this step. "
    if bad := _first_bad(feeds):
        return f"{offender}input {bad!r} is not finite{kept}Look for NaN and infinity in the data"
    if bad := _first_bad(states):
        advice = SMALLER if step else "They were so at the beginning: look at the model's file"
        return f"{offender}parameter {bad!r} is not finite{kept}{advice}"
    return f"{offender}{_first_node(graph, {**feeds, **states})}{kept}{SMALLER}"


def _first_bad(arrays: Mapping[str, Array]) -> str | None:
    return next((name for name, array in arrays.items() if not _finite(array)), None)


def _first_node(graph: ir.Graph, feeds: Mapping[str, Array]) -> str:
    """The first forward node whose value is not finite, in words."""
    values = dict(feeds)
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
