"""Inference form of operators that behave differently in training; :mod:`training_mode` is back."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coexec.passes.keep_paths import keep_paths

TRAINING_MODE = 2
"""Which operand of Dropout says that it drops."""


def inference_mode(model: ir.Model) -> None:
    """Switch ``model`` to inference form in place, whichever form it was exported in.

    BatchNormalization normalises by its stored statistics (:func:`stored_statistics`), Dropout
    keeps everything, and so does stochastic depth (:mod:`coexec.passes.keep_paths`).
    """
    stored_statistics(model)
    keep_paths(model)
    for node in model.graph:
        if node.op_type == "Dropout" and not node.domain and len(node.inputs) > TRAINING_MODE:
            _drop_operand(model.graph, node)


def stored_statistics(model: ir.Model) -> list[str]:
    """Let BatchNormalization normalise by its stored statistics and leave them; in place.

    Returns the names of those that stay as they are: something reads their new statistics.
    """
    left = []
    for node in model.graph:
        if node.op_type != "BatchNormalization" or node.domain:
            continue
        if _is_read(node.outputs[1:]):
            left.append(str(node.name))
            continue
        node.attributes.pop("training_mode", None)
        node.resize_outputs(1)
    return left


def _drop_operand(graph: ir.Graph, node: ir.Node) -> None:
    """Take the flag from a Dropout, and from the graph if nobody else reads it."""
    flag = node.inputs[TRAINING_MODE]
    node.resize_inputs(TRAINING_MODE)
    if flag is not None and flag.is_initializer() and not flag.uses():
        del graph.initializers[str(flag.name)]


def _is_read(values: Sequence[ir.Value]) -> bool:
    return any(value.uses() or value.is_graph_output() for value in values)
