"""Operators of a region as an ONNX model, with its weights handed over apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, TensorType
from coexec.processors.ort.inline import LEAST_OPSET, Step

IR_VERSION = 10
"""That of opset 21: any ONNX Runtime that has the operators reads it."""
LARGE_BYTES = 1024
"""Constants above this are not written into the model but handed over by pointer."""


@dataclass(frozen=True)
class OnnxModel:
    """A serialised model, and by name the arrays that its initializers refer to."""

    text: bytes
    weights: Mapping[str, Array]


def build_model(
    steps: Sequence[Step],
    inputs: Sequence[str],
    outputs: Sequence[str],
    types: Mapping[str, TensorType],
    constants: Mapping[str, Array],
) -> OnnxModel:
    """A model with the interface ``inputs`` -> ``outputs``; ``types`` covers both."""
    values = {name: _typed_value(name, types[name]) for name in inputs}
    values.update({name: _typed_value(name, types[name]) for name in outputs})
    weights: dict[str, Array] = {}
    initializers = [_initializer(name, array, weights) for name, array in constants.items()]
    values.update({str(value.name): value for value in initializers})
    nodes = [_node(step, values) for step in steps]
    graph = ir.Graph(
        [values[name] for name in inputs],
        [values[name] for name in outputs],
        nodes=nodes,
        initializers=initializers,
        opset_imports={
            "": max((step.opset for step in steps), default=LEAST_OPSET),
            **{step.domain: 1 for step in steps if step.domain},
        },
        name="region",
    )
    model = ir.Model(graph, ir_version=IR_VERSION)
    return OnnxModel(ir.serde.serialize_model(model).SerializeToString(), weights)


def _typed_value(name: str, kind: TensorType) -> ir.Value:
    element = ir.TensorType(ir.DataType.from_numpy(kind.dtype))
    return ir.Value(name=name, type=element, shape=ir.Shape(kind.shape))


def _initializer(name: str, array: Array, weights: dict[str, Array]) -> ir.Value:
    kind = TensorType.of(array)
    value = _typed_value(name, kind)
    if array.nbytes <= LARGE_BYTES:
        value.const_value = ir.tensor(array, name=name)
        return value
    weights[name] = np.ascontiguousarray(array)
    value.const_value = ir.ExternalTensor(
        "weights", 0, array.nbytes, ir.DataType.from_numpy(array.dtype), shape=ir.Shape(kind.shape),
        name=name,
    )  # fmt: skip
    return value


def _node(step: Step, values: dict[str, ir.Value]) -> ir.Node:
    inputs = [values[name] if name else None for name in step.inputs]
    outputs = [_result(name, values) for name in step.outputs]
    attributes = [
        ir.Attr(name, attribute.type, attribute.value)
        for name, attribute in step.attributes.items()
    ]
    return ir.Node(step.domain, step.op_type, inputs, attributes, outputs=outputs, name=step.name)


def _result(name: str, values: dict[str, ir.Value]) -> ir.Value:
    """The value of this name; each absent output has its own without one."""
    return values.setdefault(name, ir.Value(name=name)) if name else ir.Value(name="")
