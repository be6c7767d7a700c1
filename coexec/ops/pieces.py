"""Operators that join tensors or take them apart: Concat, Split, Slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import int64s, known_ints, normalize_axes, normalize_axis
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample


def concat_axis(call: OpCall) -> int:
    """``axis`` of a Concat counted from the front."""
    return normalize_axis(int(call.attributes["axis"]), call.input(0).rank)


def runs_of_concat(call: OpCall) -> tuple[int, ...]:
    """Where operands begin in the result, in bytes, if they lie there one behind the other.

    Empty where they do not: an axis in front of the joined one has several elements.
    """
    result, axis = call.output(0), concat_axis(call)
    sizes = [kind.nbytes for kind in call.inputs if kind is not None]
    if prod(result.shape[:axis]) != 1 or min(sizes) == 0:
        return ()
    return (*accumulate(sizes[:-1], initial=0),)


def infer_concat(call: OpCall) -> Sequence[TensorType]:
    axis, first = concat_axis(call), call.input(0)
    parts = [call.input(i) for i in range(len(call.inputs))]
    for part in parts:
        others = (part.shape[:axis], part.shape[axis + 1 :])
        if others != (first.shape[:axis], first.shape[axis + 1 :]) or part.dtype != first.dtype:
            raise ValueError(f"Concat along axis {axis}: {part} does not fit {first}")
    total = sum(part.shape[axis] for part in parts)
    return (first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :])),)


def concat(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.concatenate(operands, axis=concat_axis(call)),)


def concat_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    axis = concat_axis(g.call)
    sizes = [g.call.input(i).shape[axis] for i in range(len(g.inputs))]
    if len(sizes) == 1:
        return (g.grad(),)
    split = g.constant(int64s(sizes), "int64")
    return g.ops("Split", [g.grad(), split], {"axis": axis}, outputs=len(sizes))


def split_axis(call: OpCall) -> int:
    """``axis`` of a Split counted from the front."""
    return normalize_axis(int(call.attribute("axis", 0)), call.input(0).rank)


def split_sizes(call: OpCall) -> tuple[int, ...]:
    """Sizes of the parts along the axis: given, or equal with a smaller last one.

    Raises:
        ValueError: the sizes do not add up.
    """
    total = call.input(0).shape[split_axis(call)]
    if call.has_input(1):
        sizes = known_ints(call, 1, "split")
    else:
        count = int(call.attribute("num_outputs", call.output_count))
        chunk = -(-total // count)
        sizes = tuple(min(chunk, total - chunk * i) for i in range(count))
    if sum(sizes) != total or min(sizes, default=0) < 0:
        raise ValueError(f"Split of {call.input(0)} into {sizes} along axis {split_axis(call)}")
    return sizes


def infer_split(call: OpCall) -> Sequence[TensorType]:
    data, axis, sizes = call.input(0), split_axis(call), split_sizes(call)
    if len(sizes) != call.output_count:
        raise ValueError(f"Split into {len(sizes)} parts has {call.output_count} outputs")
    head, tail = data.shape[:axis], data.shape[axis + 1 :]
    return tuple(data.with_shape((*head, size, *tail)) for size in sizes)


def split(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    borders = np.cumsum(split_sizes(call))[:-1]
    return tuple(np.split(operands[0], borders, axis=split_axis(call)))


def split_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    parts = [g.grad(i) for i in range(len(g.outputs))]
    joined = g.op("Concat", parts, {"axis": split_axis(g.call)}) if len(parts) > 1 else parts[0]
    return (joined, *(None for _ in g.inputs[1:]))


@dataclass(frozen=True)
class Cut:
    """What a Slice takes of one dimension: ``count`` elements start, start + step, ..."""

    start: int
    step: int
    count: int


def cuts(call: OpCall) -> tuple[Cut, ...]:
    """One cut per dimension of a Slice, clamped as ONNX (and Python) clamps.

    Raises:
        ValueError: operands of different lengths, an axis out of range or a step of 0.
    """
    data = call.input(0)
    starts, ends = known_ints(call, 1, "starts"), known_ints(call, 2, "ends")
    axes = known_ints(call, 3, "axes") if call.has_input(3) else tuple(range(len(starts)))
    steps = known_ints(call, 4, "steps") if call.has_input(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError(f"Slice: starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    result = [Cut(0, 1, d) for d in data.shape]
    for axis, start, end, step in zip(
        normalize_axes(axes, data.rank), starts, ends, steps, strict=True
    ):
        bounds = slice(start, end, step).indices(data.shape[axis])
        count = len(range(*bounds))
        # An empty cut may start behind the last element: 0 keeps every address inside.
        result[axis] = Cut(bounds[0] if count else 0, step, count)
    return tuple(result)


def infer_slice(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(tuple(cut.count for cut in cuts(call))),)


def slice_(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """NumPy's own slicing of the raw operands, so that it checks :func:`cuts`."""
    data, starts, ends = operands[:3]
    axes = operands[3] if call.has_input(3) else range(len(starts))
    steps = operands[4] if call.has_input(4) else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(int(start), int(end), int(step))
    return (data[tuple(index)].copy(),)


def slice_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Zeros around (Pad), and between where steps are not 1 (coexec::SliceGrad)."""
    shape, parts = g.call.input(0).shape, cuts(g.call)
    if all(cut.step == 1 or cut.count == 1 for cut in parts):
        after = [d - c.start - c.count for d, c in zip(shape, parts, strict=True)]
        pads = g.constant(int64s([*(c.start for c in parts), *after]), "int64")
        back = g.op("Pad", [g.grad(), pads])
    else:
        attributes = {
            "shape": shape,
            "starts": tuple(c.start for c in parts),
            "steps": tuple(c.step for c in parts),
        }
        back = g.op("SliceGrad", [g.grad()], attributes, domain=COEXEC)
    return (back, *(None for _ in g.inputs[1:]))


def scattered_cuts(call: OpCall) -> tuple[Cut, ...]:
    """The cuts of the Slice that a coexec::SliceGrad belongs to.

    Raises:
        ValueError: the attributes do not fit the operand, or a cut leaves the shape.
    """
    grad, shape = call.input(0), call.attributes["shape"]
    starts, steps = call.attributes["starts"], call.attributes["steps"]
    if not len(shape) == len(starts) == len(steps) == grad.rank:
        raise ValueError(f"SliceGrad of {grad}: shape {shape}, starts {starts}, steps {steps}")
    result = tuple(Cut(*c) for c in zip(starts, steps, grad.shape, strict=True))
    for cut, size in zip(result, shape, strict=True):
        last = cut.start + (cut.count - 1) * cut.step
        if cut.step == 0 or (cut.count and not (0 <= cut.start < size and 0 <= last < size)):
            raise ValueError(f"SliceGrad: {cut} leaves a dimension of size {size}")
    return result


def infer_slice_grad(call: OpCall) -> Sequence[TensorType]:
    scattered_cuts(call)
    return (call.input(0).with_shape(tuple(call.attributes["shape"])),)


def slice_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    result = np.zeros(call.output(0).shape, operands[0].dtype)
    where = [c.start + c.step * np.arange(c.count) for c in scattered_cuts(call)]
    result[np.ix_(*where)] = operands[0]
    return (result,)


def slice_grad_body(call: OpCall) -> ir.Function:
    """Axis by axis: turn round where the step is negative, put zeros between, then around."""
    build = FunctionBuilder(call)
    value, shape = build.inputs[0], list(call.input(0).shape)
    cuts_and_sizes = zip(scattered_cuts(call), call.output(0).shape, strict=True)
    for axis, (cut, size) in enumerate(cuts_and_sizes):
        step, first = abs(cut.step), cut.start
        if cut.step < 0:
            first = cut.start + (cut.count - 1) * cut.step
            bounds = [build.shape([v]) for v in (-1, -(2**62), axis, -1)]
            value = build.op("Slice", [value, *bounds])
        if step > 1:
            apart = build.op("Unsqueeze", [value, build.shape([axis + 1])])
            pads = build.shape([0, step - 1])
            apart = build.op("Pad", [apart, pads, None, build.shape([axis + 1])])
            shape[axis] *= step
            value = build.op("Reshape", [apart, build.shape(shape)], {"allowzero": 1})
        # The zeros behind the last element may reach too far: then this takes them off.
        around = build.shape([first, size - first - shape[axis]])
        value = build.op("Pad", [value, around, None, build.shape([axis])])
        shape[axis] = size
    return build.function([value])


def slice_grad_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """SliceGrad is linear: its transpose is the Slice."""
    parts = scattered_cuts(g.call)
    # One step past the last element; past the front that is "before all", written as a minimum.
    ends = [c.start + c.count * c.step for c in parts]
    below = -(2**62)
    operands = (
        [c.start for c in parts],
        [end if end >= 0 else below for end in ends],
        range(len(parts)),
        [c.step for c in parts],
    )
    constants = [g.constant(int64s(list(o)), "int64") for o in operands]
    return (g.op("Slice", [g.grad(), *constants]),)


OPS = (
    OpDef(
        "Concat",
        infer_concat,
        concat,
        gradient=concat_gradient,
        examples=(
            Example((Sample((2, 3)), Sample((2, 5))), {"axis": 1}),
            Example((Sample((2, 3)), Sample((1, 3)), Sample((4, 3))), {"axis": 0}),
            Example((Sample((2, 3, 4)), Sample((2, 1, 4))), {"axis": -2}),
            Example((Sample((3,)),), {"axis": 0}),
            Example((Sample((2, 3, 4, 4)), Sample((2, 5, 4, 4))), {"axis": 1}),
            Example((Sample((2, 0)), Sample((2, 3))), {"axis": 1}, gradient=False),
            Example(
                (Sample((3, 2), "int64", 0, 9), Sample((3, 1), "int64", 0, 9)),
                {"axis": 1},
                gradient=False,
            ),
        ),
    ),
    OpDef(
        "Split",
        infer_split,
        split,
        gradient=split_gradient,
        examples=(
            Example((Sample((6, 3)), int64s((1, 2, 3))), outputs=3),
            Example((Sample((2, 7)), None), {"axis": -1, "num_outputs": 3}, outputs=3),
            Example((Sample((2, 4, 3)), None), {"axis": 1, "num_outputs": 2}, outputs=2),
            Example((Sample((2, 3)), int64s((3,))), {"axis": 1}),
            Example((Sample((4,), "bool"), int64s((4, 0))), outputs=2, gradient=False),
        ),
        value_inputs=(1,),
    ),
    OpDef(
        "Slice",
        infer_slice,
        slice_,
        gradient=slice_gradient,
        examples=(
            Example((Sample((5, 6)), int64s((1, 2)), int64s((4, 6)))),
            Example((Sample((5, 6)), int64s((-3,)), int64s((1000,)), int64s((-1,)))),
            Example(
                (Sample((7, 8)), int64s((0, 1)), int64s((7, 8)), int64s((0, 1)), int64s((2, 3)))
            ),
            Example((Sample((6, 5)), int64s((-1,)), int64s((-99,)), int64s((0,)), int64s((-1,)))),
            Example(
                (Sample((4, 9, 2)), int64s((7,)), int64s((0,)), int64s((1,)), int64s((-3,))),
            ),
            Example((Sample((2, 3, 4, 5)), int64s((1,)), int64s((3,)), int64s((2,)))),
            Example((Sample((4, 3)), int64s((9,)), int64s((99,)), int64s((0,))), gradient=False),
            Example((Sample((6, 5), "uint8", 0, 9), int64s((1,)), int64s((4,))), gradient=False),
        ),
        value_inputs=(1, 2, 3, 4),
    ),
    OpDef(
        "SliceGrad",
        infer_slice_grad,
        slice_grad,
        domain=COEXEC,
        gradient=slice_grad_gradient,
        body=slice_grad_body,
        examples=(
            Example((Sample((4, 3)),), {"shape": (7, 8), "starts": (0, 1), "steps": (2, 3)}),
            Example((Sample((5,)),), {"shape": (5,), "starts": (4,), "steps": (-1,)}),
            Example(
                (Sample((2, 3, 2)),),
                {"shape": (2, 9, 4), "starts": (0, 7, 1), "steps": (1, -3, 2)},
            ),
            Example((Sample((2, 0)),), {"shape": (2, 3), "starts": (0, 0), "steps": (1, 2)}),
        ),
    ),
)
