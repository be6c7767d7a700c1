"""Convolutions of single channels and their gradients, plane by plane (variants of ``conv``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.conv_products import Phase, stride_phases
from coexec.processors.opencl.kernels.packed import MASKS, MOST_PHASES, VECTOR_BYTES
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {"SLOTS": (4, 2, 8)}
"""Planes in work per compute unit."""

MOST_GRID_BYTES = 1 << 20
MOST_SHARED = 32
"""Output channels of a single input channel; beyond, a matrix product does better."""

SLACK_VECTORS = 5
Pair = tuple[int, int]


@dataclass(frozen=True)
class Plane:
    """The window of one plane: as in depthwise.cl, with dilations > 0."""

    in_size: Pair
    out_size: Pair
    kernel: Pair
    strides: Pair
    pads: Pair
    dilations: Pair

    @property
    def sheet(self) -> Pair:
        """Rows and pitch of one sheet of the grid."""
        rows, pitch = (
            ((o - 1) * s + (k - 1) * d) // s + 1
            for o, k, s, d in zip(
                self.out_size, self.kernel, self.strides, self.dilations, strict=True
            )
        )
        return rows, pitch

    @property
    def grid_elements(self) -> int:
        rows, pitch = self.sheet
        return self.strides[0] * self.strides[1] * rows * pitch

    def scalars(self) -> tuple[int, ...]:
        return (
            *self.in_size,
            *self.out_size,
            *self.kernel,
            *self.strides,
            *self.pads,
            *self.dilations,
            *self.sheet,
        )


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why planes do not fit this convolution, else ``None``."""
    refusal = refuse_convolution(call, facts)
    if refusal:
        return refusal
    w = Window.of(call)
    if accumulator(call.output(0).dtype) not in MASKS:
        return f"{call.output(0).dtype.name}: grids hold float32 and float64"
    if w.inner != 1:
        return "a group has more than one input channel"
    if w.groups == 1 and w.outer > MOST_SHARED:
        return f"more than {MOST_SHARED} results of one channel: a product"
    if (w.in_size[0], w.kernel[0], w.out_size[0], w.pads[0]) != (1, 1, 1, 0):
        return "three spatial axes"
    if 8 * forward_plane(w).grid_elements > MOST_GRID_BYTES:
        return "planes too large for a cache"
    return _refuse_transposed(call, w)


def _refuse_transposed(call: OpCall, w: Window) -> str | None:
    if call.identifier in ("Conv", "coexec::ConvWeightGrad"):
        return None
    if w.outer != 1:
        return "the input's gradient of several output channels per channel"
    if w.strides[1] * w.strides[2] > MOST_PHASES:
        return f"strides {w.strides}: more than {MOST_PHASES} phases"
    return None


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel, or one per phase of the stride for the gradient of the input."""
    if call.output(0).size == 0:
        return Lowering(())
    w = Window.of(call)
    slots = facts.compute_units * params["SLOTS"]
    if call.identifier == "coexec::ConvWeightGrad":
        return _weight(call, w, min(slots, w.out_channels))
    if call.identifier == "Conv":
        return _forward(call, w, min(slots, w.batch * w.out_channels))
    return _input(call, w, min(slots, w.batch * w.in_channels))


def forward_plane(w: Window) -> Plane:
    """The plane of the forward convolution."""
    return Plane(
        w.in_size[1:], w.out_size[1:], w.kernel[1:], w.strides[1:], w.pads[1:], w.dilations[1:]
    )


def _forward(call: OpCall, w: Window, slots: int) -> Lowering:
    plane = forward_plane(w)
    weights = (w.taps, 0, w.kernel[2], 1)
    kernel, size = _kernel(call, w, plane, slots, weights, (1, 1), (0, 0))
    return Lowering((kernel,), (size,))


def _input(call: OpCall, w: Window, slots: int) -> Lowering:
    """Phases of the stride; each is a convolution of Y with some taps, in reverse."""
    axes = [
        stride_phases(w.in_size[i], w.kernel[i], w.strides[i], w.pads[i], w.dilations[i])
        for i in (1, 2)
    ]
    made = [_phase(call, w, slots, (a, b)) for a, b in product(*axes)]
    return Lowering(tuple(kernel for kernel, _ in made), (max(size for _, size in made),))


def _phase(
    call: OpCall, w: Window, slots: int, phases: tuple[Phase, Phase]
) -> tuple[KernelCall, int]:
    a, b = phases
    empty = min(a.taps, b.taps) == 0
    plane = Plane(
        w.out_size[1:],
        (a.count, b.count),
        (0, 0) if empty else (a.taps, b.taps),
        (1, 1),
        (0, 0) if empty else (_reverse_pad(a), _reverse_pad(b)),
        (1, 1) if empty else (-a.dilation, -b.dilation),
    )
    columns = w.kernel[2]
    last = (a.tap + (a.taps - 1) * a.step) * columns + b.tap + (b.taps - 1) * b.step
    weights = (w.taps, 0 if empty else last, -a.step * columns, -b.step)
    return _kernel(call, w, plane, slots, weights, w.strides[1:], (a.first, b.first))


def _reverse_pad(phase: Phase) -> int:
    """Padding once the taps run backwards and with them the (negative) dilation."""
    return phase.pad - (phase.taps - 1) * phase.dilation


def _kernel(
    call: OpCall,
    w: Window,
    plane: Plane,
    slots: int,
    weights: tuple[int, int, int, int],
    steps: Pair,
    first: Pair,
) -> tuple[KernelCall, int]:
    """The kernel of one plane's window and the bytes of its slots."""
    y = call.output(0)
    bias = call.has_input(2)
    slack = SLACK_VECTORS * _lanes(y.dtype)
    slot = plane.grid_elements + slack + plane.out_size[0] * plane.sheet[1] + slack + w.taps
    numbers = (
        int(bias),
        y.shape[0] * y.shape[1],
        y.shape[1],
        y.shape[1] // call.input(0).shape[1],
        slot,
        *weights,
        *(w.out_size if call.identifier == "Conv" else w.in_size)[1:],
        *steps,
        *first,
        *plane.scalars(),
    )
    operands: tuple[Argument, ...] = (inp(0), inp(1), inp(2) if bias else inp(1), out(0))
    kernel = KernelCall(
        family="depthwise",
        entry="depthwise",
        args=(*operands, scratch(0), *map(i32, numbers)),
        global_size=(slots,),
        local_size=(1,),
        defines=_defines(y.dtype),
    )
    return kernel, slots * slot * _sums(y.dtype).itemsize


def _weight(call: OpCall, w: Window, slots: int) -> Lowering:
    result, plane = call.output(0), forward_plane(w)
    slack = SLACK_VECTORS * _lanes(result.dtype)
    slot = plane.grid_elements + slack + plane.out_size[0] * plane.sheet[1] + slack
    slot += w.taps * (_lanes(result.dtype) + 1)
    numbers = (w.batch, w.out_channels, w.outer, slot, *plane.scalars())
    kernel = KernelCall(
        family="depthwise",
        entry="depthwise_weight",
        args=(inp(0), inp(1), out(0), scratch(0), *map(i32, numbers)),
        global_size=(slots,),
        local_size=(1,),
        defines={**_defines(result.dtype), "WEIGHT": 1},
    )
    return Lowering((kernel,), (slots * slot * _sums(result.dtype).itemsize,))


def _sums(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    return np.dtype(accumulator(dtype))


def _lanes(dtype: np.dtype[np.generic]) -> int:
    return VECTOR_BYTES // _sums(dtype).itemsize


def _defines(dtype: np.dtype[np.generic]) -> dict[str, str | int | float]:
    sums = _sums(dtype)
    return {"T": c_type(dtype), "ACC": c_type(sums), "V": _lanes(dtype), "SAME": int(dtype == sums)}
