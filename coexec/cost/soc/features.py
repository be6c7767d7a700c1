"""What a kernel's time depends on beside the limits of its processor: shapes, as numbers."""

from __future__ import annotations

import math

from coexec.core.soc import Soc
from coexec.cost.soc.limits import Limits
from coexec.cost.soc.workload import DEPTHWISE, FAMILIES, Workload

FEATURES = (
    "log flop",
    "log output pixels",
    "log input channels",
    "log output channels",
    "kernel",
    "stride",
    "log groups",
    "log loop length",
    "log input side",
    "family",
    "input channels in quads",
    "output channels in quads",
    "reads another tensor",
)
QUAD = 4
"""GPUs hold four channels in a texel: a count that is no multiple wastes a part of the last."""


def shape_features(work: Workload) -> tuple[float, ...]:
    """In the order of :data:`FEATURES`."""
    return (
        math.log(work.flop + 1),
        math.log(work.out_pixels),
        math.log(work.in_channels),
        math.log(work.out_channels),
        work.kernel,
        work.stride,
        math.log(work.groups),
        math.log(loop_length(work)),
        math.log(math.sqrt(max(work.in_elements / work.in_channels, 1.0))),
        FAMILIES.index(work.family),
        filled(work.in_channels),
        filled(work.out_channels),
        float(work.others > 0),
    )


def loop_length(work: Workload) -> float:
    """Steps that one work-item takes one after the other for one quad of outputs."""
    if work.family == DEPTHWISE:
        return max(work.kernel**2, 1.0)
    if work.flop and work.out_elements:
        return max(work.flop / work.out_elements / (2 * QUAD), 1.0)
    return 1.0


def filled(channels: float) -> float:
    """Share of the lanes that hold a channel."""
    return channels / (QUAD * math.ceil(channels / QUAD))


def gpu_roofline_us(work: Workload, limits: Limits, soc: Soc, precision: str) -> float:
    """Shortest kernel, arithmetic at the sustained rate, and traffic, one after the other.

    The sum, not the largest: a kernel loads, computes and stores in turn where few of its
    work-groups are on a compute unit at once. Work comes in whole waves over all compute units: a
    part of one takes as long as a full one.
    """
    items = work.out_pixels * math.ceil(work.out_channels / QUAD)
    waves = math.ceil(items / limits.units) * limits.units / items
    arithmetic = waves * work.flop / limits.gflops / 1e3
    kernel_us = soc.gpu.kernel_us if soc.gpu is not None else 0.0
    return kernel_us + arithmetic + work.traffic_bytes(precision) / limits.gbps / 1e3
