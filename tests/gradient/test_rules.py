"""Every gradient rule against central differences of the reference in float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from coexec.autodiff.reverse import gradients
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import call_of
from coexec.ops.opdef import Example, OpDef, Sample
from coexec.ops.table import OPERATORS

STEP = 1e-5
CASES = [
    pytest.param(op, example, id=f"{op.identifier}-{i}")
    for op in OPERATORS.values()
    if op.gradient is not None
    for i, example in enumerate(op.examples)
    if example.gradient
]


@pytest.mark.parametrize(("op", "example"), CASES)
def test_rule_agrees_with_central_differences(
    op: OpDef, example: Example, rng: np.random.Generator
) -> None:
    operands = [_wide(value) for value in example.draw(rng)]
    graph, inputs, target, builder = _scalar_graph(op, example, operands, rng)
    wanted = [value for value in inputs.values() if value.dtype == ir.DataType.DOUBLE]
    if not wanted:
        pytest.fail(f"{op.identifier}: a gradient example needs a float operand")
    found = gradients(graph, target, wanted, builder)
    feeds = dict(zip(inputs, _data(example, operands), strict=True))
    values = evaluate(graph, feeds)
    for value in wanted:
        gradient = found[value]
        expected = _central_difference(graph, feeds, str(value.name), str(target.name))
        actual = np.zeros_like(expected) if gradient is None else values[str(gradient.name)]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6, err_msg=value.name or "")


def test_every_differentiable_operator_has_three_examples() -> None:
    thin = [
        op.identifier
        for op in OPERATORS.values()
        if op.gradient is not None and sum(e.gradient for e in op.examples) < 3
    ]
    assert not thin, f"fewer than three gradient examples: {thin}"


def evaluate(graph: ir.Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All values of a graph by the references, in the types of the feeds."""
    values: dict[str, Array] = dict(feeds)
    for value in graph.initializers.values():
        assert value.const_value is not None
        values[str(value.name)] = value.const_value.numpy()
    for node in graph:
        call = call_of(node)
        operands = [None if v is None else values[str(v.name)] for v in node.inputs]
        results = OPERATORS[call.identifier].reference(call, operands)
        for value, result in zip(node.outputs, results, strict=False):
            values[str(value.name)] = np.asarray(result)
    return values


def _scalar_graph(
    op: OpDef, example: Example, operands: list[Array | None], rng: np.random.Generator
) -> tuple[ir.Graph, dict[str, ir.Value], ir.Value, GraphBuilder]:
    """sum_k <weights_k, output_k> over the float outputs, so that one scalar sees them all."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": example.version}, name="example")
    builder = GraphBuilder(graph, "forward")
    inputs: dict[str, ir.Value] = {}
    values: list[ir.Value | None] = []
    for index, (spec, operand) in enumerate(zip(example.inputs, operands, strict=True)):
        if operand is None:
            values.append(None)
        elif isinstance(spec, Sample) and not spec.constant:
            value = builder.input(f"x{index}", TensorType.of(operand))
            inputs[f"x{index}"] = value
            values.append(value)
        else:
            values.append(builder.constant(operand, operand.dtype))
    outputs = builder.ops(
        op.op_type, values, example.attributes, outputs=example.outputs, domain=op.domain
    )
    target = builder.constant(0.0, "float64")
    for output in outputs:
        kind = builder.type_of(output)
        if kind.dtype == np.float64:
            weights = builder.constant(rng.uniform(0.5, 1.5, kind.shape), "float64")
            product = builder.op("Mul", [output, weights])
            total = builder.op("ReduceSum", [product, None], {"keepdims": 0})
            target = builder.op("Add", [target, total])
    return graph, inputs, target, builder


def _central_difference(graph: ir.Graph, feeds: dict[str, Array], name: str, target: str) -> Array:
    x = feeds[name]
    result = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * STEP
            ends.append(float(_forward(graph, {**feeds, name: moved}, target)))
        result[index] = (ends[0] - ends[1]) / (2 * STEP)
    return result


def _forward(graph: ir.Graph, feeds: dict[str, Array], target: str) -> Array:
    """The target alone: evaluation stops where it is known (gradient nodes stand behind it)."""
    values: dict[str, Array] = dict(feeds)
    for value in graph.initializers.values():
        assert value.const_value is not None
        values[str(value.name)] = value.const_value.numpy()
    for node in graph:
        call = call_of(node)
        operands = [None if v is None else values[str(v.name)] for v in node.inputs]
        results = OPERATORS[call.identifier].reference(call, operands)
        for value, result in zip(node.outputs, results, strict=False):
            values[str(value.name)] = np.asarray(result)
        if target in values:
            break
    return values[target]


def _wide(value: Array | None) -> Array | None:
    return value.astype(np.float64) if value is not None and value.dtype.kind == "f" else value


def _data(example: Example, operands: list[Array | None]) -> list[Array]:
    return [
        operand
        for spec, operand in zip(example.inputs, operands, strict=True)
        if isinstance(spec, Sample) and not spec.constant and operand is not None
    ]
