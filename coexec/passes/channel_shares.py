"""Layers whose filters are larger than what they compute on: divided by channels, not by samples.

Shares of the batch have every processor prepare all filters and compute a gradient as large as
they are, to be added to that of the others. Where filters are larger than the activations of the
whole batch, it is cheaper to move these: each processor has some of the output channels of all
samples, with their filters, gradients and normalisation, and sums up what it adds to the gradient
of the input (Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.split import CannotSplit
from coexec.ops.split_rules import way
from coexec.passes.batch_ways import Divided, Way

LAYERS = frozenset({"Conv", "Gemm"})
"""Operators with activations, then filters; results have their channels along the second axis."""
LEAST_BYTES = 1 << 20
"""Filters below that are prepared in less than an exchange takes."""
CHANNELS = 1
LANES = 16
"""Shares are multiples of so many channels where there are enough: vectors of kernels are full."""


def find_channel_way(call: OpCall, rows: Mapping[str, int], *, joined: bool) -> Way | None:
    """How a layer that is better divided by channels is divided, if this one is.

    ``rows`` are the samples by processor, in whose ratio channels are divided. ``joined``: each
    processor has all samples of the operand already.
    """
    if call.identifier not in LAYERS or not call.has_output(0):
        return None
    moved = call.output(0).size + (0 if joined else call.input(0).size)
    filters = call.input(1)
    if filters.nbytes < LEAST_BYTES or filters.size <= moved:
        return None
    try:
        how = way(call, CHANNELS)
    except CannotSplit:
        return None
    channels = call.output(0).shape[CHANNELS]
    if how.quantum > 1 or channels < len(rows):
        return None
    operands = {i: window.axis for i, window in enumerate(how.windows) if window is not None}
    return Way(operands, CHANNELS, channel_bounds(channels, rows))


def channel_bounds(channels: int, rows: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The channels of each processor (one at least), in the ratio of its samples."""
    step = LANES if channels >= 2 * LANES * len(rows) else 1
    units, parts = channels // step, len(rows)
    exact = np.cumsum([0, *rows.values()]) * channels / (sum(rows.values()) * step)
    edges = np.rint(exact).astype(int).tolist()
    for place in range(1, parts):
        edges[place] = min(max(edges[place], edges[place - 1] + 1), units - parts + place)
    ends = [*(edge * step for edge in edges[:-1]), channels]
    return dict(zip(rows, itertools.pairwise(ends), strict=True))


def readings(
    divided: Mapping[int, Divided], batch: Divided, of_batch: Collection[int]
) -> list[Mapping[int, Divided]]:
    """What of a node's operands to take as divided, the cheapest first.

    All as they are; those that are divided alike, others cut anew to match; one by channels with
    the others whole (gradients of filters, both of whose operands are in the same shares of
    channels); and all by samples, as ``batch`` is, where the first axis of operands ``of_batch`` is
    one of samples.
    """
    found: list[Mapping[int, Divided]] = [divided]
    kinds: dict[tuple[int, tuple[tuple[int, int], ...]], dict[int, Divided]] = {}
    for index, each in divided.items():
        kinds.setdefault((each.axis, tuple(each.bounds.values())), {})[index] = each
    there = [kind for kind in kinds.values() if any(each.values for each in kind.values())]
    if len(kinds) > 1:
        found += sorted(there, key=lambda kind: -next(iter(kind.values())).axis)
    if any(axis for axis, _ in kinds):
        found += [{index: each} for index, each in divided.items() if each.axis == CHANNELS]
        by_samples = {index: batch for index in divided if index in of_batch}
        found += [by_samples] if by_samples else []
    return found
