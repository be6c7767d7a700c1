"""Layers of networks as the zoo builds them, for rows of measurements that only name them.

Normalisation and activation behind a convolution count as parts of it, as engines fuse them, and so
do the bias of a product and the scale of attention's scores; what an activation takes that is more
than a maximum is a layer of its own. Views move nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import onnx_ir as ir

from coexec.core.types import OpCall, TensorType
from coexec.cost.soc.workload import (
    ACTIVATION,
    CONV,
    DENSE,
    DEPTHWISE,
    ELEMENTWISE,
    GROUPED,
    INPUT,
    MOVE,
    OUTPUT,
    Workload,
    workload,
)
from coexec.ops.node import attributes_of, constant_of, set_type, type_of, version_of
from coexec.ops.table import opdef
from coexec.zoo.catalog import CATALOG

Options = tuple[tuple[str, float], ...]
FREE = frozenset({"Constant", "Identity", "Dropout"})
FUSED = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Sigmoid"})
"""Activations that become a part of what they follow."""
JOINING = frozenset({"Add", "Mul"})
"""What joins another map to the result of the layer in front."""
FUSING = frozenset({"Conv", "ConvTranspose", "Gemm", "Add", "BatchNormalization"})


@cache
def zoo_layers(name: str, options: Options = (), batch: int = 1) -> tuple[Workload, ...]:
    """Layers of a network of the zoo for ``batch`` images, between its input and its output."""
    model = CATALOG[name].builder(batch, CATALOG[name].classes, **dict(options))
    found = [each for each in map(_layer, model.graph) if each is not None]
    source, result = model.graph.inputs[0], model.graph.outputs[0]
    return (_boundary(source, INPUT), *found, _boundary(result, OUTPUT))


@cache
def fused_layers(name: str, options: Options = ()) -> tuple[Workload, ...]:
    """The same as engines run it on CPUs and GPUs, in their own order of images.

    Additions and products of maps are part of what is in front of them, and so are activations; a
    convolution of one pixel is a fully connected layer.
    """
    found: list[Workload] = []
    for layer in zoo_layers(name, options)[1:-1]:
        if layer.family == ELEMENTWISE:
            if layer.op in JOINING and found:
                found[-1] = replace(found[-1], others=found[-1].others + layer.out_elements)
        elif layer.family == CONV and layer.in_elements == layer.in_channels:
            found.append(replace(layer, family=DENSE))
        else:
            found.append(layer)
    return tuple(found)


@cache
def product_layers(name: str, options: Options = (), batch: int = 1) -> tuple[Workload, ...]:
    """Convolutions and products alone, of networks whose other layers take no time worth a row."""
    layers = zoo_layers(name, options, batch)
    return tuple(layer for layer in layers if layer.family in {CONV, DEPTHWISE, GROUPED, DENSE})


def _layer(node: ir.Node) -> Workload | None:
    """What a node computes, once its results are typed; ``None`` if it takes no time of its own."""
    call = typed(node)
    if node.op_type in FREE or opdef(call).view:
        return None
    if _part_of_another(node):
        return replace(workload(call), op=ACTIVATION) if _is_activation(node) else None
    return workload(call)


def typed(node: ir.Node) -> OpCall:
    """The call with its types, which its results have from now on.

    Of operands only constants have values, parameters do not.
    """
    inputs = tuple(None if value is None else type_of(value) for value in node.inputs)
    constants = {
        place: array
        for place, value in enumerate(node.inputs)
        if value is not None and value.producer() is not None
        if (array := constant_of(value)) is not None
    }
    call = OpCall(
        node.op_type,
        inputs,
        attributes_of(node),
        constants=constants,
        domain=node.domain,
        version=version_of(node),
        name=node.name or "",
        output_count=len(node.outputs),
    )
    call = opdef(call).typed(call)
    for value, kind in zip(node.outputs, call.outputs, strict=True):
        if kind is not None:
            set_type(value, kind)
    return call


def _part_of_another(node: ir.Node) -> bool:
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if source is None:
        return False
    if node.op_type in FUSED:
        return source.op_type in FUSING
    if node.op_type == "BatchNormalization":
        return source.op_type in {"Conv", "ConvTranspose"}
    if node.op_type == "Add":
        other = node.inputs[1]
        return source.op_type == "MatMul" and other is not None and other.is_initializer()
    return node.op_type == "Mul" and (_gates_itself(node, source) or _scales(node, source))


def _is_activation(node: ir.Node) -> bool:
    """Whether a part of another layer computes more than maxima, sums and scales."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    gate = node.op_type == "Mul" and source is not None and _gates_itself(node, source)
    return gate or node.op_type in {"PRelu", "HardSwish", "Sigmoid"}


def _gates_itself(node: ir.Node, source: ir.Node) -> bool:
    """x times its own sigmoid, behind a convolution."""
    gate = node.inputs[1].producer() if node.inputs[1] is not None else None
    same = gate is not None and gate.op_type == "Sigmoid" and gate.inputs[0] is node.inputs[0]
    return same and source.op_type in FUSING


def _scales(node: ir.Node, source: ir.Node) -> bool:
    """A product times a number."""
    factor = node.inputs[1]
    return source.op_type == "MatMul" and factor is not None and type_of(factor).size == 1


def _boundary(value: ir.Value, op: str) -> Workload:
    """The image that goes in, or the result that comes out."""
    kind: TensorType = type_of(value)
    channels = kind.shape[1] if kind.rank > 3 else kind.shape[-1]
    pixels = kind.size / max(channels, 1)
    return Workload(
        MOVE,
        0.0,
        kind.size,
        kind.size,
        out_pixels=pixels,
        in_channels=channels,
        out_channels=channels,
        op=op,
    )
