"""Operators that put a border around a tensor or take one off: Pad, CenterCropPad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import int64s, known_ints, normalize_axes, reshape_to
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample

Border = tuple[int, int]
"""Elements added before and after a dimension; negative ones are taken off."""

_NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def pad_mode(call: OpCall) -> str:
    mode = str(call.attribute("mode", "constant"))
    if mode not in _NUMPY_MODES:
        raise ValueError(f"Pad: unknown mode {mode!r}; known: {', '.join(_NUMPY_MODES)}")
    return mode


def borders(call: OpCall) -> tuple[Border, ...]:
    """The border of every dimension of a Pad.

    Raises:
        ValueError: ``pads`` and ``axes`` do not fit, or more is taken off than there is.
    """
    data, pads = call.input(0), known_ints(call, 1, "pads")
    given = known_ints(call, 3, "axes") if call.has_input(3) else tuple(range(data.rank))
    axes = normalize_axes(given, data.rank)
    if len(pads) != 2 * len(axes):
        raise ValueError(f"Pad of {data}: pads {pads} are not two per axis of {axes}")
    result = [(0, 0)] * data.rank
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        kept = data.shape[axis] + min(before, 0) + min(after, 0)
        if kept < 0:
            raise ValueError(f"Pad of {data}: {before}, {after} take off more than axis {axis} has")
        if kept == 0 and max(before, after) > 0 and pad_mode(call) != "constant":
            raise ValueError(f"Pad of {data} along {axis}: {pad_mode(call)} of no element")
        result[axis] = (before, after)
    return tuple(result)


def infer_pad(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    pad_mode(call)
    if call.has_input(2) and (call.input(2).size, call.input(2).dtype) != (1, data.dtype):
        raise ValueError(f"Pad of {data}: constant_value is {call.input(2)}")
    shape = (d + sum(border) for d, border in zip(data.shape, borders(call), strict=True))
    return (data.with_shape(tuple(shape)),)


def _padded(data: Array, around: Sequence[Border], mode: str, value: Any) -> Array:
    """Take negative borders off, then add the positive ones by NumPy's rule of the same name."""
    kept = tuple(
        slice(max(-before, 0), size - max(-after, 0))
        for size, (before, after) in zip(data.shape, around, strict=True)
    )
    widths = [(max(before, 0), max(after, 0)) for before, after in around]
    if mode == "constant":
        return np.pad(data[kept], widths, "constant", constant_values=value)
    return np.pad(data[kept], widths, mode)  # type: ignore[call-overload, no-any-return]


def pad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    data = operands[0]
    value = np.reshape(operands[2], ()) if call.has_input(2) else data.dtype.type(0)
    if data.ndim == 0:
        return (data.copy(),)
    return (_padded(data, borders(call), pad_mode(call), value),)


def _flipped(around: Sequence[Border]) -> list[int]:
    """``pads`` that undo borders: what was added comes off, what came off is added as zeros."""
    return [-before for before, _ in around] + [-after for _, after in around]


def pad_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    if pad_mode(g.call) != "constant":
        return (_mirrored_gradient(g), *(None for _ in g.inputs[1:]))
    back = g.op("Pad", [g.grad(), g.constant(int64s(_flipped(borders(g.call))), "int64")])
    value = None
    if len(g.wanted) > 2 and g.wanted[2]:
        # The value is everywhere where the data is not.
        sums = [g.op("ReduceSum", [part], {"keepdims": 0}) for part in (g.grad(), back)]
        value = reshape_to(g, g.op("Sub", sums), g.call.input(2).shape)
    return (back, None, value, None)[: len(g.inputs)]


def _mirrored_gradient(g: GradientScope) -> ir.Value:
    """Reflect, edge and wrap read each element by index, axis by axis: add back by that index."""
    shape, mode, grad = list(g.call.output(0).shape), pad_mode(g.call), g.grad()
    for axis, (size, border) in enumerate(zip(g.call.input(0).shape, borders(g.call), strict=True)):
        if border != (0, 0):
            source = _padded(np.arange(size), [border], mode, 0)
            shape[axis] = size
            attributes = {"axis": axis, "shape": tuple(shape)}
            indices = g.constant(source, "int64")
            grad = g.op("GatherGrad", [indices, grad], attributes, domain=COEXEC)
    return grad


def centered_borders(call: OpCall) -> tuple[Border, ...]:
    """The border of every dimension of a CenterCropPad; an odd element goes behind."""
    data, target = call.input(0), known_ints(call, 1, "shape")
    axes = normalize_axes(call.attribute("axes", range(data.rank)), data.rank)
    if len(target) != len(axes) or min(target, default=0) < 0:
        raise ValueError(f"CenterCropPad of {data} along {axes} to {target}")
    result = [(0, 0)] * data.rank
    for axis, size in zip(axes, target, strict=True):
        more = size - data.shape[axis]
        before = more // 2 if more >= 0 else -(-more // 2)
        result[axis] = (before, more - before)
    return tuple(result)


def infer_center_crop_pad(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    shape = (d + sum(b) for d, b in zip(data.shape, centered_borders(call), strict=True))
    return (data.with_shape(tuple(shape)),)


def center_crop_pad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    data = operands[0]
    return (_padded(data, centered_borders(call), "constant", data.dtype.type(0)),)


def center_crop_pad_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    pads = int64s(_flipped(centered_borders(g.call)))
    return (g.op("Pad", [g.grad(), g.constant(pads, "int64")]), None)


_FRAME = int64s((0, 2, 1, 3, 0, 1))

OPS = (
    OpDef(
        "Pad",
        infer_pad,
        pad,
        gradient=pad_gradient,
        examples=(
            Example((Sample((2, 3)), int64s((1, 2, 0, 3)))),
            Example((Sample((2, 3, 4)), _FRAME, Sample(()))),
            Example((Sample((2, 4, 5)), int64s((1, -1, -2, 2)), None, int64s((-1, 1)))),
            Example((Sample((4, 5)), int64s((-1, -2, -1, -1)), Sample((1,)))),
            Example((Sample((3, 5)), int64s((1, 2, 2, 4))), {"mode": "reflect"}),
            Example((Sample((2, 3)), int64s((0, 5, 0, 7))), {"mode": "reflect"}),
            Example((Sample((2, 4, 3)), _FRAME), {"mode": "edge"}),
            Example((Sample((3, 4)), int64s((2, 1, 1, 9))), {"mode": "wrap"}),
            Example((Sample((3, 6)), int64s((1, -2, 1, 3))), {"mode": "reflect"}),
            Example((Sample((1, 3)), int64s((2, 0, 1, 0))), {"mode": "reflect"}),
            Example((Sample((2, 3, 9, 9)), int64s((0, 0, 1, 1, 0, 0, 1, 1)))),
            Example((Sample((0, 3)), int64s((1, 0, 1, 0))), gradient=False),
            Example(
                (Sample((2, 3), "int64", 0, 9), int64s((0, 1, 0, 1)), Sample((), "int64", 1, 9)),
                gradient=False,
            ),
        ),
        value_inputs=(1, 3),
    ),
    OpDef(
        "CenterCropPad",
        infer_center_crop_pad,
        center_crop_pad,
        gradient=center_crop_pad_gradient,
        examples=(
            Example((Sample((5, 8)), int64s((8, 5)))),
            Example((Sample((3, 7, 2)), int64s((4, 3))), {"axes": (1, -1)}),
            Example((Sample((6, 3)), int64s((3, 3)))),
        ),
        value_inputs=(1,),
    ),
)
