"""Queues that record times, and a device's clock beside the host's."""

from __future__ import annotations

import time
from collections.abc import Callable

import pyopencl as cl

ROUNDS = 5


def timed_queue(context: cl.Context) -> cl.CommandQueue:
    """An in-order queue, with times if the device has any."""
    try:
        return cl.CommandQueue(context, properties=cl.command_queue_properties.PROFILING_ENABLE)
    except cl.Error:
        return cl.CommandQueue(context)


def clock_offset(queue: cl.CommandQueue, block: Callable[[cl.Event], None]) -> int | None:
    """Nanoseconds to add to device times to get host monotonic times (best of a few).

    ``None`` where the device records no times, or such as stand still: Mesa 22.3 says for every
    command that it ended at 3.
    """
    offsets: list[int] = []
    ends: list[int] = []
    for _ in range(ROUNDS):
        event = cl.enqueue_marker(queue)
        block(event)
        now = time.perf_counter_ns()
        try:
            ends.append(event.profile.end)
        except cl.Error:
            return None
        offsets.append(now - ends[-1])
    return min(offsets) if ends[-1] > ends[0] else None
