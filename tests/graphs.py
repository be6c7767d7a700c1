"""Models as text, and running a static model node by node through the operators' references."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from coexec.core.types import Array
from coexec.ops.node import call_of, present_outputs
from coexec.ops.table import opdef


def parse(
    graph: str, opset: int = 21, *, domains: str = "", functions: str = ""
) -> onnx.ModelProto:
    """A model from ONNX's text syntax: ``g (float[N] x) => (float[N] y) {y = Relu(x)}``."""
    imports = f'"" : {opset}' + (f", {domains}" if domains else "")
    text = f"<ir_version: 8, opset_import: [{imports}]> {graph} {functions}"
    return onnx.parser.parse_model(text)


def evaluate(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name; every result must have the shape and type the model says."""
    values = {v: v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value}
    values |= {value: feeds[str(value.name)] for value in model.graph.inputs}
    for node in model.graph:
        call = call_of(node)
        operands = [None if v is None else values[v] for v in node.inputs[: len(call.inputs)]]
        results = opdef(call).reference(call, operands)
        for value, result, kind in zip(present_outputs(node), results, call.outputs, strict=False):
            if value is not None and kind is not None:
                assert (np.shape(result), np.asarray(result).dtype) == (kind.shape, kind.dtype)
                values[value] = np.asarray(result)
    return {str(value.name): values[value] for value in model.graph.outputs}
