"""The cases of the operator suites as ONNX graphs, gradients by coexec's own operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import tape

OPSET, COEXEC, TRAINING = 20, "coexec", "ai.onnx.preview.training"
Results = Sequence[ir.Value]


class Graph:
    """A graph being built on the operands of a case."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec
        imports = {"": OPSET, COEXEC: 1, TRAINING: 1}
        self.inputs = {
            name: _value(name, entry["shape"], ir.DataType.FLOAT)
            for name, entry in spec["operands"].items()
        }
        self.graph = ir.Graph([], [], nodes=[], opset_imports=imports, name="case")
        self._tape = tape.Tape(self.graph)

    def op(
        self, op_type: str, names: Sequence[str | ir.Value], domain: str = "", **attributes: Any
    ) -> ir.Value:
        """A node with one output; operands by name or value."""
        return self.ops(op_type, names, 1, domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        names: Sequence[str | ir.Value],
        outputs: int,
        domain: str = "",
        **attributes: Any,
    ) -> Results:
        """A node with several outputs."""
        operands = [self.inputs[name] if isinstance(name, str) else name for name in names]
        return self._tape.op_multi_out(
            op_type, operands, attributes, num_outputs=outputs, domain=domain
        )

    def constant(self, value: Any, dtype: str) -> ir.Value:
        """A value known beforehand."""
        return self.op("Constant", [], value=ir.tensor(np.asarray(value, dtype)))

    def scalar(self, name: str, dtype: ir.DataType) -> str:
        """One more graph input, a scalar."""
        self.inputs[name] = _value(name, (), dtype)
        return name

    def model(self, results: Results) -> ir.Model:
        """The finished graph; results are named y0, y1, ... in their order."""
        self.graph.inputs.extend(self.inputs.values())
        for i, value in enumerate(results):
            value.name = f"y{i}"
            self.graph.outputs.append(value)
        return ir.Model(self.graph, ir_version=9)


def _value(name: str, shape: Sequence[int], dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(list(shape)), type=ir.TensorType(dtype))


def _convolution(direction: str) -> Callable[[Graph], Results]:
    def build(g: Graph) -> Results:
        spec = g.spec
        attributes: dict[str, Any] = {
            "strides": spec["strides"],
            "dilations": spec["dilations"],
            "group": spec["groups"],
            "pads": (*spec["pads"], *spec["pads"]),
        }
        if direction == "forward":
            return [g.op("Conv", ["x", "w"], kernel_shape=spec["kernel"], **attributes)]
        if direction == "input_grad":
            shape = spec["in_shape"]
            return [g.op("ConvInputGrad", ["dy", "w"], COEXEC, input_shape=shape, **attributes)]
        kernel = spec["kernel"]
        return [g.op("ConvWeightGrad", ["x", "dy"], COEXEC, kernel_shape=kernel, **attributes)]

    return build


def _window(g: Graph) -> dict[str, Any]:
    spec = g.spec
    return {
        "kernel_shape": (spec["kernel"],) * 2,
        "strides": (spec["stride"],) * 2,
        "pads": (spec["pad"],) * 4,
    }


def _average_back(g: Graph) -> Results:
    shape = g.spec["in_shape"]
    attributes = _window(g) | {"input_shape": shape, "count_include_pad": 1}
    return [g.op("AveragePoolGrad", ["dy"], COEXEC, **attributes)]


def _global_back(g: Graph) -> Results:
    """As ``ops/global_pool.py`` differentiates it."""
    shape = g.spec["in_shape"]
    share = g.op("Mul", ["dy", g.constant(1 / (shape[2] * shape[3]), "float32")])
    return [g.op("Expand", [share, g.constant(shape, "int64")])]


def _chain(g: Graph) -> Results:
    return [g.op("Relu", [g.op("Add", [g.op("Mul", ["x", "u"]), "v"])])]


def _chain_back(g: Graph) -> Results:
    zero = g.constant(0, "float32")
    passed = g.op("Where", [g.op("Greater", ["y", zero]), "dy", zero])
    return [g.op("Mul", [passed, "u"]), g.op("Mul", [passed, "x"])]


def _momentum(g: Graph) -> Results:
    scalars = g.scalar("rate", ir.DataType.FLOAT), g.scalar("step", ir.DataType.INT64)
    attributes = {"alpha": 0.9, "beta": 1.0, "mode": "standard", "norm_coefficient": 0.0}
    return g.ops("Momentum", [*scalars, "x", "g", "m"], 2, TRAINING, **attributes)


def _adam(g: Graph) -> Results:
    scalars = g.scalar("rate", ir.DataType.FLOAT), g.scalar("step", ir.DataType.INT64)
    attributes = {"alpha": 0.9, "beta": 0.999, "epsilon": 1e-8, "norm_coefficient": 0.0}
    return g.ops("Adam", [*scalars, "x", "g", "m", "s"], 3, TRAINING, **attributes)


BUILDERS: Mapping[str, Callable[[Graph], Results]] = {
    "gemm.plain": lambda g: [g.op("MatMul", ["a", "b"])],
    "gemm.linear": lambda g: [g.op("Gemm", ["x", "w"], transB=1)],
    "conv.forward": _convolution("forward"),
    "conv.input_grad": _convolution("input_grad"),
    "conv.weight_grad": _convolution("weight_grad"),
    "batch_norm.forward": lambda g: g.ops(
        "BatchNormalization",
        ["x", "scale", "bias", "mean", "variance"],
        1,
        training_mode=1,
        epsilon=1e-5,
    ),
    "batch_norm.backward": lambda g: g.ops(
        "BatchNormalizationGrad", ["x", "scale", "dy"], 3, COEXEC, epsilon=1e-5
    ),
    "layer_norm.forward": lambda g: [
        g.op("LayerNormalization", ["x", "scale", "bias"], axis=-1, epsilon=1e-5)
    ],
    "layer_norm.backward": lambda g: g.ops(
        "LayerNormalizationGrad", ["x", "scale", "dy"], 3, COEXEC, axis=-1, epsilon=1e-5
    ),
    "softmax.forward": lambda g: [g.op("Softmax", ["x"], axis=-1)],
    "softmax.backward": lambda g: [g.op("SoftmaxGrad", ["dy", "y"], COEXEC, axis=-1)],
    "max_pool.forward": lambda g: [g.op("MaxPool", ["x"], **_window(g))],
    "max_pool.backward": lambda g: [g.op("MaxPoolGrad", ["x", "dy"], COEXEC, **_window(g))],
    "average_pool.forward": lambda g: [
        g.op("AveragePool", ["x"], count_include_pad=1, **_window(g))
    ],
    "average_pool.backward": _average_back,
    "global_pool.forward": lambda g: [g.op("GlobalAveragePool", ["x"])],
    "global_pool.backward": _global_back,
    "chain.forward": _chain,
    "chain.backward": _chain_back,
    "update.momentum": _momentum,
    "update.adam": _adam,
}


def graph_of(kind: str, spec: Mapping[str, Any]) -> ir.Model:
    """The case as a model whose inputs have the operands' names.

    Raises:
        KeyError: there is no such kind.
    """
    graph = Graph(spec)
    return graph.model(BUILDERS[kind](graph))
