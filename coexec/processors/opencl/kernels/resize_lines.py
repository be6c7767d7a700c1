"""Linear and cubic Resize on CPUs, row by row, one axis or two in a pass: ``resize_lines.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.resize_geometry import SNAP, SUPPORT, AxisMap, ResizeGeometry
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    Scalar,
    c_type,
    ceil_to,
    f32,
    i32,
    inp,
    out,
    scratch,
)

SPACE: Mapping[str, tuple[int, ...]] = {"SHARES": (4, 2, 8)}
"""Shares of the work per compute unit: each makes tables of its own."""

FRACTION = 42
"""Fractional bits of places: 21 bits remain for the position itself."""

MODES = ("nearest", "linear", "cubic")

MOST_TAPS = 32
"""Elements that an output is made of, along one axis: more belong to large reductions."""

LEAST_LANES = 4
LINE_BYTES = 64
"""What shares of scratch are multiples of: no two items write one line of a cache."""

ALONG_INNER, BY_ELEMENTS = 0, 1
PERIODS = {2: 2, 4: 3}
"""``WALK`` of the kernel for outputs that repeat their weights after so many."""


@dataclass(frozen=True)
class Pass:
    """Axes resampled together: x (planes, h, w, inner), along ``tall`` (h) and ``wide`` (w)."""

    planes: int
    tall: AxisMap | None
    wide: AxisMap | None
    inner: int

    @property
    def line(self) -> int:
        """Elements of a row of the result."""
        return self.inner * (self.wide.out_size if self.wide else 1)

    @property
    def rows(self) -> int:
        return self.planes * (self.tall.out_size if self.tall else 1)


@dataclass(frozen=True)
class Walk:
    """How rows are resampled: ``WALK`` of the kernel, lanes, and what it does by vectors."""

    number: int
    lanes: int
    low: int = 0
    high: int = 0


def refuse_lines(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why a call that the general kernel takes is not resampled row by row, else ``None``."""
    if call.op_type != "Resize":
        return "gradients gather by elements"
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    g = ResizeGeometry.of(call)
    if g.mode == "nearest" or not g.axes:
        return "elements are only moved"
    if call.input(0).dtype not in (np.float16, np.float32, np.float64):
        return f"rows of {call.input(0).dtype.name} are not added up as they are"
    if any(along.crop for along in g.axes):
        return "places outside take another value"
    if call.output(0).size == 0:
        return "no elements"
    if max(taps_of(g, along) for along in g.axes) > MOST_TAPS:
        return f"sums of more than {MOST_TAPS} elements along an axis"
    if any(p.tall and p.line < LEAST_LANES for p in passes_of(g)):
        return f"rows of fewer than {LEAST_LANES} elements"
    return None


def reach_of(g: ResizeGeometry, along: AxisMap) -> int:
    """Elements that the filter takes in on either side of a place."""
    return ceil(SUPPORT[g.mode] / along.filter_scale)


def taps_of(g: ResizeGeometry, along: AxisMap) -> int:
    """Elements that an output is made of along an axis."""
    return min(2 * reach_of(g, along), along.in_size)


def passes_of(g: ResizeGeometry) -> tuple[Pass, ...]:
    """Axes from the last one on, neighbours in pairs."""
    shape, left, found = list(g.in_shape), list(g.axes), []
    while left:
        last = left.pop()
        inner = prod(shape[last.axis + 1 :])
        if left and left[-1].axis == last.axis - 1:
            tall = left.pop()
            found.append(Pass(prod(shape[: tall.axis]), tall, last, inner))
            shape[tall.axis] = tall.out_size
        elif inner < LEAST_LANES:
            found.append(Pass(prod(shape[: last.axis]), None, last, inner))
        else:
            found.append(Pass(prod(shape[: last.axis]), last, None, inner))
        shape[last.axis] = last.out_size
    return tuple(found)


def walk_of(g: ResizeGeometry, p: Pass, widest: int) -> Walk:
    """The fastest way along rows that the sizes allow."""
    line = _power_below(min(widest, p.line)) if p.tall else widest
    if p.wide is None or p.inner >= LEAST_LANES:
        return Walk(ALONG_INNER, min(line, _power_below(p.inner)))
    for period, number in PERIODS.items():
        if p.inner == 1 and p.wide.slope * period == 1:
            low, high = _steady(g, p.wide, period)
            lanes = min(line, _power_below(max(high - low, 1)))
            if lanes >= LEAST_LANES:
                return Walk(number, lanes, low, high)
    return Walk(BY_ELEMENTS, line)


def _steady(g: ResizeGeometry, along: AxisMap, period: int) -> tuple[int, int]:
    """The elements i (first, behind the last) all of whose outputs reach no border."""
    reach = reach_of(g, along)
    bases = np.floor(along.positions()[:period])
    low = max(0, int(reach - 1 - bases.min()))
    return low, min(int(along.in_size - reach - bases.max()), along.out_size // period)


def _power_below(value: int) -> int:
    return 1 << (value.bit_length() - 1)


def lower_lines(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel a pass; between passes tensors are scratch, in the type of sums."""
    g, stored = ResizeGeometry.of(call), call.input(0).dtype
    dtype = np.dtype(np.float32) if stored == np.float16 else stored
    passes = passes_of(g)
    widest = max(min(facts.vector_bytes // dtype.itemsize, 16), LEAST_LANES)
    shares = facts.compute_units * params["SHARES"]
    source: Operand = inp(0)
    calls: list[KernelCall] = []
    blocks: list[int] = []
    for number, p in enumerate(passes):
        last = number == len(passes) - 1
        target = out(0) if last else scratch(len(blocks) + 2)
        walk = walk_of(g, p, widest)
        entries = 0
        if p.wide:
            each = 1 if walk.number == ALONG_INNER else p.inner
            entries = ceil_to(p.wide.out_size * each, LINE_BYTES // 4)
        slot = entries * (taps_of(g, p.wide) if p.wide else 0)
        slot += p.line * (taps_of(g, p.tall) if p.tall and p.wide else 0)
        slot = ceil_to(max(slot, 1), LINE_BYTES // 4)
        items = min(shares, p.rows)
        args = (
            *(source, target, scratch(len(blocks)), scratch(len(blocks) + 1), i32(p.planes)),
            *_axis(p.tall),
            *_axis(p.wide),
            *map(i32, (p.inner, walk.low, walk.high, entries, slot)),
            f32(g.cubic_a),
        )
        kinds = (dtype if number else stored, stored if last else dtype)
        defines = _defines(g, p, walk) | _types(dtype, *kinds)
        calls.append(KernelCall("resize_lines", "resize_lines", args, (items,), (1,), defines))
        blocks += [max(items * entries, 1) * 4, items * slot * dtype.itemsize]
        if not last:
            blocks.append(p.rows * p.line * dtype.itemsize)
        source = target
    return Lowering(tuple(calls), tuple(blocks))


def _types(sums: np.dtype[Any], x: np.dtype[Any], y: np.dtype[Any]) -> dict[str, str | int]:
    """Of sums, and of what a pass reads and writes where that is another one."""
    found: dict[str, str | int] = {"ACC": c_type(sums)}
    for name, own in (("X", x), ("Y", y)):
        if own != sums:
            found |= {f"{name}T": c_type(own), f"{name}_SAME": 0}
    return found


def _axis(along: AxisMap | None) -> tuple[Argument, ...]:
    """``LINE`` of the kernel; an axis that stays as it is has one element, and is not looked at."""
    if along is None:
        return (i32(1), i32(1), *(Scalar(0, "int64"),) * 3, f32(1.0))
    snap = max(round(SNAP * (1 << FRACTION)), along.out_size)
    fixed = (round(along.slope * (1 << FRACTION)), round(along.offset * (1 << FRACTION)), snap)
    return (
        i32(along.in_size),
        i32(along.out_size),
        *(Scalar(value, "int64") for value in fixed),
        f32(along.filter_scale),
    )


def _defines(g: ResizeGeometry, p: Pass, walk: Walk) -> dict[str, str | int | float]:
    defines: dict[str, str | int | float] = {
        "TALL": int(p.tall is not None),
        "WIDE": int(p.wide is not None),
        "WALK": walk.number,
        "V": walk.lanes,
        "MODE": MODES.index(g.mode),
        "FRACTION": FRACTION,
        "EXCLUDE": int(g.exclude_outside),
        "NORMALISE": int(g.exclude_outside or any(a.filter_scale < 1 for a in g.axes)),
    }
    for name, along in (("TALL", p.tall), ("WIDE", p.wide)):
        if along:
            defines[f"{name}_REACH"] = reach_of(g, along)
            defines[f"{name}_TAPS"] = taps_of(g, along)
    return defines
