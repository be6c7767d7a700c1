"""The nine real CNN graphs that the onnx package ships, with random weights of a useful scale.

Their shipped weights are constants, so their outputs are flat and hardly depend on the arithmetic.
"""

from __future__ import annotations

import zlib
from math import prod, sqrt
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def model_file(name: str) -> Path:
    """Where the onnx package has a model."""
    return Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every weight drawn by its role, so that activations keep their scale."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = _weight_shapes(copy.graph)
    roles = _roles(copy.graph, shapes)
    drawn = [
        numpy_helper.from_array(_draw(name, roles[name], shapes[name]), name) for name in roles
    ]
    filled = [n for n in copy.graph.node if not set(n.output) & set(roles)]
    kept = [t for t in copy.graph.initializer if t.name not in roles]
    inputs = [v for v in copy.graph.input if v.name not in roles]
    for field, values in (("node", filled), ("initializer", [*kept, *drawn]), ("input", inputs)):
        copy.graph.ClearField(field)
        getattr(copy.graph, field).extend(values)
    return copy


def without_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the logits as its output, where its last node is a Softmax."""
    last = next(n for n in model.graph.node if model.graph.output[0].name in n.output)
    if last.op_type == "Softmax":
        kind = model.graph.output[0].type
        model.graph.node.remove(last)
        model.graph.ClearField("output")
        model.graph.output.append(onnx.ValueInfoProto(name=last.input[0], type=kind))
    return model


def model_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input that is data: models of this age list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    images: list[onnx.ValueInfoProto] = [v for v in model.graph.input if v.name not in weights]
    assert len(images) == 1
    return images[0]


Role = tuple[str, int]
"""Operator that reads a weight, and the position of the operand."""


def _weight_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Every float weight: an initializer, or a ConstantOfShape of a constant shape."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {
        name: tuple(tensor.dims)
        for name, tensor in tensors.items()
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shape = numpy_helper.to_array(tensors[node.input[0]])
            shapes[node.output[0]] = tuple(int(d) for d in shape)
    return shapes


def _roles(graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]) -> dict[str, Role]:
    """What each weight is for; one that only passes a Reshape or Unsqueeze serves its reader."""
    readers = {name: (n, i) for n in graph.node for i, name in enumerate(n.input)}
    roles: dict[str, Role] = {}
    for name in shapes.keys() & readers.keys():  # resnet50 lists a weight that nothing reads
        node, index = readers[name]
        while node.op_type in ("Reshape", "Unsqueeze"):
            node, index = readers[node.output[0]]
        roles[name] = (node.op_type, index)
    return roles


def _draw(name: str, role: Role, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """He-scaled products (He et al., 2015); scales and variances near 1; small shifts.

    The seed is the weight's name: no weight depends on the order of others.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if role in (("Conv", 1), ("Gemm", 1)):
        deviation = sqrt(2 / prod(shape[1:]))
        return rng.standard_normal(shape, np.float32) * np.float32(deviation)
    if role in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    shifts = {("Conv", 2), ("Gemm", 2), ("Add", 1), *(("BatchNormalization", i) for i in (2, 3))}
    assert role in shifts, f"{name}: no rule for a weight of {role}"
    return rng.standard_normal(shape, np.float32) * np.float32(0.1)
