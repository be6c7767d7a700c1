"""Gradients of whole recurrent layers, as training computes them, by differences in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from coexec.autodiff.reverse import gradients
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of
from coexec.steps.builder import in_training_form
from tests.gradient.test_rules import evaluate

T, N, INPUTS, H = 4, 3, 2, 3
STEP = 1e-5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FORMS: list[tuple[str, str, dict[str, Any]]] = [
    ("LSTM", "", {}),
    ("LSTM", "B initial_h initial_c P", {"direction": "reverse"}),
    ("LSTM", "B sequence_lens initial_h initial_c P", {"direction": "bidirectional"}),
    ("LSTM", "B sequence_lens initial_h", {"layout": 1, "direction": "bidirectional"}),
    ("LSTM", "B P sequence_lens", {"input_forget": 1, "clip": 0.7}),
    ("LSTM", "B initial_c", {"activations": ["HardSigmoid", "ScaledTanh", "Softsign"]}),
    ("GRU", "B initial_h", {"linear_before_reset": 1}),
    ("GRU", "B sequence_lens initial_h", {"linear_before_reset": 1, "direction": "reverse"}),
    ("GRU", "sequence_lens", {"linear_before_reset": 1, "direction": "bidirectional"}),
    ("GRU", "B initial_h", {"layout": 1, "direction": "bidirectional"}),
    ("RNN", "B sequence_lens initial_h", {"direction": "bidirectional"}),
    ("RNN", "B", {"activations": ["Elu"], "layout": 1}),
]


def layer(
    op_type: str, given: str, attributes: dict[str, Any], rng: np.random.Generator
) -> tuple[ir.Graph, dict[str, ir.Value], ir.Value]:
    """A layer in training form, its float operands and the weighted sum of all its outputs."""
    d = 2 if attributes.get("direction") == "bidirectional" else 1
    first, rows = bool(attributes.get("layout")), GATES[op_type] * H
    state = (N, d, H) if first else (d, N, H)
    shapes = {
        "X": (N, T, INPUTS) if first else (T, N, INPUTS),
        "W": (d, rows, INPUTS),
        "R": (d, rows, H),
        "B": (d, 2 * rows),
        "sequence_lens": (N,),
        "initial_h": state,
        "initial_c": state,
        "P": (d, 3 * H),
    }
    if "activations" in attributes:
        attributes = attributes | {"activations": attributes["activations"] * d}
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 22}, name="layer")
    builder = GraphBuilder(graph, "forward")
    operands: list[ir.Value | None] = []
    for name in list(shapes)[: 8 if op_type == "LSTM" else 6]:
        if name == "sequence_lens" and name in given:
            operands.append(builder.constant(np.array([T, 2, 1]), "int32"))
        elif name in ("X", "W", "R") or name in given.split():
            operands.append(builder.input(name, TensorType(shapes[name], np.dtype(np.float64))))
        else:
            operands.append(None)
    count = 3 if op_type == "LSTM" else 2
    results = builder.ops(op_type, operands, attributes | {"hidden_size": H}, outputs=count)
    total = builder.constant(0.0, "float64")
    for result in results:
        kind = builder.type_of(result)
        weighted = builder.op("Mul", [result, builder.constant(rng.random(kind.shape), "float64")])
        summed = builder.op("ReduceSum", [weighted, None], {"keepdims": 0})
        total = builder.op("Add", [total, summed])
    graph.outputs.append(total)
    model = ir.Model(graph, ir_version=10)
    model = in_training_form(model, seed=0)
    inputs = {str(value.name): value for value in model.graph.inputs}
    return model.graph, inputs, model.graph.outputs[0]


@pytest.mark.parametrize(("op_type", "given", "attributes"), FORMS)
def test_gradients_agree_with_central_differences(
    op_type: str, given: str, attributes: dict[str, Any], rng: np.random.Generator
) -> None:
    graph, inputs, target = layer(op_type, given, attributes, rng)
    feeds: dict[str, Array] = {
        name: rng.uniform(-1, 1, type_of(value).shape) for name, value in inputs.items()
    }
    # Differentiation appends to the graph; differences are taken from what it was before.
    expected = {name: differences(graph, feeds, name, str(target.name)) for name in inputs}
    found = gradients(graph, target, list(inputs.values()), GraphBuilder(graph, "backward"))
    values = evaluate(graph, feeds)
    for name, value in inputs.items():
        gradient = found[value]
        assert gradient is not None, name
        actual = values[str(gradient.name)]
        np.testing.assert_allclose(actual, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


def differences(graph: ir.Graph, feeds: dict[str, Array], name: str, target: str) -> Array:
    """Central differences of the target by one input."""
    result = np.zeros_like(feeds[name])
    for index in np.ndindex(*result.shape):
        ends = []
        for sign in (1, -1):
            moved = feeds[name].copy()
            moved[index] += sign * STEP
            ends.append(float(evaluate(graph, {**feeds, name: moved})[target]))
        result[index] = (ends[0] - ends[1]) / (2 * STEP)
    return result


def test_training_computes_the_steps_once(rng: np.random.Generator) -> None:
    graph, inputs, target = layer("LSTM", "B", {}, rng)
    gradients(graph, target, list(inputs.values()), GraphBuilder(graph, "backward"))
    operators = [node.op_type for node in graph]
    assert operators.count("LSTMSteps") == 1
    assert operators.count("LSTMStepsGrad") == 1
