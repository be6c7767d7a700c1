"""The axes along which each operator divides into shares; see :mod:`coexec.ops.split`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from coexec.base.window import Window
from coexec.core.types import Array, OpCall
from coexec.ops.batch_norm import is_training
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.matmul import matmul_sizes
from coexec.ops.pieces import split_axis
from coexec.ops.pool_geometry import PoolGeometry
from coexec.ops.split import CannotSplit, Changes, Way, unchanged

Geometry = ConvGeometry | PoolGeometry
Rule = Callable[[OpCall, int], Way]

_NAMES = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr "
    "BitwiseXor Cast Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater "
    "GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual "
    "Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid "
    "Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor "
    "coexec::GeluGrad"
)
ELEMENTWISE = frozenset(_NAMES.split())
"""Operators whose result at a place depends on their operands there only (broadcast)."""
SEVERAL = frozenset({"Split"})
"""Operators of several results, which divide alike."""


def way(call: OpCall, axis: int) -> Way:
    """How a typed call divides along ``axis`` of its result, or of all of its results.

    Raises:
        CannotSplit: it does not; the message says why.
    """
    used = [kind for kind in call.outputs if kind is not None]
    rule = elementwise if call.identifier in ELEMENTWISE else RULES.get(call.identifier)
    if rule is None:
        raise CannotSplit(f"{call.identifier} has no rule for shares")
    if not call.has_output(0) or (len(used) != 1 and call.identifier not in SEVERAL):
        raise CannotSplit(f"{call.identifier} has {len(used)} results in use, not one")
    shape = call.output(0).shape
    if not 0 <= axis < len(shape):
        raise CannotSplit(f"{call.identifier} has no axis {axis}: its result is {call.output(0)}")
    found = rule(call, axis)
    if found.count < 2:
        raise CannotSplit(f"{call.identifier} has one unit along axis {axis}")
    return found


def elementwise(call: OpCall, axis: int) -> Way:
    """Each operand where the result is; what is broadcast along the axis is read whole."""
    return _plain(call, axis, [_aligned(call, i, axis) for i in range(len(call.inputs))])


def _plain(
    call: OpCall, axis: int, windows: Sequence[Window | None], changes: Changes = unchanged
) -> Way:
    """Units of one element; operands without an entry are read whole."""
    rest = (None,) * (len(call.inputs) - len(windows))
    return Way(axis, call.output(0).shape[axis], (*windows, *rest), changes=changes)


def _along(call: OpCall, operand: int, axis: int) -> Window:
    """The same elements of ``axis`` of an operand as of the result."""
    return Window(axis, call.input(operand).shape[axis])


def _aligned(call: OpCall, operand: int, axis: int) -> Window | None:
    """The axis of a broadcast operand that meets ``axis`` of the result."""
    if not call.has_input(operand):
        return None
    shape = call.input(operand).shape
    return _meets(shape, call.output(0).shape, axis)


def _meets(shape: Sequence[int], result: Sequence[int], axis: int) -> Window | None:
    place = axis - (len(result) - len(shape))
    return None if place < 0 or shape[place] == 1 else Window(place, shape[place])


def _conv(call: OpCall, axis: int) -> Way:
    g = ConvGeometry.of(call)
    if axis == 0:
        return _plain(call, axis, [_along(call, 0, 0)])
    if axis > 1:
        return _rows(call, axis, g)
    each = g.out_channels // g.group if g.group > 1 else 1
    inner = g.in_channels // g.group
    channels = Window(0, g.out_channels, each, reach=each)
    windows = (
        Window(1, g.in_channels, inner, reach=inner) if g.group > 1 else None,
        channels,
        channels if call.has_input(2) else None,
    )[: len(call.inputs)]
    return Way(axis, g.out_channels // each, windows, each, _groups(g.group))


def _groups(group: int) -> Changes:
    """Shares of a grouped convolution are whole groups, as many as units."""
    return (lambda start, stop: {"group": stop - start}) if group > 1 else unchanged


def _reach(g: Geometry) -> tuple[int, ...]:
    return tuple((k - 1) * d + 1 for k, d in zip(g.kernel, g.dilations, strict=True))


def _reached(g: Geometry) -> tuple[int, ...]:
    """Padding that windows reach at each end: more than asked for where ceil_mode rounds up."""
    sizes = zip(g.in_size, g.strides, g.pads_begin, _reach(g), g.out_size, strict=True)
    return tuple(Window(0, n, s, b, r).padding(0, out)[1] for n, s, b, r, out in sizes)


def _rows(call: OpCall, axis: int, g: Geometry) -> Way:
    """Along a spatial axis: each share reads the rows of its windows, with its own padding."""
    spatial = axis - 2
    reach, stride = _reach(g)[spatial], g.strides[spatial]
    window = Window(axis, g.in_size[spatial], stride, g.pads_begin[spatial], reach)
    first, last = window.padding(0, g.out_size[spatial])
    if max(first, last) >= reach or g.pads_begin[spatial] < 0:
        raise CannotSplit(f"{call.identifier} has windows outside its input along axis {axis}")
    reached = _reached(g)

    def changes(start: int, stop: int) -> Mapping[str, Any]:
        begins, ends = list(g.pads_begin), list(reached)
        begins[spatial], ends[spatial] = window.padding(start, stop)
        return {"auto_pad": "NOTSET", "pads": (*begins, *ends)}

    return _plain(call, axis, [window], changes)


def _pool(call: OpCall, axis: int) -> Way:
    if axis < 2:
        return _plain(call, axis, [_along(call, 0, axis)])
    g = PoolGeometry.of(call)
    found = _rows(call, axis, g)
    beyond = any(r > end for r, end in zip(_reached(g), g.pads_end, strict=True))
    if beyond and call.attribute("count_include_pad", 0):
        raise CannotSplit(f"{call.identifier} counts padding, but not what ceil_mode adds to it")

    def changes(start: int, stop: int) -> Mapping[str, Any]:
        return {**found.changes(start, stop), "ceil_mode": 0}

    return _plain(call, axis, found.windows, changes)


def _over_batch_and_channels(call: OpCall, axis: int) -> Way:
    """Operators that mix the spatial elements of a channel."""
    if axis > 1:
        raise CannotSplit(f"{call.identifier} mixes what lies along axis {axis}")
    windows = [_along(call, i, axis) for i in range(len(call.inputs))]
    return _plain(call, axis, windows, _resized(call, "input_shape", axis))


def _resized(call: OpCall, name: str, axis: int) -> Changes:
    """An attribute with a shape, cut along ``axis``; no change where the call has none."""
    shape = call.attribute(name)
    if shape is None:
        return unchanged
    return lambda start, stop: {name: (*shape[:axis], stop - start, *shape[axis + 1 :])}


def _conv_input_grad(call: OpCall, axis: int) -> Way:
    changes = _resized(call, "input_shape", axis)
    if axis == 0:
        return _plain(call, axis, [_along(call, 0, 0)], changes)
    if axis == 1 and call.attribute("group", 1) == 1:
        return _plain(call, axis, [None, _along(call, 1, 1)], changes)
    raise CannotSplit(f"{call.identifier} divides by batch, and by channels without groups")


def _conv_weight_grad(call: OpCall, axis: int) -> Way:
    if axis:
        raise CannotSplit(f"{call.identifier} divides by output channels only")
    g = ConvGeometry.of(call)
    each = g.out_channels // g.group if g.group > 1 else 1
    inner = g.in_channels // g.group
    x = Window(1, g.in_channels, inner, reach=inner) if g.group > 1 else None
    dy = Window(1, g.out_channels, each, reach=each)
    return Way(axis, g.out_channels // each, (x, dy), each, _groups(g.group))


def _gemm(call: OpCall, axis: int) -> Way:
    c = _aligned(call, 2, axis)
    if axis == 0:
        return _plain(call, axis, _gemm_windows(call, _side(call, 0, "transA", 0), None, c))
    return _plain(call, axis, _gemm_windows(call, None, _side(call, 1, "transB", 1), c))


def _gemm_windows(call: OpCall, *windows: Window | None) -> Sequence[Window | None]:
    return windows[: len(call.inputs)]


def _side(call: OpCall, operand: int, flag: str, axis: int) -> Window:
    """Axis of a matrix that meets ``axis`` of the product."""
    return _along(call, operand, 1 - axis if call.attribute(flag, 0) else axis)


def _matmul(call: OpCall, axis: int) -> Way:
    a, b = call.input(0).shape, call.input(1).shape
    batch = matmul_sizes(call)[0]
    if axis < len(batch):
        return _plain(call, axis, [_meets(s[:-2], batch, axis) for s in (a, b)])
    if axis == len(batch) and len(a) > 1:
        return _plain(call, axis, [_along(call, 0, len(a) - 2)])
    return _plain(call, axis, [None, _along(call, 1, len(b) - 1)])


def _batch_norm(call: OpCall, axis: int) -> Way:
    if is_training(call):
        raise CannotSplit("BatchNormalization takes its statistics over all shares in training")
    parameters = [_along(call, i, 0) if axis == 1 else None for i in range(1, 5)]
    return _plain(call, axis, [_along(call, 0, axis), *parameters])


def _instance_norm(call: OpCall, axis: int) -> Way:
    if axis > 1:
        raise CannotSplit(f"{call.identifier} mixes what lies along axis {axis}")
    parameters = [_along(call, i, 0) if axis == 1 else None for i in (1, 2)]
    return _plain(call, axis, [_along(call, 0, axis), *parameters])


def _layer_norm(call: OpCall, axis: int) -> Way:
    first = int(call.attribute("axis", -1)) % call.input(0).rank
    if axis >= first:
        raise CannotSplit(f"{call.identifier} mixes what lies along axis {axis}")
    return elementwise(call, axis)


def _softmax(call: OpCall, axis: int) -> Way:
    old = 0 < call.version < 13  # then all axes from the named one on are one
    named = int(call.attribute("axis", 1 if old else -1)) % call.input(0).rank
    if axis == named or (old and axis > named):
        raise CannotSplit(f"{call.identifier} mixes what lies along axis {axis}")
    return elementwise(call, axis)


def _all_but_channels(call: OpCall, axis: int) -> Way:
    if axis == 1:
        raise CannotSplit(f"{call.identifier} mixes channels")
    return _plain(call, axis, [_along(call, 0, axis)])


def _conversion(call: OpCall, axis: int) -> Way:
    """Changes between floats and integers: scales and zero points of an axis are cut with it."""
    x, scale = call.input(0), call.input(1)
    if scale.rank > 1:
        raise CannotSplit(f"{call.identifier} has scales of blocks")
    one = scale.size == 1 or int(call.attribute("axis", 1)) % x.rank != axis
    steps = [None if one else _along(call, i, 0) for i in range(1, len(call.inputs))]
    return _plain(call, axis, [_along(call, 0, axis), *steps])


def _concat(call: OpCall, axis: int) -> Way:
    if axis == int(call.attributes["axis"]) % call.output(0).rank:
        raise CannotSplit("Concat is not divided along its own axis")
    return elementwise(call, axis)


def transposed(call: OpCall) -> Sequence[int]:
    """By axis of a Transpose's result, the axis of its operand."""
    rank = call.input(0).rank
    return tuple(map(int, call.attribute("perm") or reversed(range(rank))))


def _transpose(call: OpCall, axis: int) -> Way:
    return _plain(call, axis, [_along(call, 0, transposed(call)[axis])])


def _split(call: OpCall, axis: int) -> Way:
    if axis == split_axis(call):
        raise CannotSplit("Split is not divided along its own axis")
    return _plain(call, axis, [_along(call, 0, axis)])


def _view(call: OpCall, axis: int) -> Way:
    """Shares are runs of an axis of the operand that starts where ``axis`` does.

    Its elements lie within those of the result, or the other way round.
    """
    source, size = call.input(0).shape, call.output(0).shape[axis]
    before = prod(call.output(0).shape[:axis])
    starts = (i for i, n in enumerate(source) if n > 1 and prod(source[:i]) == before)
    place = next(starts, None)
    if place is None or size < 2 or max(size, source[place]) % min(size, source[place]):
        raise CannotSplit(f"{call.identifier} has other runs along axis {axis} than its operand")
    extent = source[place]
    each, step = max(size // extent, 1), max(extent // size, 1)
    rest = (None,) * (len(call.inputs) - 1)
    windows = (Window(place, extent, step, reach=step), *rest)
    return Way(axis, min(size, extent), windows, each)


def _reshape(call: OpCall, axis: int) -> Way:
    found = _view(call, axis)
    shape = call.output(0).shape

    def operands(start: int, stop: int) -> Mapping[int, Array]:
        size = (stop - start) * found.quantum
        return {1: np.array((*shape[:axis], size, *shape[axis + 1 :]), np.int64)}

    return replace(found, operands=operands)


def _squeeze(call: OpCall, axis: int) -> Way:
    if not call.has_input(1):
        raise CannotSplit(f"{call.identifier} without axes would remove that of a share of one")
    return _view(call, axis)


RULES: Mapping[str, Rule] = {
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _conversion,
    "Flatten": _view,
    "Gemm": _gemm,
    "GlobalAveragePool": _over_batch_and_channels,
    "GlobalLpPool": _over_batch_and_channels,
    "GlobalMaxPool": _over_batch_and_channels,
    "Hardmax": _softmax,
    "InstanceNormalization": _instance_norm,
    "LRN": _all_but_channels,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "LpPool": _pool,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "QuantizeLinear": _conversion,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _view,
    "coexec::AveragePoolGrad": _over_batch_and_channels,
    "coexec::ConvInputGrad": _conv_input_grad,
    "coexec::ConvWeightGrad": _conv_weight_grad,
    "coexec::MaxPoolGrad": _over_batch_and_channels,
}
