"""MaxUnpool: values back where maximum pooling took them from, zeros elsewhere.

https://onnx.ai/onnx/operators/onnx__MaxUnpool.html. Indices count in the tensor that pooling of
these sizes had; a larger ``output_shape`` has it in its first corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import known_ints
from coexec.ops.conv_geometry import Sizes, explicit_pads, spatial_attribute
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import Example, OpDef, Sample


def pooled_shape(call: OpCall) -> Sizes:
    """Shape of what was pooled; ``ValueError`` where operands do not fit."""
    x, places = call.input(0), call.input(1)
    rank = x.rank - 2
    if rank < 1 or places != TensorType(x.shape, np.dtype(np.int64)):
        raise ValueError(f"MaxUnpool of {x} to {places}")
    kernel = spatial_attribute(call, "kernel_shape", rank, 0)
    strides = spatial_attribute(call, "strides", rank, 1)
    begin, end = explicit_pads(call, rank)
    sizes = tuple(
        (x.shape[2 + i] - 1) * strides[i] - begin[i] - end[i] + kernel[i] for i in range(rank)
    )
    if min(sizes) < 1:
        raise ValueError(f"MaxUnpool of {x}: the result would be {sizes}")
    return (*x.shape[:2], *sizes)


def result_shape(call: OpCall) -> Sizes:
    """``output_shape`` if it is given."""
    pooled = pooled_shape(call)
    if not call.has_input(2):
        return pooled
    wanted = known_ints(call, 2, "output_shape")
    if len(wanted) != len(pooled) or any(w < p for w, p in zip(wanted, pooled, strict=True)):
        raise ValueError(f"MaxUnpool: output_shape {wanted} below {pooled}")
    return wanted


def infer(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(result_shape(call)),)


def max_unpool(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x, places = np.asarray(operands[0]), np.asarray(operands[1])
    shape = pooled_shape(call)
    flat = np.zeros(prod(shape), x.dtype)
    flat[places.reshape(-1)] = x.reshape(-1)
    y = np.zeros(result_shape(call), x.dtype)
    y[tuple(slice(0, size) for size in shape)] = flat.reshape(shape)
    return (y,)


def body(call: OpCall) -> ir.Function:
    """A scatter into zeros, and a border."""
    b, shape = FunctionBuilder(call), pooled_shape(call)
    line = b.shape([-1])
    zeros = b.constant(np.zeros(prod(shape)), call.input(0).dtype)
    x, places = (b.op("Reshape", [b.inputs[index], line]) for index in (0, 1))
    y = b.op("Reshape", [b.op("ScatterElements", [zeros, places, x]), b.shape(shape)])
    border = [full - size for full, size in zip(result_shape(call), shape, strict=True)]
    if any(border):
        y = b.op("Pad", [y, b.shape([0] * len(shape) + border)])
    return b.function([y])


_PLACES = np.array([[[[5, 7], [13, 15]]], [[[16, 19], [28, 31]]]])

OPS = (
    OpDef(
        "MaxUnpool",
        infer,
        max_unpool,
        not_differentiable="training puts its body in its place, which has a gradient",
        value_inputs=(2,),
        body=body,
        examples=(
            Example((Sample((2, 1, 2, 2)), _PLACES), {"kernel_shape": (2, 2), "strides": (2, 2)}),
            Example(
                (Sample((2, 1, 2, 2)), _PLACES, np.array([2, 1, 5, 6])),
                {"kernel_shape": (2, 2), "strides": (2, 2)},
            ),
            Example(
                (Sample((1, 2, 3)), np.array([[[0, 3, 4], [7, 8, 11]]])),
                {"kernel_shape": (2,), "strides": (2,)},
            ),
        ),
    ),
)
