"""Random recurrent layers against ONNX Runtime: every operand, direction and activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import coexec
from coexec.core.types import Array
from tests.runtimes import THOROUGH

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
BOUNDED = ("Tanh", "Sigmoid", "HardSigmoid", "Softsign", "ScaledTanh")
"""Activations whose values cannot grow from step to step."""
OF_RNN = (*BOUNDED, "Affine", "Elu", "LeakyRelu", "Relu", "Softplus", "ThresholdedRelu")
COUNT = {"reference": 60, THOROUGH[0]: 24}


@dataclass(frozen=True)
class Drawn:
    """A model of one layer and its input."""

    model: onnx.ModelProto
    x: Array


def draw(seed: int) -> Drawn:
    """A layer with a random choice of everything that it may have."""
    rng = np.random.default_rng(seed)
    op_type = str(rng.choice(list(GATES)))
    t, n, i, h = (int(rng.integers(1, high)) for high in (7, 20, 7, 40))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    d, rows = 1 + (direction == "bidirectional"), GATES[op_type] * h

    def uniform(*shape: int) -> Array:
        return rng.uniform(-0.5, 0.5, shape).astype(np.float32)

    optional: dict[str, Array] = {
        "B": uniform(d, 2 * rows),
        "sequence_lens": rng.integers(1, t + 1, n).astype(np.int32),
        "initial_h": uniform(d, n, h),
    }
    if op_type == "LSTM":
        optional |= {"initial_c": uniform(d, n, h), "P": uniform(d, 3 * h)}
    given = {name: array for name, array in optional.items() if rng.random() < 0.5}
    weights = {"W": uniform(d, rows, i), "R": uniform(d, rows, h)}
    operands = ["x", *weights, *(name if name in given else "" for name in optional)]
    outputs = ["y", "y_h", "y_c"][: 3 if op_type == "LSTM" else 2]
    attributes = {"hidden_size": h, "direction": direction, **_unusual(op_type, d, rng)}
    node = helper.make_node(op_type, operands, outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [t, n, i])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights | given).items()],
    )
    opset = [helper.make_opsetid("", int(rng.integers(9, 23)))]
    return Drawn(helper.make_model(graph, opset_imports=opset, ir_version=9), uniform(t, n, i))


def _unusual(op_type: str, directions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Attributes that most layers lack."""
    found: dict[str, Any] = {}
    if rng.random() < 0.25:
        found["clip"] = float(rng.uniform(0.2, 1))
    if op_type == "GRU" and rng.random() < 0.6:
        found["linear_before_reset"] = 1
    if op_type == "LSTM" and rng.random() < 0.2:
        found["input_forget"] = 1
    if rng.random() < 0.4:
        names = OF_RNN if op_type == "RNN" else BOUNDED
        count = FUNCTIONS[op_type]
        found["activations"] = [str(name) for name in rng.choice(names, count)] * directions
        for name in ("activation_alpha", "activation_beta"):
            found[name] = [float(v) for v in rng.uniform(0.1, 0.9, count * directions)]
    return found


@pytest.mark.parametrize(
    ("processor", "seed"), [(name, seed) for name, count in COUNT.items() for seed in range(count)]
)
def test_layer_computes_what_onnxruntime_does(processor: str, seed: int) -> None:
    drawn = draw(seed)
    theirs = onnxruntime.InferenceSession(
        drawn.model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"x": drawn.x})
    ours = coexec.compile(coexec.load(drawn.model), [processor]).run({"x": drawn.x})
    for array, expected in zip(ours.values(), theirs, strict=True):
        np.testing.assert_allclose(array, np.asarray(expected), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("lines", [1, 3])
def test_a_layer_that_nobody_reads_all_states_of(lines: int) -> None:
    """Outputs may be absent: all states, or the last cell."""
    drawn = draw(3 * lines)
    node = drawn.model.graph.node[0]
    expected = coexec.compile(coexec.load(drawn.model), ["reference"]).run({"x": drawn.x})["y_h"]
    for index, name in enumerate(node.output):
        node.output[index] = name if name == "y_h" else ""
    shown = [value for value in drawn.model.graph.output if value.name == "y_h"]
    del drawn.model.graph.output[:]
    drawn.model.graph.output.extend(shown)
    for processor in ("reference", THOROUGH[0]):
        found = coexec.compile(coexec.load(drawn.model), [processor]).run({"x": drawn.x})
        np.testing.assert_allclose(found["y_h"], expected, rtol=1e-4, atol=2e-5)


def test_weights_of_a_layer_are_rearranged_once() -> None:
    """What of its body hangs on weights alone is computed when it is compiled."""
    drawn = draw(4)
    session = coexec.compile(coexec.load(drawn.model), [THOROUGH[0]])
    session.run({"x": drawn.x})
    names = {name.rpartition("/")[2] for name in session.plan.processors}
    assert not any(name.startswith(("Split", "ReduceSum")) for name in names), names
