"""Conversion between element types, of values (Cast) or of bits (BitCast)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float, widen
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample, streaming_work
from coexec.ops.term import grad_term, input_term

FLOAT8 = tuple(
    np.dtype(kind)
    for kind in (
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz,
    )
)
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)


def numpy_type(code: int) -> np.dtype[Any]:
    """NumPy type of an ONNX ``TensorProto.DataType``; ``ValueError`` where there is none."""
    try:
        kind = ir.DataType(code)
        if kind in (ir.DataType.STRING, ir.DataType.UNDEFINED):
            raise ValueError(f"tensors of {kind.name} are not supported")
        return np.dtype(kind.numpy())
    except TypeError as error:
        raise ValueError(f"no NumPy type for ONNX type {code}") from error


def convert(x: Array, dtype: np.dtype[Any], saturate: bool = True, mode: str = "up") -> Array:
    """``x`` in another type by ONNX's rules (version 25 of Cast)."""
    with np.errstate(all="ignore"):
        if dtype == E8M0:
            return to_e8m0(x, saturate, mode)
        if dtype in FLOAT8 and saturate:
            limit = float(ml_dtypes.finfo(dtype).max)
            return np.asarray(np.clip(widen(x), -limit, limit)).astype(dtype)
        return x.astype(dtype)


def to_e8m0(x: Array, saturate: bool, mode: str) -> Array:
    """Powers of two from 2^-127 to 2^127 (OCP microscaling formats).

    ``mode`` is ``up``, ``down`` or ``nearest`` (ties up). Out of range values go to the
    limits, or to NaN without ``saturate``.
    """
    wide = np.asarray(x).astype(np.float64)
    mantissa, exponent = np.frexp(wide)  # wide = mantissa * 2^exponent, mantissa in [0.5, 1)
    low = exponent - 1
    rounds_up = {"up": mantissa > 0.5, "down": False, "nearest": mantissa >= 0.75}
    if mode not in rounds_up:
        raise ValueError(f"round_mode must be up, down or nearest, got {mode!r}")
    code = np.where(wide == 0, -128, np.where(np.isinf(wide), 1024, low + rounds_up[mode])) + 127
    outside = (code < 0) | (code > 254)
    code = np.clip(code, 0, 254) if saturate else np.where(outside, 255, code)
    return np.asarray(np.where(np.isnan(wide), 255, code).astype(np.uint8)).view(E8M0)


def cast_target(call: OpCall) -> np.dtype[Any]:
    """Element type that a Cast or CastLike produces."""
    if call.op_type == "CastLike":
        return call.input(1).dtype
    to = call.attribute("to")
    if to is None:
        raise ValueError("Cast: attribute to is missing")
    return numpy_type(int(to))


def infer_cast(call: OpCall) -> Sequence[TensorType]:
    return (TensorType(call.input(0).shape, cast_target(call)),)


def cast(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    target = np.asarray(operands[1]).dtype if call.op_type == "CastLike" else cast_target(call)
    saturate = bool(call.attribute("saturate", 1))
    return (convert(np.asarray(operands[0]), target, saturate, call.attribute("round_mode", "up")),)


def cast_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """The gradient in the operand's type; none passes an integer."""
    rest = (None,) * (len(g.inputs) - 1)
    source, target = input_term(g).type.dtype, g.call.output(0).dtype
    if not (is_float(source) and is_float(target)):
        return (None, *rest)
    return (grad_term(g).cast(source).value, *rest)


def infer_bit_cast(call: OpCall) -> Sequence[TensorType]:
    source, target = call.input(0), numpy_type(int(call.attributes["to"]))
    bits = [ir.DataType.from_numpy(kind).bitwidth for kind in (source.dtype, target)]
    if bits[0] != bits[1] or bits[0] < 8:
        raise ValueError(f"BitCast of {source} to {target.name}: not of the same whole bytes")
    return (TensorType(source.shape, target),)


def bit_cast(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    bits = np.ascontiguousarray(operands[0]).reshape(np.shape(operands[0]))
    return (bits.view(numpy_type(int(call.attributes["to"]))),)


def to(dtype: str) -> dict[str, int]:
    return {"to": int(ir.DataType.from_numpy(np.dtype(dtype)))}


PAIRS = (
    ("float32", "int32"),
    ("float32", "int64"),
    ("float32", "bool"),
    ("float32", "float16"),
    ("float16", "float32"),
    ("int32", "float32"),
    ("int64", "int32"),
    ("uint8", "float32"),
    ("float32", "uint8"),
    ("int64", "float32"),
    ("bool", "float32"),
    ("bool", "int64"),
    ("int32", "bool"),
    ("int32", "int8"),
)
CAST_EXAMPLES = (
    # float64: a gradient check runs the reference on float64 operands, where this is smooth.
    *(Example((Sample(shape),), to("float64")) for shape in ((3, 5), (67,), ())),
    *(
        Example((Sample((3, 7), source, 0, 99),), to(target), gradient=False)
        for source, target in PAIRS
    ),
)
LIKE_EXAMPLES = (
    *(Example((Sample(shape), Sample((1,), "float64"))) for shape in ((3, 5), (67,), ())),
    *(
        Example((Sample((3, 7), source, 0, 99), Sample((1,), target, 0, 2)), gradient=False)
        for source, target in PAIRS
    ),
)

OPS = (
    OpDef(
        "Cast",
        infer_cast,
        cast,
        gradient=cast_gradient,
        work=streaming_work(1),
        examples=CAST_EXAMPLES,
    ),
    OpDef(
        "CastLike",
        infer_cast,
        cast,
        gradient=cast_gradient,
        work=streaming_work(1),
        examples=LIKE_EXAMPLES,
    ),
    OpDef(
        "BitCast",
        infer_bit_cast,
        bit_cast,
        not_differentiable="bits are no numbers",
        work=streaming_work(0),
        examples=(
            Example((Sample((3, 5), "int32", 0, 99),), to("float32"), gradient=False, version=26),
            Example((Sample((7,), "int64", -9, 9),), to("uint64"), gradient=False, version=26),
        ),
    ),
)
