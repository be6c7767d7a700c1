"""Gradients of some output channels alone: a slice of a gradient, moved in front of its product.

``dW[a:b]`` of a convolution needs ``dY[:, a:b]`` and nothing else, so that is what is cut out; the
nodes that compute the whole gradient go away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from coexec.autodiff.selection import Channels
from coexec.ops.builder import SOURCE, GraphBuilder
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.node import attributes_of, call_of, constant_of, type_of
from coexec.ops.opdef import COEXEC

Rule = Callable[[GraphBuilder, ir.Node, Channels], ir.Value | None]


def narrow_gradient(g: GraphBuilder, gradient: ir.Value, channels: Channels) -> ir.Value:
    """``gradient`` of these channels alone; what only the rest needs leaves the graph."""
    narrowed = _narrow(g, gradient, channels)
    _remove_dead(g.graph, gradient.producer())
    return narrowed


def cut(g: GraphBuilder, value: ir.Value, channels: Channels) -> ir.Value:
    """A Slice of ``value``."""
    bounds = (channels.begin, channels.end, channels.axis)
    return g.op("Slice", [value, *(g.constant(np.array([b], np.int64), "int64") for b in bounds)])


def joined(g: GraphBuilder, whole: ir.Value, part: ir.Value, channels: Channels) -> ir.Value:
    """``whole`` with these channels replaced by ``part``."""
    axis, size = channels.axis, type_of(whole).shape[channels.axis]
    pieces = [part]
    if channels.begin:
        pieces.insert(0, cut(g, whole, Channels(axis, 0, channels.begin)))
    if channels.end < size:
        pieces.append(cut(g, whole, Channels(axis, channels.end, size)))
    return g.op("Concat", pieces, {"axis": axis}) if len(pieces) > 1 else part


def _narrow(g: GraphBuilder, value: ir.Value, channels: Channels) -> ir.Value:
    node = value.producer()
    if node is not None:
        g.source = node.metadata_props.get(SOURCE, "")
        rule = RULES.get(call_of(node).identifier)
        found = rule(g, node, channels) if rule is not None else None
        if found is not None:
            return found
    return cut(g, value, channels)


def _operand(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None  # the operators of RULES have none that may be absent here
    return value


def _again(g: GraphBuilder, node: ir.Node, operands: list[ir.Value], **changed: object) -> ir.Value:
    """The node's operator on other operands."""
    return g.op(node.op_type, operands, attributes_of(node) | changed, domain=node.domain)


def _weight_gradient(g: GraphBuilder, node: ir.Node, channels: Channels) -> ir.Value | None:
    """Channels of dY; with groups also the channels of X that they read."""
    x, dy = _operand(node, 0), _operand(node, 1)
    geometry = ConvGeometry.of(call_of(node))
    begin, end, group = channels.begin, channels.end, geometry.group
    if channels.axis == 1 and group == 1:  # a transposed convolution: X and dY change roles
        return _again(g, node, [cut(g, x, Channels(1, begin, end)), dy])
    if channels.axis != 0:
        return None
    if group > 1:
        outputs, inputs = geometry.out_channels // group, geometry.in_channels // group
        first, last = begin // outputs, -(-end // outputs)
        if (begin % outputs or end % outputs) and last - first > 1:
            return None
        x, group = cut(g, x, Channels(1, first * inputs, last * inputs)), last - first
    return _again(g, node, [x, cut(g, dy, Channels(1, begin, end))], group=group)


def _product(g: GraphBuilder, node: ir.Node, channels: Channels) -> ir.Value | None:
    """Rows of the left or columns of the right operand."""
    a, b = _operand(node, 0), _operand(node, 1)
    ranks = {type_of(v).rank for v in (a, b, node.outputs[0])}
    if len(ranks) > 1 or len(node.inputs) > 2:
        return None
    rank, attributes = ranks.pop(), attributes_of(node)
    of_left = channels.axis == rank - 2
    if not of_left and channels.axis != rank - 1:
        return None
    transposed = bool(attributes.get("transA" if of_left else "transB", 0))
    axis = rank - 2 if of_left != transposed else rank - 1
    where = Channels(axis, channels.begin, channels.end)
    return _again(g, node, [cut(g, a, where), b] if of_left else [a, cut(g, b, where)])


def _elementwise(g: GraphBuilder, node: ir.Node, channels: Channels) -> ir.Value | None:
    """Each operand that has the channels, if nobody else reads it; numbers stay."""
    shape = type_of(node.outputs[0]).shape
    operands = []
    for value in node.inputs:
        assert value is not None
        kind = type_of(value)
        if kind.shape == shape:
            alone = len(value.uses()) == 1
            operands.append(_narrow(g, value, channels) if alone else cut(g, value, channels))
        elif kind.size == 1:
            operands.append(value)
        else:
            return None
    return _again(g, node, operands)


def _sum(g: GraphBuilder, node: ir.Node, channels: Channels) -> ir.Value | None:
    """A sum over other axes: the same sum of the channels."""
    value = _operand(node, 0)
    axes = constant_of(_operand(node, 1)) if len(node.inputs) > 1 else None
    if axes is None:
        return None
    rank = type_of(value).rank
    summed = {int(axis) % rank for axis in axes.reshape(-1)}
    axis = channels.axis
    if not attributes_of(node).get("keepdims", 1):
        axis = [i for i in range(rank) if i not in summed][axis]
    if axis in summed:
        return None
    part = cut(g, value, Channels(axis, channels.begin, channels.end))
    return _again(g, node, [part, _operand(node, 1)])


def _reshape(g: GraphBuilder, node: ir.Node, channels: Channels) -> ir.Value | None:
    """Axes of size 1 that come or go."""
    value = _operand(node, 0)
    old, new = type_of(value).shape, type_of(node.outputs[0]).shape
    if [d for d in old if d != 1] != [d for d in new if d != 1] or new[channels.axis] == 1:
        return None
    position = sum(d != 1 for d in new[: channels.axis])
    axis = [i for i, d in enumerate(old) if d != 1][position]
    where = Channels(axis, channels.begin, channels.end)
    alone = len(value.uses()) == 1
    part = _narrow(g, value, where) if alone else cut(g, value, where)
    count = channels.end - channels.begin
    shape = [count if i == channels.axis else d for i, d in enumerate(new)]
    return g.op("Reshape", [part, g.constant(np.array(shape, np.int64), "int64")])


RULES: dict[str, Rule] = {
    f"{COEXEC}::ConvWeightGrad": _weight_gradient,
    "Gemm": _product,
    "MatMul": _product,
    "Add": _elementwise,
    "Mul": _elementwise,
    "Cast": _elementwise,
    "ReduceSum": _sum,
    "Reshape": _reshape,
}
"""How a slice passes what computes gradients of parameters; others are computed, then cut."""


def _remove_dead(graph: ir.Graph, node: ir.Node | None) -> None:
    """Remove a node that nobody reads, and what only it read."""
    if node is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
        return
    producers = [value.producer() for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for producer in dict.fromkeys(producers):
        _remove_dead(graph, producer)


def trained_shape(shape: tuple[int, ...], channels: Channels | None) -> tuple[int, ...]:
    """Shape of what is trained of a parameter."""
    if channels is None:
        return shape
    count = channels.end - channels.begin
    return (*shape[: channels.axis], count, *shape[channels.axis + 1 :])
