"""Signal processing: DFT, STFT and the weights of mel bins.

https://onnx.ai/onnx/operators/onnx__DFT.html and its like. The last axis of a signal holds a real
part, or a real and an imaginary one. Bodies are a product with (or a convolution by) the matrix of
sines and cosines, as long as that is of some megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import known, known_int, normalize_axis
from coexec.ops.cast import numpy_type
from coexec.ops.elementwise import is_float
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import Example, OpDef, Sample, Work
from coexec.ops.precision import widened

MAX_MATRIX = 2**22
"""Elements of a matrix in a body: 16 MiB of float32."""

BY_BODY = "training puts its body in its place, which has a gradient"


@dataclass(frozen=True)
class Transform:
    """``length`` samples of ``parts`` (1: real, 2: complex) to ``bins`` of ``results`` parts."""

    length: int
    parts: int
    size: int
    bins: int
    results: int
    inverse: bool

    @classmethod
    def make(cls, length: int, parts: int, size: int, inverse: bool, onesided: bool) -> Transform:
        """``size`` decides how many samples are looked at; ``ValueError`` if it is not positive."""
        if size < 1 or parts not in (1, 2) or length < 1:
            raise ValueError(f"a DFT of {size} from {length} samples of {parts} parts")
        bins = size // 2 + 1 if onesided and not inverse else size
        return cls(length, parts, size, bins, 1 if onesided and inverse else 2, inverse)

    def matrix(self) -> Array:
        """Real matrix (bins, results, parts, samples), float64, of the samples looked at."""
        taken = min(self.length, self.size)
        angle = 2 * np.pi * (np.outer(np.arange(self.bins), np.arange(taken)) % self.size)
        cos, sin = np.cos(angle / self.size), np.sin(angle / self.size)
        if not self.inverse:
            sin = -sin
        if self.results == 1:
            weight = np.ones(taken)
            weight[1 : (self.size + 1) // 2] = 2  # those that the other side repeats
            whole = np.stack([np.stack([cos, -sin], 1) * weight], 1)[..., : self.size // 2 + 1]
        else:
            whole = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
        factor = 1 / self.size if self.inverse else 1.0
        return np.asarray(whole[:, :, : self.parts] * factor)

    def apply(self, x: Array) -> Array:
        """Of samples along the last axis but one, by NumPy's fast transform."""
        signal = x[..., 0] + 1j * x[..., 1] if self.parts == 2 else x[..., 0]
        if self.results == 1:
            return np.asarray(np.fft.irfft(signal, self.size)[..., None])
        transform = np.fft.ifft if self.inverse else np.fft.fft
        found = transform(signal, self.size)[..., : self.bins]
        return np.stack([found.real, found.imag], axis=-1)


def dft_of(call: OpCall) -> tuple[int, Transform]:
    """Axis from the front and transform of a DFT."""
    kind = call.input(0)
    axis = known_int(call, 2, "axis") if call.has_input(2) else -2
    axis = normalize_axis(axis, kind.rank)
    if axis == kind.rank - 1 or not is_float(kind.dtype):
        raise ValueError(f"DFT of {kind} along axis {axis}, the last one being that of parts")
    inverse, onesided = bool(call.attribute("inverse", 0)), bool(call.attribute("onesided", 0))
    length, parts = kind.shape[axis], kind.shape[-1]
    if onesided and parts != (2 if inverse else 1):
        raise ValueError(f"DFT of {kind}: one side is that of a real signal")
    usual = 2 * (length - 1) if inverse and onesided else length
    size = known_int(call, 1, "dft_length") if call.has_input(1) else usual
    return axis, Transform.make(length, parts, size, inverse, onesided)


def infer_dft(call: OpCall) -> Sequence[TensorType]:
    axis, t = dft_of(call)
    shape = call.input(0).shape
    return (call.input(0).with_shape((*shape[:axis], t.bins, *shape[axis + 1 : -1], t.results)),)


@widened
def dft(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    axis, t = dft_of(call)
    x = np.moveaxis(np.asarray(operands[0]), axis, -2)
    return (np.moveaxis(t.apply(x), -2, axis).astype(x.dtype),)


def dft_body(call: OpCall) -> ir.Function | None:
    """One product of all lines with the matrix."""
    axis, t = dft_of(call)
    b, kind = FunctionBuilder(call), call.input(0)
    if t.bins * t.results * t.parts * min(t.length, t.size) > MAX_MATRIX:
        return None
    taken = min(t.length, t.size)
    x = b.inputs[0]
    if taken < t.length:
        x = b.op("Slice", [x, *(b.shape([value]) for value in (0, taken, axis))])
    others = [i for i in range(kind.rank - 1) if i != axis]
    lines = b.op("Transpose", [x], {"perm": (*others, kind.rank - 1, axis)})
    lines = b.op("Reshape", [lines, b.shape([-1, t.parts * taken])])
    matrix = t.matrix().reshape(t.bins * t.results, -1).T
    found = b.op("MatMul", [lines, b.constant(matrix, kind.dtype)])
    sizes = [kind.shape[i] for i in others]
    found = b.op("Reshape", [found, b.shape([*sizes, t.bins, t.results])])
    back = [*range(axis), len(others), *range(axis, len(others)), len(others) + 1]
    return b.function([b.op("Transpose", [found], {"perm": tuple(back)})])


@dataclass(frozen=True)
class Frames:
    """``count`` frames of ``transform.length`` samples, ``step`` apart."""

    count: int
    step: int
    transform: Transform

    @classmethod
    def of(cls, call: OpCall) -> Frames:
        """Of an STFT; ``ValueError`` where operands do not fit."""
        kind, step = call.input(0), known_int(call, 1, "frame_step")
        window = call.input(2).shape if call.has_input(2) else None
        if kind.rank not in (2, 3) or not is_float(kind.dtype) or step < 1:
            raise ValueError(f"STFT of {kind} in steps of {step}")
        usual = kind.shape[1] if window is None else prod(window)
        length = known_int(call, 3, "frame_length") if call.has_input(3) else usual
        if window is not None and window != (length,):
            raise ValueError(f"STFT: window {call.input(2)} of frames of {length}")
        if not 1 <= length <= kind.shape[1]:
            raise ValueError(f"STFT: frames of {length} in {kind}")
        parts = kind.shape[2] if kind.rank == 3 else 1
        onesided = bool(call.attribute("onesided", 1))
        if onesided and parts == 2:
            raise ValueError(f"STFT of {kind}: one side is that of a real signal")
        transform = Transform.make(length, parts, length, False, onesided)
        return cls((kind.shape[1] - length) // step + 1, step, transform)


def infer_stft(call: OpCall) -> Sequence[TensorType]:
    f = Frames.of(call)
    return (call.input(0).with_shape((call.input(0).shape[0], f.count, f.transform.bins, 2)),)


@widened
def stft(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    f, x = Frames.of(call), np.asarray(operands[0])
    signal = x.reshape(*x.shape[:2], f.transform.parts)
    at = np.arange(f.count)[:, None] * f.step + np.arange(f.transform.length)
    frames = signal[:, at]
    if call.has_input(2):
        frames = frames * np.asarray(operands[2])[:, None]
    return (f.transform.apply(frames).astype(x.dtype),)


def stft_body(call: OpCall) -> ir.Function | None:
    """A convolution by sines and cosines, each times the window."""
    f, kind = Frames.of(call), call.input(0)
    t, b = f.transform, FunctionBuilder(call)
    if t.bins * 2 * t.parts * t.length > MAX_MATRIX:
        return None
    filters = b.constant(t.matrix().reshape(t.bins * 2, t.parts, t.length), kind.dtype)
    if call.has_input(2):
        filters = b.op("Mul", [filters, b.inputs[2]])
    x = b.op("Reshape", [b.inputs[0], b.shape([kind.shape[0], -1, t.parts])])
    x = b.op("Transpose", [x], {"perm": (0, 2, 1)})
    found = b.op("Conv", [x, filters], {"strides": (f.step,)})
    found = b.op("Transpose", [found], {"perm": (0, 2, 1)})
    return b.function([b.op("Reshape", [found, b.shape([kind.shape[0], f.count, t.bins, 2])])])


def infer_mel(call: OpCall) -> Sequence[TensorType]:
    bins, size, rate = (
        known_int(call, i, what) for i, what in enumerate(("num_mel_bins", "dft_length", "rate"))
    )
    if min(bins, size, rate) < 1:
        raise ValueError(f"MelWeightMatrix: {bins} bins of a DFT of {size} at {rate} Hz")
    dtype = numpy_type(int(call.attribute("output_datatype", int(ir.DataType.FLOAT))))
    return (TensorType((size // 2 + 1, bins), dtype),)


def mel_weights(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Triangles between whole bins of the spectrum, that are even on the mel scale."""
    bins, size, rate = (known_int(call, i, "size") for i in range(3))
    edges = [float(np.asarray(known(call, i, "edge")).reshape(())) for i in (3, 4)]
    low, high = (2595 * np.log10(1 + edge / 700) for edge in edges)
    mel = low + np.arange(bins + 2) * (high - low) / (bins + 2)
    points = ((size + 1) * (700 * (10 ** (mel / 2595) - 1)) // rate).astype(np.int64)
    at = np.arange(size // 2 + 1)[:, None]
    left, middle, right = points[:-2], points[1:-1], points[2:]
    rising = np.where(middle > left, (at - left) / np.maximum(middle - left, 1), at == middle)
    falling = (right - at) / np.maximum(right - middle, 1)
    up = (at >= left) & (at <= middle)
    down = (at >= middle) & (at < right) & (right > middle)
    weights = np.where(down, falling, np.where(up, rising, 0.0))
    return (weights.astype(call.output(0).dtype),)


def dft_work(call: OpCall) -> Work:
    """5 n log n for a line, as fast transforms are counted."""
    t = dft_of(call)[1] if call.op_type == "DFT" else Frames.of(call).transform
    lines = call.output(0).size // (t.bins * t.results)
    moved = sum(k.nbytes for k in (*call.inputs, *call.outputs) if k is not None)
    return Work(int(5 * t.size * np.log2(max(t.size, 2))) * lines, moved)


def _dft(*shape: int, size: int | None = None, axis: int | None = None, **more: Any) -> Example:
    length = None if size is None else np.array(size)
    return Example((Sample(shape), length, None if axis is None else np.array(axis)), more)


OPS = (
    OpDef(
        "DFT",
        infer_dft,
        dft,
        not_differentiable=BY_BODY,
        work=dft_work,
        value_inputs=(1, 2),
        body=dft_body,
        examples=(
            _dft(2, 12, 1, onesided=1),
            _dft(3, 7, 2, size=5),
            _dft(2, 5, 3, 2, axis=1, inverse=1),
            _dft(2, 6, 1, size=9, axis=1, onesided=1),
        ),
    ),
    OpDef(
        "STFT",
        infer_stft,
        stft,
        not_differentiable=BY_BODY,
        work=dft_work,
        value_inputs=(1, 3),
        body=stft_body,
        examples=(
            Example((Sample((2, 40, 1)), np.array(4), Sample((16,), low=0.2))),
            Example((Sample((1, 23, 1)), np.array(5), None, np.array(8)), {"onesided": 0}),
            Example((Sample((2, 20, 2)), np.array(3), Sample((6,))), {"onesided": 0}),
        ),
    ),
    OpDef(
        "MelWeightMatrix",
        infer_mel,
        mel_weights,
        not_differentiable="the output depends on numbers that are known before running only",
        value_inputs=(0, 1, 2, 3, 4),
        examples=(
            Example(
                tuple(np.array(n) for n in (8, 16, 8192))
                + tuple(np.array(n, np.float32) for n in (0.0, 4096.0)),
                gradient=False,
            ),
        ),
    ),
)
