"""Depthwise convolutions and their gradients on GPUs (depthwise_items.cl).

Neighbouring work-items have neighbouring columns. An item has a few results, one below the other,
so that what they read in common is read once.
"""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.conv_tiled import summed
from coexec.processors.opencl.kernels.packed import matches as refuse_type
from coexec.processors.opencl.kernels.tiles import parts_bytes, type_defines
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "PY": (4, 2, 1, 8),
    "LOCAL": (64, 128, 32),
    "GROUPS": (8, 4, 16),
}
"""Results of an item, items of a group, groups per compute unit that are enough."""

MOST_TAPS, MOST_ALONG = 49, 25
"""Taps that an item keeps in registers as weights, and as sums; in one row of them 25 as well."""
MOST_SUMS = 16
"""Results of an item: phases of strides times the results of each."""
MOST_STRIDE = 4
MOST_SHARED = 32
"""Output channels of a single input channel; beyond, a matrix product does better."""
LEAST_SPAN = 256
"""Positions of a part of a sum."""
MOST_PARTS = 64
LEAST_ITEMS = 128
"""Of a group that the device takes."""


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why single items do not fit this convolution, else ``None``."""
    refusal = refuse_convolution(call, facts) or refuse_type(call.output(0).dtype)
    if refusal:
        return refusal
    w = Window.of(call)
    if w.inner != 1:
        return "a group has more than one input channel"
    if w.groups == 1 and w.outer > 1:
        return "several results of one channel: a product"
    if w.outer > MOST_SHARED:
        return f"more than {MOST_SHARED} results of one channel: a product"
    if (w.in_size[0], w.kernel[0], w.out_size[0], w.pads[0]) != (1, 1, 1, 0):
        return "three spatial axes"
    if w.taps > MOST_TAPS or w.kernel[2] > MOST_ALONG or max(w.strides) > MOST_STRIDE:
        return f"{w.kernel[1]} x {w.kernel[2]} taps, strides {w.strides[1:]}: too many registers"
    if w.pixels == 0 or facts.max_work_group_size < LEAST_ITEMS:
        return "nothing to read, or small groups"
    return None


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Fewer results an item where there are few."""
    w = Window.of(call)
    planes = w.batch * w.out_channels
    rows, columns = w.out_size[1:]
    enough = facts.compute_units * SPACE["GROUPS"][0] * SPACE["LOCAL"][0]
    fitting = (n for n in (4, 2) if planes * columns * -(-rows // n) >= enough)
    return {"PY": next(fitting, 1)}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """The convolution, or the gradient of its input or of its weights."""
    if call.output(0).size == 0:
        return Lowering(())
    w = Window.of(call)
    if call.identifier == "coexec::ConvWeightGrad":
        return _weight(call, w, facts, params)
    return Lowering((_forward if call.identifier == "Conv" else _back)(call, w, params))


def _shape(call: OpCall, w: Window, kind: int) -> dict[str, str | int | float]:
    """The taps and what else programs know."""
    names = ("K1", "K2", "S1", "S2", "D1", "D2")
    values = (*w.kernel[1:], *w.strides[1:], *w.dilations[1:])
    return {
        **type_defines(call.output(0).dtype),
        **dict(zip(names, values, strict=True)),
        "KIND": kind,
    }


def _forward(call: OpCall, w: Window, params: Mapping[str, int]) -> tuple[KernelCall, ...]:
    rows = -(-w.out_size[1] // params["PY"])
    total = w.batch * w.out_channels * rows * w.out_size[2]
    return (_plain(call, w, "depthwise_items", total, w.out_channels, (), params, 0),)


def _back(call: OpCall, w: Window, params: Mapping[str, int]) -> tuple[KernelCall, ...]:
    phases = w.strides[1] * w.strides[2]
    params = {**params, "PY": max(1, min(params["PY"], MOST_SUMS // phases))}
    cells, firsts = [], []
    for size, pad, stride, rows in zip(
        w.in_size[1:], w.pads[1:], w.strides[1:], (params["PY"], 1), strict=True
    ):
        first = pad // stride
        cells.append(-(-((size - 1 + pad) // stride + 1 - first) // rows))
        firsts.append(first)
    total = w.batch * w.in_channels * cells[0] * cells[1]
    more = (*cells, *firsts)
    return (_plain(call, w, "depthwise_items_back", total, w.in_channels, more, params, 1),)


def _plain(
    call: OpCall,
    w: Window,
    entry: str,
    total: int,
    channels: int,
    more: tuple[int, ...],
    params: Mapping[str, int],
    kind: int,
) -> KernelCall:
    """A kernel of ``total`` items whose results have ``channels`` channels."""
    bias = call.has_input(2)
    numbers = (int(bias), total, channels, w.outer, *w.in_size[1:], *w.out_size[1:], *w.pads[1:])
    return KernelCall(
        family="depthwise_items",
        entry=entry,
        args=(
            *(inp(0), inp(1), inp(2) if bias else inp(1), out(0)),
            *map(i32, (*numbers, *more)),
        ),
        global_size=(ceil_to(total, params["LOCAL"]),),
        local_size=(params["LOCAL"],),
        defines={**_shape(call, w, kind), "PY": params["PY"]},
        finishes="tensors",
    )


def _weight(call: OpCall, w: Window, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    result, local = call.output(0), params["LOCAL"]
    positions = w.batch * w.pixels
    wanted = -(-facts.compute_units * params["GROUPS"] // w.out_channels)
    span = ceil_to(-(-positions // max(1, min(wanted, positions // LEAST_SPAN, MOST_PARTS))), local)
    parts = max(1, -(-positions // max(span, 1)))
    runs = 1 if w.taps <= MOST_ALONG else w.kernel[1]
    kernel = KernelCall(
        family="depthwise_items",
        entry="depthwise_items_weight",
        args=(
            *(inp(0), inp(1), out(0) if parts == 1 else scratch(0)),
            *map(i32, (w.batch, w.out_channels, w.outer, span)),
            *map(i32, (*w.in_size[1:], *w.out_size[1:], *w.pads[1:])),
        ),
        global_size=(w.out_channels * local, runs, parts),
        local_size=(local, 1, 1),
        defines={
            **_shape(call, w, 2),
            "LOCAL": local,
            "PARTS": int(parts > 1),
            "RUN": w.kernel[1] // runs,
        },
        flop=2 * result.size * positions,
        bytes=call.input(0).nbytes + call.input(1).nbytes + parts_bytes(result, parts),
    )
    return Lowering((kernel,)) if parts == 1 else summed(kernel, call, parts)
