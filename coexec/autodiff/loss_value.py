"""The value of a loss on the host, by the operators' references."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.autodiff.losses import Loss
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import call_of
from coexec.ops.table import opdef

OPSET = 21


def loss_value(loss: Loss, prediction: Array, labels: Array) -> float:
    """The loss of a batch of any size: ``prediction`` ``(samples, ...)`` and its labels."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="loss")
    builder = GraphBuilder(graph, "forward")
    given = builder.input("prediction", TensorType.of(prediction))
    result, truth = loss.append(builder, given)
    values: dict[ir.Value, Array] = {given: prediction}
    if truth is not None:
        values[truth] = labels.astype(loss.labels_type(TensorType.of(prediction)).dtype)
    for value in graph.initializers.values():
        assert value.const_value is not None
        values[value] = value.const_value.numpy()
    for node in graph:
        call = call_of(node)
        operands = [None if v is None else values[v] for v in node.inputs[: len(call.inputs)]]
        results = opdef(call).reference(call, operands)
        values.update(zip(node.outputs, map(np.asarray, results), strict=False))
    return float(values[result])
