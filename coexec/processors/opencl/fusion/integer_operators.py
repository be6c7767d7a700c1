"""Operators on bytes with channels last: what quantised layers are made of inside a region.

Tensors are (batch, height, width, channels) of unsigned bytes; a value is (byte - zero) * scale.
Channels are filled up (:func:`stored_channels`), so that dot products read whole words of four and
vectors are whole; what stands in channels that are not there is never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import OpDef, Tolerance, Work
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.fusion.chain import FUSED

BYTE = np.dtype(np.uint8)
WORD, LANES = 4, 16
"""Channels of a dot product, and of a vector of sums."""
MIDDLE = 128
"""What makes signed bytes unsigned."""


def stored_channels(channels: int) -> int:
    """Channels of a tensor with those that fill it up."""
    unit = WORD if channels <= WORD else LANES
    return -(-channels // unit) * unit


def stored_type(shape: Sequence[int]) -> TensorType:
    """The type of a tensor (N, C, H, W) or (N, C) with channels last."""
    batch, channels, *rest = shape
    height, width = rest or (1, 1)
    return TensorType((batch, height, width, stored_channels(channels)), BYTE)


@dataclass(frozen=True)
class Steps:
    """value = (byte - zero) * scale."""

    scale: float
    zero: int

    def bytes_of(self, values: Any, low: int = 0, high: int = 255) -> Array:
        """The nearest bytes within bounds; halves go to even."""
        scaled = np.rint(np.asarray(values, np.float32) / np.float32(self.scale))
        return np.asarray(np.clip(scaled + self.zero, low, high)).astype(BYTE)

    def values_of(self, stored: Any) -> Array:
        """What bytes stand for, as float32."""
        whole = np.asarray(stored).astype(np.float32) - np.float32(self.zero)
        return np.asarray(whole * np.float32(self.scale))


@dataclass(frozen=True)
class Residual:
    """A tensor of steps ``other`` that is added to a result, rounded to ``steps`` in bounds."""

    other: Steps
    steps: Steps
    low: int = 0
    high: int = 255


@dataclass(frozen=True)
class IntegerLayer:
    """``core`` is the operator on floats (N, C, H, W), ``steps`` its operands', ``result`` its own.

    ``low`` and ``high`` bound the bytes of the result (an activation behind the core). ``kinds``
    are the operators that were fused.
    """

    core: OpCall
    steps: tuple[Steps, ...]
    result: Steps
    low: int = 0
    high: int = 255
    residual: Residual | None = None
    kinds: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What decides on the time of a layer: its key among those that are known."""
        core = self.core
        attributes = [f"{name}={core.attributes[name]}" for name in sorted(core.attributes)]
        types = ",".join(map(str, core.inputs))
        return f"{'+'.join(self.kinds)}({types},{','.join(attributes)})"


def layer_of(call: OpCall) -> IntegerLayer:
    """What a fused call consists of."""
    found = call.attributes["layer"]
    assert isinstance(found, IntegerLayer)
    return found


def first_channels(stored: Array, shape: Sequence[int]) -> Array:
    """A tensor with channels last as (N, C, H, W) or (N, C), without what fills it up."""
    return np.moveaxis(stored[..., : shape[1]], -1, 1).reshape(tuple(shape))


def with_channels_last(values: Array, fill: int) -> Array:
    """Bytes (N, C, H, W) or (N, C) with channels last, filled up."""
    kind = stored_type(values.shape)
    stored = np.full(kind.shape, fill, BYTE)
    batch, height, width, _ = kind.shape
    planes = values.reshape(batch, values.shape[1], height, width)
    stored[..., : values.shape[1]] = np.moveaxis(planes, 1, -1)
    return stored


def infer(call: OpCall) -> Sequence[TensorType]:
    """The core's result with channels last."""
    return (stored_type(layer_of(call).core.output(0).shape),)


def convolve(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Operands x, int8 weights, then int32 bias and float scale of each channel, the residual."""
    own = layer_of(call)
    x, weights, bias, scale, *more = operands
    core, channels = own.core, own.core.output(0).shape[1]
    planes = first_channels(x, core.input(0).shape)
    zero = np.asarray(own.steps[0].zero, BYTE)
    integer = OpCall("ConvInteger", (TensorType.of(planes), *core.inputs[1:2]), core.attributes)
    (sums,) = OPERATORS["ConvInteger"].reference(integer, (planes, weights, zero))
    column = (1, -1, 1, 1)
    sums = sums + np.asarray(bias)[:channels].reshape(column)
    scaled = sums.astype(np.float32) * np.asarray(scale)[:channels].reshape(column)
    rounded = np.clip(np.rint(scaled) + own.result.zero, own.low, own.high)
    if own.residual is None:
        return (with_channels_last(rounded.astype(BYTE), own.result.zero),)
    other = own.residual.other.values_of(first_channels(more[0], core.output(0).shape))
    added = own.result.values_of(rounded) + other
    last = own.residual.steps
    return (
        with_channels_last(last.bytes_of(added, own.residual.low, own.residual.high), last.zero),
    )


def compute(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """The core on what the bytes stand for."""
    own = layer_of(call)
    kinds = [kind for kind in own.core.inputs if kind is not None]
    values = [
        steps.values_of(first_channels(stored, kind.shape))
        for stored, steps, kind in zip(operands, own.steps, kinds, strict=False)
    ]
    (result,) = OPERATORS[own.core.identifier].reference(own.core, values)
    rounded = own.result.bytes_of(result, own.low, own.high)
    return (with_channels_last(rounded, own.result.zero),)


def quantise(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Floats (N, C, H, W) as bytes with channels last."""
    steps = layer_of(call).result
    return (with_channels_last(steps.bytes_of(operands[0]), steps.zero),)


def dequantise(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Bytes with channels last as floats (N, C, H, W)."""
    own = layer_of(call)
    return (own.steps[0].values_of(first_channels(operands[0], own.core.output(0).shape)),)


def to_last(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Bytes of the graph (N, C, H, W) or (N, C), signed ones too, with channels last."""
    values = np.asarray(operands[0])
    return (with_channels_last(_turned(values, BYTE), layer_of(call).steps[0].zero),)


def from_last(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Bytes with channels last as the graph has them."""
    kind = layer_of(call).core.output(0)
    return (_turned(first_channels(operands[0], kind.shape), kind.dtype),)


def _turned(values: Array, dtype: np.dtype[Any]) -> Array:
    """Signed bytes as unsigned ones, or the other way round, or as they are."""
    if values.dtype == dtype:
        return values
    return (values.view(BYTE) ^ np.uint8(MIDDLE)).view(dtype)


def infer_dequantised(call: OpCall) -> Sequence[TensorType]:
    """The core's own result."""
    return (layer_of(call).core.output(0),)


def work(call: OpCall) -> Work:
    """The core's arithmetic; operands are read once, the result is written once."""
    core = layer_of(call).core
    kinds = (*call.inputs, *call.outputs)
    flop = OPERATORS[core.identifier].work(core).flop
    return Work(flop, sum(kind.nbytes for kind in kinds if kind is not None))


STEP = Tolerance(relative=0.0, absolute=1.0, half_relative=0.0, half_absolute=1.0)
"""One step: what lies half way between two may be rounded to either."""
MADE_LATE = "made after differentiation"


def _operator(name: str, reference: Any = compute, inferring: Any = infer) -> OpDef:
    return OpDef(
        name,
        inferring,
        reference,
        domain=FUSED,
        not_differentiable=MADE_LATE,
        work=work,
        tolerance=STEP,
    )


CONV = _operator("IntegerConv", convolve)
ADD = _operator("IntegerAdd")
MAX_POOL = _operator("IntegerMaxPool")
MEAN = _operator("IntegerGlobalAveragePool")
CONCAT = _operator("IntegerConcat")
QUANTISE = _operator("QuantizeLast", quantise)
DEQUANTISE = _operator("DequantizeLast", dequantise, infer_dequantised)
TO_LAST = _operator("BytesToLast", to_last)
FROM_LAST = _operator("BytesFromLast", from_last, infer_dequantised)
INTEGERS = (CONV, ADD, MAX_POOL, MEAN, CONCAT, QUANTISE, DEQUANTISE, TO_LAST, FROM_LAST)
