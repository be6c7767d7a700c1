"""The reverse sweep: contributions add up once, and only what was asked for is computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.autodiff.reverse import gradients
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from tests.gradient.test_rules import evaluate

KIND = TensorType((3,), np.dtype(np.float64))
X = np.array([-1.0, 0.0, 0.5])


def begun() -> tuple[ir.Graph, GraphBuilder]:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="made up")
    return graph, GraphBuilder(graph, "forward")


def value_of(graph: ir.Graph, wanted: ir.Value | None, feeds: Mapping[str, Array]) -> Array:
    assert wanted is not None
    return evaluate(graph, feeds)[str(wanted.name)]


def test_contributions_of_a_value_in_the_middle_are_added_once() -> None:
    """a = exp(x) is read three times: two additions, whoever asks for its gradient."""
    graph, builder = begun()
    x = builder.input("x", KIND)
    a = builder.op("Exp", [x])
    b = builder.op("Add", [builder.op("Mul", [a, a]), a])
    target = builder.op("ReduceSum", [b], {"keepdims": 0})
    found = gradients(graph, target, [a, x], builder)
    assert sum(node.op_type == "Add" for node in graph) == 1 + 2
    exp = np.exp(X)
    np.testing.assert_allclose(value_of(graph, found[a], {"x": X}), 2 * exp + 1)
    np.testing.assert_allclose(value_of(graph, found[x], {"x": X}), (2 * exp + 1) * exp)


def test_what_has_no_influence_has_no_gradient_and_costs_no_node() -> None:
    graph, builder = begun()
    x, idle = builder.input("x", KIND), builder.input("idle", KIND)
    builder.op("Exp", [idle])
    target = builder.op("ReduceSum", [builder.op("Neg", [x])], {"keepdims": 0})
    before = len(graph)
    found = gradients(graph, target, [idle], builder)
    assert found == {idle: None}
    assert len(graph) == before


def test_only_operands_that_were_asked_for_get_gradients() -> None:
    """Of x @ w, the weights' gradient needs one product; the data's would be another."""
    graph, builder = begun()
    x = builder.input("x", TensorType((4, 3), np.dtype(np.float64)))
    w = builder.input("w", TensorType((3, 2), np.dtype(np.float64)))
    target = builder.op("ReduceSum", [builder.op("MatMul", [x, w])], {"keepdims": 0})
    found = gradients(graph, target, [w], builder)
    assert sum(node.op_type in ("MatMul", "Gemm") for node in graph) == 1 + 1
    data = np.arange(12.0).reshape(4, 3)
    gradient = value_of(graph, found[w], {"x": data, "w": np.ones((3, 2))})
    np.testing.assert_allclose(gradient, np.repeat(data.sum(0)[:, None], 2, 1))
