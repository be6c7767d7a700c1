"""Maximum pooling keeps one byte for each window instead of its operand.

The gradient needs to know which element of a window was the largest: ``MaxPoolTaps`` notes it in
the forward pass. Where a Relu stands in front whose gradient follows the pooling's, the two masks
are one: a window whose maximum is not above 0 passes nothing. Windows other than 2 x 2 tiles keep
their operand: kernels that go by the taps of those are slower than kernels that look again.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.elementwise import is_float
from coexec.ops.node import call_of, constant_of, type_of
from coexec.ops.opdef import COEXEC
from coexec.ops.pool import window_attributes
from coexec.ops.pool_geometry import PoolGeometry
from coexec.passes.insert import Inserter, New, replace_node
from coexec.passes.kept import FORWARD, phase_of


def pool_taps(graph: ir.Graph) -> int:
    """Let gradients of maximum pooling go by taps; in place. Returns how many do.

    Results are the same bit by bit.
    """
    inserter = Inserter(graph)
    found = [
        (node, forward)
        for node in graph
        if (node.domain, node.op_type) == (COEXEC, "MaxPoolGrad")
        and (forward := _forward_of(node)) is not None
    ]
    for gradient, forward in found:
        _rewrite(inserter, gradient, forward)
    return len(found)


def _forward_of(gradient: ir.Node) -> ir.Node | None:
    """The pooling that a gradient belongs to, if its maxima are all that it gives."""
    call = call_of(gradient)
    geometry = PoolGeometry.of(call)
    x = gradient.inputs[0]
    assert x is not None
    if not _is_tiled(geometry) or not is_float(call.input(0).dtype):
        return None
    for node, _ in x.uses():
        if node.op_type == "MaxPool" and not node.domain and phase_of(node) == FORWARD:
            own = call_of(node)
            same = PoolGeometry.of(own) == geometry
            if same and window_attributes(own, geometry) == window_attributes(call, geometry):
                return node if own.output_count == 1 else None
    return None


def _is_tiled(g: PoolGeometry) -> bool:
    """Whether windows are the 2 x 2 tiles of a plane."""
    halves = tuple(n // 2 for n in g.in_size)
    return g.kernel == g.strides == (2, 2) and g.out_size == halves and not any(g.pads_begin)


def _rewrite(inserter: Inserter, gradient: ir.Node, forward: ir.Node) -> None:
    x, dy = gradient.inputs
    assert x is not None
    call = call_of(gradient)
    window = window_attributes(call, PoolGeometry.of(call))
    mask = _relu_gradient(gradient)
    attributes = {**window, "positive": int(mask is not None)}
    y, taps = inserter.behind(forward, New("MaxPoolTaps", [x], attributes, outputs=2))
    replace_node(inserter.graph, forward, [y])
    shape = {"input_shape": type_of(x).shape}
    (dx,) = inserter.before(gradient, New("MaxPoolTapsGrad", [taps, dy], {**window, **shape}))
    if mask is not None:
        replace_node(inserter.graph, mask, [dx])
    replace_node(inserter.graph, gradient, [dx])


def _relu_gradient(gradient: ir.Node) -> ir.Node | None:
    """The node ``Where(x > 0, dx, 0)`` that alone reads the gradient of a pooled ``x``."""
    uses = list(gradient.outputs[0].uses())
    if len(uses) != 1 or uses[0][1] != 1:
        return None
    node = uses[0][0]
    if node.op_type != "Where" or node.domain or not _is_zero(node.inputs[2]):
        return None
    test = None if node.inputs[0] is None else node.inputs[0].producer()
    if test is None or test.op_type != "Greater" or test.domain:
        return None
    tests_x = test.inputs[0] is gradient.inputs[0] and _is_zero(test.inputs[1])
    same_shape = type_of(node.outputs[0]).shape == type_of(gradient.outputs[0]).shape
    return node if tests_x and same_shape else None


def _is_zero(value: ir.Value | None) -> bool:
    constant = None if value is None else constant_of(value)
    return constant is not None and constant.size == 1 and float(constant.reshape(())) == 0
