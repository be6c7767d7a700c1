"""Borders around or between elements: Pad, CenterCropPad, SliceGrad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from coexec.core.types import OpCall
from coexec.ops.pad import borders, centered_borders, pad_mode
from coexec.ops.pieces import scattered_cuts
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    i32,
    inp,
    out,
)
from coexec.processors.opencl.kernels.moves import (
    MAX_RANK,
    WORDS,
    refuse_moves,
    row_grid,
    row_major,
    span_of,
)

MODES = {"constant": 0, "reflect": 1, "edge": 2, "wrap": 3}
DILATED = 4
"""Numbers of the kernel's MODE."""


VECTORS = (2, 4, 8, 16)
"""Elements of vectors."""


@dataclass(frozen=True)
class Window:
    """One dimension: ``size`` of the output, ``count`` source elements from ``before`` on."""

    size: int
    count: int
    before: int
    stride: int
    step: int = 1

    @property
    def untouched(self) -> bool:
        return (self.size, self.before, self.step) == (self.count, 0, 1)


def merged(windows: Sequence[Window], flat: bool) -> list[Window]:
    """Fewer windows: an untouched one joins the one before it, always where ``flat`` says so.

    With constant borders (``flat``) a bordered dimension followed by untouched ones is a bordered
    dimension of longer elements; mirrored borders reorder elements, so that only untouched
    dimensions may join.
    """
    result: list[Window] = []
    for window in windows:
        last = result[-1] if result else None
        whole = last is not None and last.stride == window.stride * window.count
        if last is not None and whole and window.untouched and (last.untouched or flat):
            size, count = last.size * window.size, last.count * window.count
            result[-1] = Window(size, count, last.before * window.size, window.stride)
        else:
            result.append(window)
    return result


def pad_windows(
    shape: Sequence[int], around: Sequence[tuple[int, int]]
) -> tuple[int, list[Window]]:
    """Offset into the source, and a window per dimension, of a Pad.

    A negative border moves the start of the source; what is left of it is what modes mirror.
    """
    windows, offset = [], 0
    for size, stride, (before, after) in zip(shape, row_major(shape), around, strict=True):
        count = size + min(before, 0) + min(after, 0)
        windows.append(Window(size + before + after, count, max(before, 0), stride))
        offset += max(-before, 0) * stride
    return offset, windows


def slice_grad_windows(call: OpCall) -> tuple[int, list[Window]]:
    grad, cuts = call.input(0), scattered_cuts(call)
    strides, sizes = row_major(grad.shape), call.output(0).shape
    return 0, [
        Window(size, cut.count, cut.start, stride, cut.step)
        for size, cut, stride in zip(sizes, cuts, strides, strict=True)
    ]


def _plan(call: OpCall) -> tuple[int, int, list[Window]]:
    """(mode, offset, windows) of a call."""
    shape = call.input(0).shape
    if call.op_type == "SliceGrad":
        return DILATED, *slice_grad_windows(call)
    if call.op_type == "CenterCropPad":
        return MODES["constant"], *pad_windows(shape, centered_borders(call))
    return MODES[pad_mode(call)], *pad_windows(shape, borders(call))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    mode, offset, windows = _plan(call)
    return _window(call, mode, offset, merged(windows, mode == MODES["constant"]), params)


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One element per work-item, every dimension on its own."""
    return _window(call, *_plan(call), {**params, "SPAN": 1})


def _window(
    call: OpCall, mode: int, offset: int, windows: list[Window], params: Mapping[str, int]
) -> Lowering:
    windows = windows or [Window(1, 1, 0, 1)]
    *outer, last = windows
    rows = prod(w.size for w in outer)
    if not rows * last.size:
        return Lowering(())
    padded = [*outer, *[Window(1, 1, 0, 0)] * (MAX_RANK - 1 - len(outer))]
    has_value = call.op_type == "Pad" and call.has_input(2)
    scalars = [offset, rows, last.size, last.count, last.before, last.step]
    for w in padded:
        scalars += [w.size, w.count, w.before, w.stride, w.step]
    span = span_of(last.size, params["SPAN"])
    kernel = KernelCall(
        "pad",
        "window",
        (inp(0), inp(2) if has_value else inp(0), out(0), *map(i32, scalars)),
        *row_grid(last.size, rows, span, params["LOCAL"]),
        {
            "T": WORDS[call.output(0).dtype.itemsize],
            "RANK": len(windows),
            "MODE": mode,
            "HAS_VALUE": int(has_value),
            "SPAN": span,
            "VECTORS": int(call.output(0).dtype.itemsize == 2 and span in VECTORS),
        },
    )
    return Lowering((kernel,))


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.input(0).rank > MAX_RANK:
        return f"more than {MAX_RANK} dimensions"
    return refuse_moves((*call.inputs, *call.outputs))


def suited(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """On a GPU neighbouring items write neighbouring elements."""
    return {"SPAN": 1, "LOCAL": 64} if facts.unit_kind == "gpu" else {}


FAMILY = KernelFamily(
    "pad",
    ("Pad", "CenterCropPad", "coexec::SliceGrad"),
    (
        Variant("merged", lower, applies, {"SPAN": (16, 64, 4, 1), "LOCAL": (16, 64, 4)}, suited),
        Variant("naive", lower_naive, applies, {"LOCAL": (64,)}),
    ),
)
