"""Operators that permute or repeat elements: Transpose, Expand, Tile, DepthToSpace, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import int64s, known_ints, normalize_axes, reshape_to, sum_over
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample


def permutation(call: OpCall) -> tuple[int, ...]:
    """``perm`` of a Transpose counted from the front; absent, it reverses the dimensions."""
    rank = call.input(0).rank
    perm = call.attribute("perm")
    if perm is None:
        return tuple(range(rank))[::-1]
    result = normalize_axes(perm, rank)
    if len(result) != rank:
        raise ValueError(f"Transpose of rank {rank} with perm {result}")
    return result


def infer_transpose(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    return (data.with_shape(tuple(data.shape[p] for p in permutation(call))),)


def transpose(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.transpose(operands[0], permutation(call)).copy(),)


def transpose_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    inverse = tuple(int(i) for i in np.argsort(np.array(permutation(g.call), dtype=np.int64)))
    return (g.op("Transpose", [g.grad()], {"perm": inverse}),)


def infer_expand(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    shape = known_ints(call, 1, "shape")
    try:
        return (data.with_shape(np.broadcast_shapes(data.shape, shape)),)
    except ValueError:
        raise ValueError(f"Expand of {data} to {shape}: the shapes do not broadcast") from None


def expand(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.broadcast_to(operands[0], call.output(0).shape).copy(),)


def expand_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Sum over what was repeated: Expand is explicit, so the walker does not do it."""
    data, result = g.call.input(0).shape, g.call.output(0).shape
    lead = len(result) - len(data)
    padded = (1,) * lead + data
    axes = [i for i, d in enumerate(padded) if i < lead or (d == 1 and result[i] != 1)]
    return (reshape_to(g, sum_over(g, g.grad(), axes), data), None)


def infer_tile(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    repeats = known_ints(call, 1, "repeats")
    if len(repeats) != data.rank or min(repeats, default=0) < 0:
        raise ValueError(f"Tile of {data}: repeats {repeats} must be one count per dimension")
    return (data.with_shape(tuple(d * r for d, r in zip(data.shape, repeats, strict=True))),)


def tile(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.tile(operands[0], known_ints(call, 1, "repeats")),)


def tile_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Split every dimension into (repeat, original) and sum over the repeats."""
    data = g.call.input(0).shape
    repeats = known_ints(g.call, 1, "repeats")
    split: list[int] = []
    axes: list[int] = []
    for dimension, repeat in zip(data, repeats, strict=True):
        if repeat != 1:
            axes.append(len(split))
            split.append(repeat)
        split.append(dimension)
    return (sum_over(g, reshape_to(g, g.grad(), split), axes), None)


def _check_blocks(call: OpCall) -> tuple[int, int, int, int, int]:
    """(batch, channels, height, width, block) of a DepthToSpace or SpaceToDepth.

    Raises:
        ValueError: the operand is not 4-D, or ``mode`` or ``blocksize`` makes no sense.
    """
    data = call.input(0)
    block = int(call.attribute("blocksize", 0))
    mode = call.attribute("mode", "DCR")
    if data.rank != 4 or block < 1 or mode not in ("DCR", "CRD"):
        raise ValueError(f"{call.op_type} of {data} with blocksize {block}, mode {mode}")
    n, c, h, w = data.shape
    return n, c, h, w, block


BlockMove = tuple[tuple[int, ...], tuple[int, ...]]


def depth_to_space_move(call: OpCall) -> BlockMove:
    """DepthToSpace as (6-D view of the input, permutation); the result is viewed as 4-D again."""
    n, c, h, w, b = _check_blocks(call)
    if call.attribute("mode", "DCR") == "DCR":
        return (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    return (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)


def space_to_depth_move(call: OpCall) -> BlockMove:
    """SpaceToDepth as (6-D view of the input, permutation)."""
    n, c, h, w, b = _check_blocks(call)
    view = (n, c, h // b, b, w // b, b)
    if call.attribute("mode", "DCR") == "DCR":
        return view, (0, 3, 5, 1, 2, 4)
    return view, (0, 1, 3, 5, 2, 4)


def infer_depth_to_space(call: OpCall) -> Sequence[TensorType]:
    n, c, h, w, b = _check_blocks(call)
    if c % (b * b):
        raise ValueError(f"DepthToSpace: {c} channels are not a multiple of {b} x {b}")
    return (call.input(0).with_shape((n, c // (b * b), h * b, w * b)),)


def infer_space_to_depth(call: OpCall) -> Sequence[TensorType]:
    n, c, h, w, b = _check_blocks(call)
    if h % b or w % b:
        raise ValueError(f"SpaceToDepth: {h} x {w} is not a multiple of {b}")
    return (call.input(0).with_shape((n, c * b * b, h // b, w // b)),)


def _move_blocks(call: OpCall, operand: Any, move: BlockMove) -> Sequence[Array]:
    view, perm = move
    return (np.reshape(operand, view).transpose(perm).reshape(call.output(0).shape),)


def depth_to_space(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return _move_blocks(call, operands[0], depth_to_space_move(call))


def space_to_depth(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return _move_blocks(call, operands[0], space_to_depth_move(call))


def _blocks_back(g: GradientScope, move: BlockMove) -> Sequence[ir.Value | None]:
    """The inverse move in Reshape and Transpose, which every opset has for both modes."""
    view, perm = move
    grad = reshape_to(g, g.grad(), tuple(view[p] for p in perm))
    inverse = tuple(int(i) for i in np.argsort(perm))
    return (reshape_to(g, g.op("Transpose", [grad], {"perm": inverse}), g.call.input(0).shape),)


def depth_to_space_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return _blocks_back(g, depth_to_space_move(g.call))


def space_to_depth_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return _blocks_back(g, space_to_depth_move(g.call))


def infer_trilu(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    if data.rank < 2:
        raise ValueError(f"Trilu of {data}: at least two dimensions are needed")
    trilu_diagonal(call)
    return (data,)


def trilu_diagonal(call: OpCall) -> int:
    """``k``: 0 is the main diagonal, positive is above it."""
    values = known_ints(call, 1, "k") if call.has_input(1) else (0,)
    if len(values) != 1:
        raise ValueError(f"Trilu: k must have one element, not {len(values)}")
    return values[0]


def trilu(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    keep = np.triu if call.attribute("upper", 1) else np.tril
    return (keep(operands[0], trilu_diagonal(call)),)


def trilu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    k = g.inputs[1] if g.call.has_input(1) else None
    operands = [g.grad()] if k is None else [g.grad(), k]
    result = g.op("Trilu", operands, {"upper": int(g.call.attribute("upper", 1))})
    return (result, *(None for _ in g.inputs[1:]))


def sequence_axes(call: OpCall) -> tuple[int, int]:
    """(batch_axis, time_axis) of a ReverseSequence: 0 and 1 in one order or the other."""
    batch, time = int(call.attribute("batch_axis", 1)), int(call.attribute("time_axis", 0))
    if {batch, time} != {0, 1}:
        raise ValueError(f"ReverseSequence: batch_axis {batch} and time_axis {time}")
    return batch, time


def infer_reverse_sequence(call: OpCall) -> Sequence[TensorType]:
    data, lengths = call.input(0), call.input(1)
    batch, _ = sequence_axes(call)
    if data.rank < 2 or lengths.shape != (data.shape[batch],):
        raise ValueError(f"ReverseSequence of {data} with lengths {lengths}")
    return (data,)


def reverse_sequence(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    data, lengths = operands
    batch, _ = sequence_axes(call)
    result = np.array(data)
    lanes = result if batch == 0 else np.swapaxes(result, 0, 1)
    for lane, length in zip(lanes, lengths, strict=True):
        lane[:length] = lane[:length][::-1].copy()
    return (result,)


def reverse_sequence_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """A reversal is its own inverse."""
    batch, time = sequence_axes(g.call)
    attributes = {"batch_axis": batch, "time_axis": time}
    return (g.op("ReverseSequence", [g.grad(), g.value(1)], attributes), None)


_BLOCK_EXAMPLES = (
    Example((Sample((2, 8, 6, 4)),), {"blocksize": 2}),
    Example((Sample((2, 9, 3, 6)),), {"blocksize": 3}),
    Example((Sample((1, 12, 4, 2), "int8", -9, 9),), {"blocksize": 2}, gradient=False),
)
_CRD_EXAMPLE = Example((Sample((2, 8, 4, 2)),), {"blocksize": 2, "mode": "CRD"}, version=28)

OPS = (
    OpDef(
        "Transpose",
        infer_transpose,
        transpose,
        gradient=transpose_gradient,
        examples=(
            Example((Sample((5, 7)),)),
            Example((Sample((2, 3, 4)),)),
            Example((Sample((2, 3, 4, 5)),), {"perm": (0, 2, 3, 1)}),
            Example((Sample((2, 3, 4, 5)),), {"perm": (1, 0, 3, 2)}),
            Example((Sample((3, 1, 4)),), {"perm": (1, 0, 2)}),
            Example((Sample(()),)),
            Example((Sample((37, 19)),), gradient=False),
            Example((Sample((2, 21, 33), "float64"),), {"perm": (0, 2, 1)}, gradient=False),
            Example((Sample((9, 6), "bool"),), gradient=False),
            Example((Sample((5, 3, 2), "float16"),), {"perm": (2, 0, 1)}, gradient=False),
            Example((Sample((2, 3, 4, 5, 2, 3)),), {"perm": (5, 1, 3, 0, 4, 2)}, gradient=False),
            Example((Sample((4, 0, 3)),), gradient=False),
        ),
    ),
    OpDef(
        "Expand",
        infer_expand,
        expand,
        gradient=expand_gradient,
        examples=(
            Example((Sample((3, 1)), int64s((3, 4)))),
            Example((Sample((3, 1)), int64s((2, 1, 6)))),
            Example((Sample(()), int64s((2, 3)))),
            Example((Sample((2, 3)), int64s((1,)))),
            Example((Sample((2, 1, 3, 1), "int64", -9, 9), int64s((5, 1, 4))), gradient=False),
        ),
        value_inputs=(1,),
    ),
    OpDef(
        "Tile",
        infer_tile,
        tile,
        gradient=tile_gradient,
        examples=(
            Example((Sample((3, 4)), int64s((2, 3)))),
            Example((Sample((2, 3, 4)), int64s((1, 2, 1)))),
            Example((Sample((5,)), int64s((1,)))),
            Example((Sample((2, 3, 2, 3, 2)), int64s((2, 3, 2, 1, 3))), gradient=False),
            Example((Sample((2, 3), "uint8", 0, 9), int64s((0, 2))), gradient=False),
        ),
        value_inputs=(1,),
    ),
    OpDef(
        "DepthToSpace",
        infer_depth_to_space,
        depth_to_space,
        gradient=depth_to_space_gradient,
        examples=(
            *_BLOCK_EXAMPLES[:2],
            Example((Sample((1, 18, 2, 3)),), {"blocksize": 3, "mode": "CRD"}),
        ),
    ),
    OpDef(
        "SpaceToDepth",
        infer_space_to_depth,
        space_to_depth,
        gradient=space_to_depth_gradient,
        examples=(*_BLOCK_EXAMPLES, _CRD_EXAMPLE),
    ),
    OpDef(
        "Trilu",
        infer_trilu,
        trilu,
        gradient=trilu_gradient,
        examples=(
            Example((Sample((4, 5)),)),
            Example((Sample((2, 5, 3)), np.array(1)), {"upper": 0}),
            Example((Sample((4, 4)), np.array(-2))),
            Example((Sample((3, 4), "int64", 1, 9), np.array(7)), gradient=False),
        ),
        value_inputs=(1,),
    ),
    OpDef(
        "ReverseSequence",
        infer_reverse_sequence,
        reverse_sequence,
        gradient=reverse_sequence_gradient,
        examples=(
            Example((Sample((5, 3, 2)), int64s((5, 1, 3)))),
            Example((Sample((3, 4)), int64s((0, 4, 2))), {"batch_axis": 0, "time_axis": 1}),
            Example((Sample((4, 3)), Sample((3,), "int64", 0, 5))),
        ),
    ),
)
