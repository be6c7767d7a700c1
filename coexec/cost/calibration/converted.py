"""Layers of a graph as TensorFlow Lite's converter leaves them, for files like ``e2e_tflite.csv``.

Rows of ``gpu_ops_tflite.csv`` of one network are these layers one by one. They list convolutions,
products, pools, means and joined channels; what else a network has is part of their time. Where the
converter leaves the zeros around a map as an operator of its own, the map counts with them. On a
CPU sums, products and zeros are operators of their own (:func:`converted_operators`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod

import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.cost.calibration.single_layers import dense
from coexec.cost.calibration.zoo_networks import typed
from coexec.cost.soc.workload import (
    DENSE,
    DEPTHWISE,
    ELEMENTWISE,
    MOVE,
    POOL,
    REDUCE,
    Workload,
    workload,
)
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.node import type_of

PASSING = frozenset({"Dropout", "Identity"})
ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Sigmoid"})
JOINING = frozenset({"Add", "Mul"})
WITH_CONSTANTS = frozenset({"BatchNormalization", "HardSigmoid"})
"""What becomes products and sums with constants."""


def converted_layers(
    model: ir.Model, *, padded: bool = False, pooled: bool = False
) -> tuple[Workload, ...]:
    """Layers of a model whose input has a size, in order.

    Zeros stand in front of depthwise convolutions and, if ``padded``, of all others; the last mean
    over pixels is an average pool if ``pooled``.
    """
    calls = {node: typed(node) for node in model.graph}
    places = {node: place for place, node in enumerate(calls)}
    found = []
    for node, call in calls.items():
        layer = _layer(call, padded)
        if layer is not None:
            joined = _joins(node, places)
            found.append(replace(layer, others=layer.out_elements) if joined else layer)
    return tuple(_pooled(found) if pooled else found)


def converted_operators(
    model: ir.Model, *, padded: bool = False, pooled: bool = False
) -> tuple[Workload, ...]:
    """The same as a CPU runs them, one operator after the other.

    Sums and products of maps, normalisation that stands behind no convolution, and zeros around
    maps are operators beside the layers; activations count as parts of what is in front of them.
    """
    found: list[Workload] = []
    for node in model.graph:
        call = typed(node)
        layer = _layer(call, padded)
        if layer is None:
            found += _elementwise(node, call)
        else:
            found += [*_zeros(call, layer), layer]
    return tuple(_pooled(found) if pooled else found)


def _elementwise(node: ir.Node, call: OpCall) -> list[Workload]:
    """Sums and products, of two maps or with constants; none for all else."""
    if call.op_type in JOINING:
        return [_summed(call, sum(kind.size for kind in call.inputs if kind is not None))]
    if call.op_type in WITH_CONSTANTS and not _folded(node):
        return [_summed(call, call.input(0).size)] * 2
    return []


def _summed(call: OpCall, elements: int) -> Workload:
    out = call.output(0).size
    return Workload(ELEMENTWISE, out, elements, out, out_pixels=out)


def _folded(node: ir.Node) -> bool:
    """Whether this is normalisation that becomes a part of a convolution's weights."""
    value = node.inputs[0]
    if value is None or node.op_type != "BatchNormalization" or len(value.uses()) > 1:
        return False
    source = value.producer()
    return source is not None and source.op_type == "Conv"


def _zeros(call: OpCall, layer: Workload) -> list[Workload]:
    """What surrounds a map by zeros in front of a convolution, if anything does."""
    plain = call.input(0).size
    if call.op_type != "Conv" or layer.in_elements <= plain:
        return []
    return [Workload(MOVE, 0.0, plain, layer.in_elements, out_pixels=layer.in_elements)]


def _layer(call: OpCall, padded: bool) -> Workload | None:
    make = _MAKERS.get(call.op_type)
    return None if make is None else make(call, padded)


def _convolution(call: OpCall, padded: bool) -> Workload:
    g, layer = ConvGeometry.of(call), replace(workload(call), op="")
    if prod(g.in_size) == prod(g.out_size) == 1:
        return replace(layer, family=DENSE)
    if not padded and layer.family != DEPTHWISE:
        return layer
    sides = zip(g.in_size, g.pads_begin, g.pads_end, strict=True)
    return replace(layer, in_elements=g.batch * g.in_channels * prod(map(sum, sides)))


def _product(call: OpCall, _: bool) -> Workload:
    weights = call.input(1).shape
    return dense(1, *sorted(weights, key=lambda size: size != call.input(0).shape[-1]))


def _mean(call: OpCall, _: bool) -> Workload:
    return _streamed(REDUCE, call, call.input(0).size)


def _pool(call: OpCall, _: bool) -> Workload:
    """Windows that would reach beyond the last pixel have zeros to reach into."""
    kernel, stride = call.attribute("kernel_shape")[0], call.attribute("strides")[0]
    family = POOL if call.op_type == "MaxPool" else REDUCE
    layer = _streamed(family, call, call.output(0).size * kernel**2)
    layer = replace(layer, kernel=kernel, stride=stride)
    side = call.input(0).shape[-1]
    if call.attribute("ceil_mode") and (side - kernel) % stride:
        channels = call.input(0).shape[1]
        return replace(layer, in_elements=channels * (side + 2) ** 2)
    return layer


def _concatenation(call: OpCall, _: bool) -> Workload:
    layer = _streamed(MOVE, call, 0)
    channels = call.output(0).shape[1]
    return replace(layer, kernel=len(call.inputs), out_channels=channels)


def _moved(call: OpCall, _: bool) -> Workload:
    """What turns, cuts or pads maps; views move nothing."""
    return _streamed(MOVE, call, 0)


def _streamed(family: str, call: OpCall, flop: float) -> Workload:
    """What does a few operations on each element; channels are those of the first operand.

    All axes but the last two, which are pixels, count as channels.
    """
    source, result = call.input(0), call.outputs
    out = sum(kind.size for kind in result if kind is not None)
    channels = source.size // prod(source.shape[-2:])
    first = result[0]
    pixels = prod(first.shape[-2:]) if first is not None else 1
    return Workload(
        family=family,
        flop=flop,
        in_elements=source.size,
        out_elements=out,
        out_pixels=pixels,
        in_channels=channels,
        out_channels=channels,
    )


_MAKERS: Mapping[str, Callable[[OpCall, bool], Workload]] = {
    "Conv": _convolution,
    "Gemm": _product,
    "GlobalAveragePool": _mean,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Concat": _concatenation,
    "Transpose": _moved,
    "Split": _moved,
    "Pad": _moved,
    "Resize": _moved,
}


def _pooled(layers: list[Workload]) -> list[Workload]:
    """The last mean as a pool with a window of all pixels."""
    last = max(place for place, layer in enumerate(layers) if layer.family == REDUCE)
    side = (layers[last].in_elements / layers[last].in_channels) ** 0.5
    return [
        replace(layer, kernel=side) if place == last else layer
        for place, layer in enumerate(layers)
    ]


def _joins(node: ir.Node, places: Mapping[ir.Node, int]) -> bool:
    """Whether its kernel also adds, or multiplies by, something.

    An engine goes on in the same kernel while only one operator reads the result, element by
    element, and all else that it reads is there.
    """
    return any(
        user.op_type in JOINING
        or user.op_type == "HardSigmoid"
        or (user.op_type == "BatchNormalization" and not folded)
        for user, folded in _linked(node, places)
    )


def _linked(node: ir.Node, places: Mapping[ir.Node, int]) -> Iterator[tuple[ir.Node, bool]]:
    """Operators that run in the kernel of ``node``, with whether they stand right behind it.

    Normalisation right behind a convolution becomes a part of its weights.
    """
    value, behind = node.outputs[0], node.op_type == "Conv"
    while len(value.uses()) == 1:
        user = next(iter(value.uses())).node
        if user.op_type not in PASSING | ACTIVATIONS | JOINING | WITH_CONSTANTS:
            return
        made = [each.producer() for each in user.inputs if each is not None and each is not value]
        ready = all(
            each is None or each.op_type == "Constant" or places[each] < places[node]
            for each in made
        )
        if not ready or type_of(user.outputs[0]).shape != type_of(value).shape:
            return
        yield user, behind
        value, behind = user.outputs[0], False
