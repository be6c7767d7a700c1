"""Operators that training replaces by their bodies: these have the right gradients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coexec.autodiff.reverse import gradients
from coexec.core.types import TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.opdef import Example, OpDef, Sample
from coexec.ops.table import OPERATORS
from coexec.steps.builder import in_training_form
from tests.gradient.test_recurrent import differences
from tests.gradient.test_rules import evaluate

NAMES = ("Compress", "DFT", "DeformConv", "MaxUnpool", "STFT")
CASES = [
    pytest.param(OPERATORS[name], example, id=f"{name}-{i}")
    for name in NAMES
    for i, example in enumerate(OPERATORS[name].examples)
]


@pytest.mark.parametrize(("op", "example"), CASES)
def test_gradients_of_bodies_agree_with_central_differences(
    op: OpDef, example: Example, rng: np.random.Generator
) -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 22}, name="example")
    builder = GraphBuilder(graph, "forward")
    feeds = {}
    operands: list[ir.Value | None] = []
    for index, (spec, drawn) in enumerate(zip(example.inputs, example.draw(rng), strict=True)):
        if drawn is None:
            operands.append(None)
        elif isinstance(spec, Sample):
            feeds[f"x{index}"] = drawn.astype(np.float64)
            kind = TensorType(drawn.shape, np.dtype(np.float64))
            operands.append(builder.input(f"x{index}", kind))
        else:
            operands.append(builder.constant(drawn, drawn.dtype))
    y = builder.op(op.op_type, operands, example.attributes)
    weights = builder.constant(rng.uniform(0.5, 1.5, builder.type_of(y).shape), "float64")
    product = builder.op("Mul", [y, weights])
    graph.outputs.append(builder.op("ReduceSum", [product, None], {"keepdims": 0}))
    graph = in_training_form(ir.Model(graph, ir_version=10), seed=0).graph
    assert op.op_type not in {node.op_type for node in graph}
    target, inputs = graph.outputs[0], {str(value.name): value for value in graph.inputs}
    expected = {name: differences(graph, feeds, name, str(target.name)) for name in inputs}
    found = gradients(graph, target, list(inputs.values()), GraphBuilder(graph, "backward"))
    values = evaluate(graph, feeds)
    for name, value in inputs.items():
        gradient = found[value]
        assert gradient is not None, name
        actual = values[str(gradient.name)]
        np.testing.assert_allclose(actual, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
