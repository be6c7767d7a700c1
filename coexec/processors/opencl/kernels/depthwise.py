"""Convolutions of single channels and their gradients, plane by plane (variants of ``conv``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.compressed import BLOCK
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
from coexec.processors.opencl.kernels import depthwise_lanes
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {"SLOTS": (8, 4, 16), "GRID": (16, 64)}
"""Shares of the work per compute unit; KiB of a grid, which bounds the rows of a band."""

MOST_SHARED = 32
"""Output channels of a single input channel; beyond, a matrix product does better."""

MOST_ROW_BYTES = 1 << 17
"""Longest padded row: a band of a few of them must fit a cache."""

RUN_ELEMENTS = 2048
"""Elements of neighbouring planes that are read in a row, where planes are smaller."""

LEAST_VECTOR_BYTES = 16
SLACK_VECTORS = 2
"""Vectors past a grid that are read, and dropped."""

Defines = dict[str, str | int | float]


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why planes do not fit this convolution, else ``None``."""
    refusal = refuse_convolution(call, facts)
    if refusal:
        return refusal
    w = Window.of(call)
    if accumulator(call.output(0).dtype) not in ("float32", "float64"):
        return f"{call.output(0).dtype.name}: grids hold float32 and float64"
    if w.inner != 1:
        return "a group has more than one input channel"
    if w.groups == 1 and w.outer > MOST_SHARED:
        return f"more than {MOST_SHARED} results of one channel: a product"
    if (w.in_size[0], w.kernel[0], w.out_size[0], w.pads[0]) != (1, 1, 1, 0):
        return "three spatial axes"
    if 8 * (w.in_size[2] + 2 * w.pads[2]) > MOST_ROW_BYTES:
        return "rows too long for a cache"
    return _refuse_transposed(call, w)


def _refuse_transposed(call: OpCall, w: Window) -> str | None:
    if call.identifier in ("Conv", "coexec::ConvWeightGrad"):
        return None
    if w.outer != 1:
        return "the input's gradient of several output channels per channel"
    if w.strides[2] > 2:
        return f"strides {w.strides}: more than two phases of columns"
    if w.strides != (1, 1, 1) and call.has_input(2):
        return "a bias with strides"
    return None


@dataclass(frozen=True)
class Shares:
    """How work is cut: lanes of a vector, bytes of a grid, shares per device."""

    lanes: int
    grid_bytes: int
    slots: int
    sums: np.dtype[np.generic]

    @classmethod
    def of(cls, call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Shares:
        sums = np.dtype(accumulator(call.output(0).dtype))
        lanes = max(facts.vector_bytes, LEAST_VECTOR_BYTES) // sums.itemsize
        slots = facts.compute_units * params["SLOTS"]
        return cls(lanes, params["GRID"] << 10, slots, sums)

    @property
    def slack(self) -> int:
        return SLACK_VECTORS * self.lanes

    def band(self, rows: int, pitch: int, more: int, stride: int) -> int:
        """Rows of a band: of so many that each read ``stride`` grid rows, and ``more`` in all."""
        room = self.grid_bytes // (pitch * self.sums.itemsize) - more
        return min(rows, max(room // stride, 4))

    def defines(self, dtype: np.dtype[np.generic]) -> Defines:
        same = int(dtype == self.sums)
        return {"T": c_type(dtype), "ACC": c_type(self.sums), "V": self.lanes, "SAME": same}

    def kernel(
        self,
        family: str,
        entry: str,
        operands: tuple[Argument, ...],
        tasks: int,
        slot_size: int,
        numbers: tuple[int, ...],
        defines: Defines,
    ) -> Lowering:
        """One kernel whose work-items share ``tasks`` and have ``slot_size`` elements each."""
        slots = min(self.slots, tasks)
        args = (*operands, scratch(0), *map(i32, numbers))
        kernel = KernelCall(family, entry, args, (slots,), (1,), defines)
        return Lowering((kernel,), (slots * slot_size * self.sums.itemsize,))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel: the convolution, or the gradient of its input or of its weights."""
    if call.output(0).size == 0:
        return Lowering(())
    w, shares = Window.of(call), Shares.of(call, facts, params)
    if depthwise_lanes.suits(call, w, shares.lanes):
        return depthwise_lanes.lower(call, w, shares.lanes, facts)
    if call.identifier == "coexec::ConvWeightGrad":
        return _weight(call, w, shares, (inp(0),))
    if call.identifier == "Conv":
        return _forward(call, w, shares, w.pads[1:], w.in_size[1:], w.out_size[1:], reverse=False)
    if w.strides == (1, 1, 1):
        reach = [(k - 1) * d for k, d in zip(w.kernel[1:], w.dilations[1:], strict=True)]
        pads = (reach[0] - w.pads[1], reach[1] - w.pads[2])
        return _forward(call, w, shares, pads, w.out_size[1:], w.in_size[1:], reverse=True)
    return _back(call, w, shares)


def refuse_codes(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why the gradient of the weights cannot expand planes of x, else ``None``."""
    if call.identifier != "coexec::ConvWeightGrad":
        return "only the gradient of the weights reads codes"
    refusal = refuse(call, facts)
    if refusal:
        return refusal
    if call.output(0).dtype != np.float32:
        return f"codes of {call.output(0).dtype.name} have kernels of their own"
    lanes = max(facts.vector_bytes, LEAST_VECTOR_BYTES) // 4
    if depthwise_lanes.suits(call, Window.of(call), lanes):
        return "channels in a vector's lanes: planes are small"
    return None


def lower_codes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int], bits: int) -> Lowering:
    """The gradient of the weights, with words of x as operand 0 and ends as operand 2."""
    return _weight(call, Window.of(call), Shares.of(call, facts, params), (inp(0), inp(2)), bits)


def _forward(
    call: OpCall,
    w: Window,
    shares: Shares,
    pads: tuple[int, int],
    source: tuple[int, int],
    result: tuple[int, int],
    *,
    reverse: bool,
) -> Lowering:
    """Y of X, or with ``reverse`` X of Y where strides are 1 (and ``pads`` may be negative)."""
    (_, k1, k2), (_, s1, s2), (_, d1, d2) = w.kernel, w.strides, w.dilations
    more = _together(w.outer, result[1] >= shares.lanes)
    walk = (k1, k2, s1, s2, d1, d2, more) == (3, 3, 1, 1, 1, 1, 1)
    sheet = ((result[1] - 1) * s2 + (k2 - 1) * d2) // s2 + 1
    reach = (k1 - 1) * d1 + 1
    band = shares.band(result[0], s2 * sheet, reach, s1)
    grid = ((band - 1) * s1 + reach) * s2 * sheet + shares.slack
    planes = w.batch * w.out_channels
    bands = -(-result[0] // band)
    tasks = planes // more * bands
    slot = grid + more * w.taps
    sizes = (*source, *result, s1, *pads, d1, sheet)
    bias = call.has_input(2)
    numbers = (int(bias), int(reverse), tasks, bands, band, w.out_channels, w.outer, slot, grid)
    shape: Defines = {"K1": k1, "K2": k2, "S2": s2, "D2": d2, "MORE": more}
    lowering = shares.kernel(
        "depthwise",
        "depthwise_walk" if walk else "depthwise",
        (inp(0), inp(1), inp(2) if bias else inp(1), out(0)),
        tasks,
        slot,
        (*numbers, *sizes),
        shares.defines(call.output(0).dtype) | ({"WALK": 1} if walk else shape),
    )
    (kernel,) = lowering.calls
    return replace(lowering, calls=(replace(kernel, finishes="tensors"),))


def _together(outer: int, fills: bool) -> int:
    """Channels of the result that are summed together from one channel of X."""
    return next(more for more in (4, 2, 1) if outer % more == 0 and (fills or more == 1))


def _back(call: OpCall, w: Window, shares: Shares) -> Lowering:
    """X of Y with strides: even and odd columns have taps of their own."""
    (_, k1, k2), (_, s1, s2), (_, d1, d2) = w.kernel, w.strides, w.dilations
    (i1, i2), (o1, o2), (p1, p2) = w.out_size[1:], w.in_size[1:], w.pads[1:]
    phase = p2 % s2
    whole = (p2 - phase) // s2
    margin = max(-(-((k2 - 1) * d2 - phase) // s2) - whole, 0)
    pitch = margin + max(i2, whole + 1 + -(-o2 // s2))
    lift = (p1 - (k1 - 1) * d1) // s1
    reach = (k1 - 1) * d1 // s1 + 2
    rows = shares.grid_bytes // (pitch * shares.sums.itemsize) - reach
    band = min(o1, max(rows, 4) * s1)
    grid_rows = (band - 1 + p1) // s1 - lift + 1
    grid = grid_rows * pitch + shares.slack
    bands = -(-o1 // band)
    tasks = w.batch * w.in_channels * bands
    numbers = (tasks, bands, band, w.in_channels, grid, grid)
    sizes = (i1, i2, o1, o2, p1, grid_rows, pitch, lift, margin + whole, margin)
    shape: Defines = {"K1": k1, "K2": k2, "S1": s1, "S2": s2, "D1": d1, "D2": d2, "P2": phase}
    defines = shares.defines(call.output(0).dtype) | shape
    operands = (inp(0), inp(1), out(0))
    return shares.kernel(
        "depthwise_back", "depthwise_back", operands, tasks, grid, (*numbers, *sizes), defines
    )


def _weight(
    call: OpCall, w: Window, shares: Shares, x: tuple[Argument, ...], bits: int = 0
) -> Lowering:
    """``x``: the operand, or its words and ends of codes of ``bits`` bits."""
    (_, k1, k2), (_, s1, s2), (_, d1, d2) = w.kernel, w.strides, w.dilations
    (i1, i2), (o1, o2), (p1, p2) = w.in_size[1:], w.out_size[1:], w.pads[1:]
    result, lanes = call.output(0), shares.lanes
    same = result.dtype == shares.sums
    fits = same and o2 % lanes == 0
    stays = fits and s2 == 1 and not _padded(w)
    more = 2 if w.outer % 2 == 0 else 1
    group = 5 if more == 2 or w.taps > 9 else 3 if w.taps <= 3 else 9
    sheet = ((o2 - 1) * s2 + (k2 - 1) * d2) // s2 + 1
    y_pitch = -(-o2 // lanes) * lanes
    reach = (k1 - 1) * d1 + 1
    band = o1 if stays else shares.band(o1, s2 * sheet + y_pitch, reach, s1)
    grid = 0 if stays else ((band - 1) * s1 + reach) * s2 * sheet + shares.slack
    right = 0 if fits else band * y_pitch
    tasks = w.out_channels // more
    together = _side_by_side(i1 * i2, -(-o1 // band), tasks // shares.slots)
    slot = grid + more * (right + together * w.taps * lanes) + w.taps
    slot += i1 * i2 + 2 * BLOCK if bits else 0
    numbers = (w.batch, tasks, -(-o1 // band), band, w.out_channels, w.outer, slot, grid, right)
    place = (i1, i2, o1, o2, k1, k2, s1, p1, p2, d1, d2, sheet, y_pitch)
    sizes = (*place, int(stays), int(fits), together)
    defines = shares.defines(result.dtype) | {"GROUP": group, "MORE": more, "S2": s2}
    if bits:
        defines["BITS"] = bits
        x = (*x, i32(slot - i1 * i2 - 2 * BLOCK))
    operands = (*x, inp(1), out(0))
    return shares.kernel(
        "depthwise_weight", "depthwise_weight", operands, tasks, slot, (*numbers, *sizes), defines
    )


def _side_by_side(plane: int, bands: int, most: int) -> int:
    """Tasks whose planes of an image are read one after the other: as many as make a long run."""
    return max(min(RUN_ELEMENTS // plane, most), 1) if bands == 1 else 1


def _padded(w: Window) -> bool:
    """Whether some tap falls outside of X."""
    ends = (
        (o - 1) * s + (k - 1) * d - p
        for o, s, k, d, p in zip(w.out_size, w.strides, w.kernel, w.dilations, w.pads, strict=True)
    )
    return any(w.pads) or any(end >= n for end, n in zip(ends, w.in_size, strict=True))
