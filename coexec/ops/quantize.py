"""Quantisation: per tensor, per axis or in blocks of an axis; dynamic per tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import normalize_axis
from coexec.ops.cast import convert, numpy_type
from coexec.ops.elementwise import is_float, widen
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample, streaming_work
from coexec.ops.term import Term, grad_term, input_term

UINT8 = np.dtype(np.uint8)
INT_KINDS = ("int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16")
FLOAT_KINDS = (
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float4_e2m1fn",
    "float6_e2m3fn",
    "float6_e3m2fn",
)
"""What may be quantised to, by NumPy (or ml_dtypes) name."""


@dataclass(frozen=True)
class Granularity:
    """The tensor as (outer, axis, inner), and which scale belongs to an element.

    Element (o, a, i) has number o * steps[0] + (a // block) * steps[1] + i * steps[2].
    """

    outer: int
    axis: int
    inner: int
    block: int
    steps: tuple[int, int, int]


def granularity(call: OpCall) -> Granularity:
    """How scales belong to elements; ``ValueError`` where their shape does not fit."""
    x, scale = call.input(0), call.input(1)
    if call.has_input(2) and call.input(2).shape != scale.shape and not _single(call):
        raise ValueError(f"{call.op_type}: zero point {call.input(2)} for scale {scale}")
    if scale.size == 1 and scale.rank <= 1:
        return Granularity(1, 1, x.size, 1, (0, 0, 0))
    axis = normalize_axis(int(call.attribute("axis", 1)), x.rank)
    outer, size, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    if scale.rank == 1:
        if scale.shape != (size,):
            raise ValueError(f"{call.op_type}: scale {scale} for axis {axis} of {x}")
        return Granularity(outer, size, inner, 1, (0, 1, 0))
    blocks = scale.shape[axis] if scale.rank == x.rank else 0
    block = int(call.attribute("block_size", 0)) or -(-size // max(blocks, 1))
    expected = (*x.shape[:axis], -(-size // block), *x.shape[axis + 1 :])
    if scale.shape != expected:
        raise ValueError(f"{call.op_type}: scale {scale} for blocks of {block} of {x}")
    return Granularity(outer, size, inner, block, (blocks * inner, inner, 1))


def _single(call: OpCall) -> bool:
    """One scale and one zero point, be they scalars or of shape (1)."""
    return call.input(1).size == 1 and call.input(2).size == 1


def spread(call: OpCall, values: Array, shape: tuple[int, ...]) -> Array:
    """Scales or zero points, one for each element of a tensor of ``shape``."""
    g = granularity(call)
    if g.steps == (0, 0, 0):
        return values.reshape(())
    axis = normalize_axis(int(call.attribute("axis", 1)), len(shape))
    if values.ndim == 1:
        return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.take(np.repeat(values, g.block, axis), np.arange(g.axis), axis)


def quantized_type(call: OpCall) -> np.dtype[Any]:
    """Type of a QuantizeLinear's result: the zero point's, ``output_dtype``, or uint8."""
    code = int(call.attribute("output_dtype", 0))
    chosen = numpy_type(code) if code else None
    if call.has_input(2):
        own = call.input(2).dtype
        if chosen is not None and chosen != own:
            raise ValueError(f"QuantizeLinear: output_dtype {chosen} but zero point {own}")
        chosen = own
    chosen = chosen or UINT8
    if chosen.name not in (*INT_KINDS, *FLOAT_KINDS):
        raise ValueError(f"QuantizeLinear: cannot quantise to {chosen.name}")
    return chosen


def division_type(call: OpCall) -> np.dtype[Any]:
    """Type that x / scale is computed in: attribute ``precision``, else the scale's."""
    code = int(call.attribute("precision", 0))
    return numpy_type(code) if code else call.input(1).dtype


def infer_quantize(call: OpCall) -> Sequence[TensorType]:
    granularity(call)
    if not is_float(call.input(1).dtype):
        raise ValueError(f"QuantizeLinear: scale of type {call.input(1).dtype.name}")
    return (TensorType(call.input(0).shape, quantized_type(call)),)


def integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = ml_dtypes.iinfo(dtype)
    return int(info.min), int(info.max)


def quantize(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """saturate(round(x / scale) + zero point), rounding half to even."""
    x, scale = np.asarray(operands[0]), np.asarray(operands[1])
    target = quantized_type(call)
    precision = numpy_type(code) if (code := int(call.attribute("precision", 0))) else scale.dtype
    zero = (
        np.zeros(scale.shape, target) if len(operands) < 3 or operands[2] is None else operands[2]
    )
    zeros = spread(call, np.asarray(zero).astype(np.float64), x.shape)
    with np.errstate(all="ignore"):
        quotient = x.astype(precision) / spread(call, scale.astype(precision), x.shape)
        if target.name in INT_KINDS:
            rounded = np.rint(np.asarray(quotient).astype(np.float64)) + zeros
            return (np.asarray(np.clip(rounded, *integer_range(target))).astype(target),)
        shifted = widen(quotient) + zeros.astype(np.float32)
    return (convert(np.asarray(shifted), target, bool(call.attribute("saturate", 1))),)


def dequantized_type(call: OpCall) -> np.dtype[Any]:
    code = int(call.attribute("output_dtype", 0))
    return numpy_type(code) if code else call.input(1).dtype


def infer_dequantize(call: OpCall) -> Sequence[TensorType]:
    granularity(call)
    if call.has_input(2) and call.input(2).dtype != call.input(0).dtype:
        raise ValueError(f"DequantizeLinear: zero point {call.input(2)} for {call.input(0)}")
    return (TensorType(call.input(0).shape, dequantized_type(call)),)


def dequantize(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """(x - zero point) * scale, in float32 or (for such scales) float64."""
    x, scale = np.asarray(operands[0]), np.asarray(operands[1])
    code = int(call.attribute("output_dtype", 0))
    target = numpy_type(code) if code else scale.dtype
    wide = np.dtype(np.float64 if np.float64 in (target, scale.dtype) else np.float32)
    values = x.astype(np.float64)
    if len(operands) > 2 and operands[2] is not None:
        values = values - spread(call, np.asarray(operands[2]).astype(np.float64), x.shape)
    scales = spread(call, scale.astype(wide), x.shape)
    return (np.asarray(values.astype(wide) * scales).astype(target),)


def dequantize_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """To the scale only: the sum of dy * (x - zero point) over the elements it scales."""
    rest = (None,) * (len(g.inputs) - 2)
    if not g.wanted[1]:
        return (None, None, *rest)
    parts = granularity(g.call)
    scale = g.call.input(1)
    if parts.axis % parts.block:
        raise ValueError("DequantizeLinear: no gradient for a last block that is not full")
    whole = (parts.outer, parts.axis // parts.block, parts.block, parts.inner)
    per_scale = tuple(
        d if step else 1
        for d, step in zip(whole, (parts.steps[0], parts.steps[1], 0, parts.steps[2]), strict=True)
    )
    dy = grad_term(g).cast(scale.dtype).reshape(whole)
    values = input_term(g).cast(scale.dtype).reshape(whole)
    if g.call.has_input(2):
        values = values - input_term(g, 2).cast(scale.dtype).reshape(per_scale)
    summed = tuple(i for i, d in enumerate(per_scale) if d == 1)
    total: Term = (dy * values).reduce_sum(summed)
    return (None, total.reshape(scale.shape).value, *rest)


def infer_dynamic(call: OpCall) -> Sequence[TensorType]:
    x = call.input(0)
    if x.size == 0 or not is_float(x.dtype):
        raise ValueError(f"DynamicQuantizeLinear: needs floats, got {x}")
    return (TensorType(x.shape, UINT8), TensorType((), x.dtype), TensorType((), UINT8))


def dynamic_quantize(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """To uint8 over the range of x widened to contain 0."""
    own = np.asarray(operands[0])
    x = widen(own)
    low, high = min(x.min(), x.dtype.type(0)), max(x.max(), x.dtype.type(0))
    scale = (high - low) / x.dtype.type(255) if high > low else x.dtype.type(1 / 255)
    zero = np.rint(np.clip(-low / scale, 0, 255))
    y = np.clip(np.rint(x / scale) + zero, 0, 255).astype(UINT8)
    return (y, np.asarray(scale, own.dtype), np.asarray(zero, UINT8))


def to(dtype: str) -> int:
    return int(ir.DataType.from_numpy(np.dtype(dtype)))


def _scale(*shape: int) -> Sample:
    return Sample(shape, low=0.02, high=0.2)


def quantize_examples() -> tuple[Example, ...]:
    x = Sample((3, 4, 5), low=-9, high=9)
    exact = np.array(0.0625, np.float32)
    found = [
        # A power of two divides exactly in every float type.
        Example((x, exact, np.array(100, np.uint8)), gradient=False),
        Example((x, exact), {"output_dtype": to("int8")}, gradient=False),
        Example((x, exact), gradient=False),
        Example((Sample((67,), "int32", -900, 900), _scale(1)), gradient=False),
    ]
    for dtype in ("int8", "uint8", "int16", "uint16"):
        axis = Example((x, _scale(4), Sample((4,), dtype, 0, 99)), gradient=False)
        last = Example((x, _scale(5), Sample((5,), dtype, 0, 99)), {"axis": -1}, gradient=False)
        blocks = Example(
            (x, _scale(3, 2, 5), Sample((3, 2, 5), dtype, 0, 99)),
            {"axis": 1, "block_size": 2},
            gradient=False,
        )
        found += [axis, last, blocks]
    uneven = {"axis": -1, "block_size": 3}
    found.append(
        Example((x, _scale(3, 4, 2), Sample((3, 4, 2), "int8", 0, 9)), uneven, gradient=False)
    )
    return tuple(found)


def dequantize_examples() -> tuple[Example, ...]:
    found = []
    for dtype, low, high in (
        ("int8", -99, 99),
        ("uint8", 0, 255),
        ("int16", -999, 999),
        ("uint16", 0, 999),
    ):
        x = Sample((3, 4, 5), dtype, low, high)
        found += [
            Example((x, _scale(), Sample((), dtype, 0, 9))),
            Example((x, _scale(4), Sample((4,), dtype, 0, 9))),
            Example((x, _scale(5)), {"axis": 2}),
            Example(
                (x, _scale(3, 2, 5), Sample((3, 2, 5), dtype, 0, 9)), {"axis": 1, "block_size": 2}
            ),
        ]
    uneven = {"axis": -1, "block_size": 3}
    found.append(
        Example((Sample((3, 4, 5), "int8", -9, 9), _scale(3, 4, 2)), uneven, gradient=False)
    )
    found.append(Example((Sample((67,), "int32", -99999, 99999), _scale(1))))
    return tuple(found)


OPS = (
    OpDef(
        "QuantizeLinear",
        infer_quantize,
        quantize,
        not_differentiable="piecewise constant; quantisation-aware training needs its own rule",
        work=streaming_work(3),
        examples=quantize_examples(),
    ),
    OpDef(
        "DequantizeLinear",
        infer_dequantize,
        dequantize,
        gradient=dequantize_gradient,
        work=streaming_work(2),
        examples=dequantize_examples(),
    ),
    OpDef(
        "DynamicQuantizeLinear",
        infer_dynamic,
        dynamic_quantize,
        not_differentiable="piecewise constant",
        work=streaming_work(5),
        examples=(
            Example((Sample((3, 5), low=-3, high=2),), outputs=3, gradient=False),
            Example((Sample((67,), low=1, high=2),), outputs=3, gradient=False),
            Example((Sample((2, 3, 1001), low=-1.9, high=-1.1),), outputs=3, gradient=False),
            Example((np.zeros((2, 3), np.float32),), outputs=3, gradient=False),
        ),
    ),
)
