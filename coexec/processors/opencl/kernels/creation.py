"""Tensors made out of numbers: ConstantOfShape, Constant, Shape, Size, Range, EyeLike, OneHot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from coexec.core.types import Array, OpCall
from coexec.ops.axes import known
from coexec.ops.creation import constant_value, fill_value, one_hot_axis, shape_value
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Scalar,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
)
from coexec.processors.opencl.kernels.moves import WORDS, refuse_moves, row_grid, span_of

MAX_INTEGERS = 8


def _flat(
    entry: str,
    call: OpCall,
    args: Sequence[Argument],
    defines: Mapping[str, str | int | float],
    local: int,
) -> Lowering:
    """One work-item per element of output 0; nothing to do where it is empty."""
    size = call.output(0).size
    grid = (ceil_to(size, local),)
    kernel = KernelCall("creation", entry, tuple(args), grid, (local,), defines)
    return Lowering((kernel,) if size else ())


def _fill(call: OpCall, value: Array, local: int) -> Lowering:
    """Every element is ``value``, passed as the word that has its bits."""
    bits = value.reshape(()).view(f"uint{8 * value.dtype.itemsize}")
    word = Scalar(int(bits), bits.dtype.name)
    args: tuple[Argument, ...] = (out(0), i32(call.output(0).size), word)
    return _flat("fill", call, args, {"T": WORDS[bits.dtype.itemsize]}, local)


def lower_constant_of_shape(call: OpCall, local: int) -> Lowering:
    return _fill(call, fill_value(call), local)


def lower_constant(call: OpCall, local: int) -> Lowering:
    value = constant_value(call)
    return _fill(call, value.reshape(-1)[:1], local) if value.size else Lowering(())


def _integers(values: Sequence[int]) -> Lowering:
    padded = (*values, *(0,) * (MAX_INTEGERS - len(values)))
    args: tuple[Argument, ...] = (out(0), i32(len(values)), *(Scalar(v, "int64") for v in padded))
    kernel = KernelCall("creation", "integers", args, (1,), (1,))
    return Lowering((kernel,) if values else ())


def lower_shape(call: OpCall, local: int) -> Lowering:
    return _integers(shape_value(call))


def lower_size(call: OpCall, local: int) -> Lowering:
    return _integers((call.input(0).size,))


def lower_range(call: OpCall, local: int) -> Lowering:
    dtype = call.output(0).dtype
    # Half types accumulate in float32 (ONNX: stash_type 1).
    wide = "float32" if dtype.name == "float16" else dtype.name
    start, delta = (known(call, i, "bounds").reshape(()).item() for i in (0, 2))
    args: tuple[Argument, ...] = (
        out(0),
        i32(call.output(0).size),
        Scalar(start, wide),
        Scalar(delta, wide),
    )
    return _flat("range", call, args, {"T": c_type(dtype), "A": c_type(np.dtype(wide))}, local)


def lower_eye_like(call: OpCall, local: int) -> Lowering:
    result = call.output(0)
    rows, columns = result.shape
    # Beyond the matrix every diagonal is empty, so that any int64 fits the argument.
    k = max(-rows - 1, min(columns + 1, int(call.attribute("k", 0))))
    args: tuple[Argument, ...] = (out(0), i32(result.size), i32(columns), i32(k))
    return _flat("eye", call, args, {"T": c_type(result.dtype)}, local)


def lower_one_hot(call: OpCall, local: int, most: int = 16) -> Lowering:
    result, axis = call.output(0), one_hot_axis(call)
    if not result.size:
        return Lowering(())
    outer, depth = prod(result.shape[:axis]), result.shape[axis]
    inner = prod(result.shape[axis + 1 :])
    span = span_of(depth * inner, most)
    defines: dict[str, str | int | float] = {
        "T": WORDS[result.dtype.itemsize],
        "I": c_type(call.input(0).dtype),
        "SPAN": span,
    }
    if inner == 1:
        defines["INNER"] = 1
    if call.input(0).dtype.kind == "f":
        defines["WHOLE"] = "trunc"
    args = (inp(0), inp(2), out(0), i32(outer), i32(depth), i32(inner))
    sizes = row_grid(depth * inner, outer, span, local)
    return Lowering((KernelCall("creation", "one_hot", args, *sizes, defines),))


LOWERINGS: Mapping[str, Callable[[OpCall, int], Lowering]] = {
    "ConstantOfShape": lower_constant_of_shape,
    "Constant": lower_constant,
    "Shape": lower_shape,
    "Size": lower_size,
    "Range": lower_range,
    "EyeLike": lower_eye_like,
    "OneHot": lower_one_hot,
}


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    """Fills need storage only; the others compute in the element type."""
    if call.op_type in ("Constant", "ConstantOfShape"):
        reason = refuse_moves(call.outputs)
        if reason is None and call.op_type == "Constant":
            value = constant_value(call).reshape(-1)
            if value.size and np.any(value != value[0]):
                reason = "a Constant of several values is an initializer, not a kernel"
        return reason
    if call.op_type in ("Shape", "Size"):
        long = call.op_type == "Shape" and len(shape_value(call)) > MAX_INTEGERS
        return f"more than {MAX_INTEGERS} dimensions" if long else None
    if call.op_type == "OneHot":
        return refuse_moves(call.outputs) or refuse_types(call.inputs[:1], facts)
    return refuse_types(call.outputs, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    if call.op_type == "OneHot" and facts.unit_kind == "gpu":
        return lower_one_hot(call, params["LOCAL"], most=1)  # neighbours write neighbours
    return LOWERINGS[call.op_type](call, params["LOCAL"])


FAMILY = KernelFamily(
    "creation",
    tuple(LOWERINGS),
    (Variant("naive", lower, applies, {"LOCAL": (64, 16, 256)}),),
)
