"""Parts of a call's time on an NPU: the columns of an additive model of its own.

A matrix unit works on blocks of 32 channels while weights, and maps that the memory beside it
(``tcm_bytes``) does not hold, come from DRAM: of both the longer one counts. Vector units do all
other operators. Maps lie in blocks of 32 channels and 8 x 8 pixels: what they do to maps, or join,
that are not made of whole ones is moved once more. The image of a run is brought into that order
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from coexec.cost.soc.limits import Limits
from coexec.cost.soc.workload import (
    ACTIVATION,
    ATTENTION,
    CONV,
    DENSE,
    DEPTHWISE,
    GROUPED,
    INPUT,
    JOINS,
    MOVE,
    OUTPUT,
    Workload,
)

BLOCK, SIDE = 32, 8
"""Channels that the matrix unit takes at once, and rows and columns of pixels of a block."""
WEIGHTS_SHARE = 0.8
"""What a byte of weights takes beside one of a map: they are read once, in order.

The decoder that reads most does so at 1.23 (8 Gen 3) and 1.32 times (8 Gen 2) ``npu_gbps``.
"""
VECTOR_SHARE = 8.0
"""How many times slower than the matrix unit the vector units are taken to be."""
IMAGE_ELEMENTS = 20.0
"""So many elements of a quantised image are moved for each one, before anything is fitted; maps of
whole blocks of channels are no images."""
PRIOR_BY_TERM = {
    "matrix unit or DRAM": 1.0,
    "groups: arithmetic": 0.2,
    "depthwise": 1.0,
    "convolutions: maps": 0.05,
    "products: arithmetic": 0.5,
    "products: maps": 0.2,
    "attention": 0.5,
    "normalisation": 0.3,
    "activations": 0.15,
    "streams from DRAM": 1.0,
    "resizing": 0.5,
    "moves": 0.3,
    "parts of blocks": 2.0,
    "streams": 0.05,
    "calls": 0.2,
    "runs": 0.25,
    "input": 1.5,
    "output": 0.5,
}
NPU_TERMS = tuple(PRIOR_BY_TERM)
NPU_PRIOR = np.array(list(PRIOR_BY_TERM.values()))
"""What holds for terms that no measurement tells: chosen by people who knew the errors."""
NPU_CALLS = NPU_TERMS.index("calls")
_PLACE = {name: place for place, name in enumerate(NPU_TERMS)}

NORMS = frozenset({"LayerNormalization", "InstanceNormalization", "BatchNormalization"})
ACTIVATIONS = frozenset(
    {"Gelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Erf", "Swish", "PRelu"}
)


def npu_rows(calls: Sequence[Workload], limits: Limits, precision: str) -> NDArray[np.float64]:
    """Microseconds of each term of each call, shape (calls, terms)."""
    rows = np.zeros((len(calls), len(NPU_TERMS)))
    for row, call in zip(rows, calls, strict=True):
        for name, us in _terms(call, limits, precision).items():
            row[_PLACE[name]] = us
    return rows


def _terms(work: Workload, limits: Limits, precision: str) -> dict[str, float]:
    itemsize = np.dtype(precision).itemsize

    def moved_us(elements: float) -> float:
        return elements * itemsize / limits.gbps / 1e3

    if work.op == INPUT:
        image = _in_blocks(work)
        if precision != "float16" and work.in_channels < BLOCK:
            image = IMAGE_ELEMENTS * work.out_elements
        return {"runs": limits.sync.median_us, "input": moved_us(image)}
    if work.op == OUTPUT:
        return {"output": moved_us(_in_blocks(work))}
    maps = work.in_elements + work.out_elements + work.others
    maps_us, resident = moved_us(maps), maps * itemsize <= limits.tcm_bytes
    call_us = limits.dispatch.median_us
    if work.family in {CONV, GROUPED, DENSE}:
        return {"calls": call_us} | _matrix(work, limits, moved_us(work.weights), maps_us, resident)
    if work.family == DEPTHWISE:
        arithmetic = VECTOR_SHARE * work.flop / limits.gflops / 1e3
        longer = max(arithmetic, 0.0 if resident else maps_us)
        return {"calls": call_us, "depthwise": longer} | _kept(maps_us, resident)
    if work.op == ACTIVATION:
        return {"activations": maps_us}
    if work.op in JOINS:
        # Whole blocks are read and written in place.
        return {"parts of blocks": moved_us(_largest(work))} if _in_parts(work) else {}
    found = {"calls": call_us} | _streams(work, maps_us, resident)
    if work.op != "Softmax" and _in_parts(work):
        found["parts of blocks"] = moved_us(work.out_elements)
    return found


def _matrix(
    work: Workload, limits: Limits, weights_us: float, maps_us: float, resident: bool
) -> dict[str, float]:
    """Convolutions and products: whole blocks of channels, or what comes from DRAM meanwhile."""
    plain = work.flop / limits.gflops / 1e3
    if work.family == GROUPED:
        fill = _filled(work.in_channels / work.groups)
    else:
        fill = _filled(work.in_channels) * _filled(work.out_channels)
    dram = WEIGHTS_SHARE * weights_us + (0.0 if resident else maps_us)
    found = {"matrix unit or DRAM": max(plain / fill, dram)}
    if work.family == GROUPED:
        found["groups: arithmetic"] = plain
    if work.op == ATTENTION:
        return found | {"attention": maps_us + weights_us}
    if work.op in {"MatMul", "Gemm"}:
        found["products: arithmetic"] = plain
        return found | ({"products: maps": maps_us} if resident else {})
    return found | _kept(maps_us, resident)


def _kept(maps_us: float, resident: bool) -> dict[str, float]:
    return {"convolutions: maps": maps_us} if resident else {}


def _streams(work: Workload, maps_us: float, resident: bool) -> dict[str, float]:
    if work.op == "Softmax":
        return {"attention": maps_us}
    if work.op in NORMS:
        return {"normalisation": maps_us}
    if work.op == "Resize":
        return {"resizing": maps_us}
    if work.family == MOVE or work.op == "DepthToSpace":
        return {"moves": maps_us}
    if not resident:
        return {"streams from DRAM": maps_us}
    return {"activations" if work.op in ACTIVATIONS else "streams": maps_us}


def _in_parts(work: Workload) -> bool:
    """Whether maps, or the parts that they are joined of, are not made of whole blocks."""
    pixels = work.height * work.width > 1 and bool(work.height % SIDE or work.width % SIDE)
    return pixels or (work.op in JOINS and work.part_channels % BLOCK != 0)


def _largest(work: Workload) -> float:
    """Elements of what is joined or split."""
    return max(work.in_elements, work.out_elements)


def _filled(channels: float) -> float:
    """Share of whole blocks that has a channel."""
    return channels / (BLOCK * ceil(channels / BLOCK))


def _in_blocks(work: Workload) -> float:
    """Elements of an image with its channels in whole blocks; a single row is no image."""
    elements = max(work.in_elements, work.out_elements)
    return elements if work.out_pixels <= 1 else elements / _filled(work.in_channels)
