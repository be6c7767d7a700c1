"""Copies between a device and a part of an array of the host, whose elements lie in rows."""

from __future__ import annotations

import numpy as np
import pyopencl as cl

from coexec.base.array_parts import rows_of
from coexec.core.processor import Buffer, Host
from coexec.processors.opencl.buffer import OpenCLBuffer


def has_gaps(side: Buffer | Host) -> bool:
    """Whether this is memory of the host with other elements in between."""
    return isinstance(side, np.ndarray) and not side.flags.c_contiguous


def copy_rows(queue: cl.CommandQueue, dst: Buffer | Host, src: Buffer | Host) -> cl.Event:
    """Start a copy between a buffer and a part of an array, which the caller keeps alive.

    In the buffer the rows lie one behind the other.
    """
    part = dst if isinstance(dst, np.ndarray) else src
    assert isinstance(part, np.ndarray)
    memory, count, length, pitch = rows_of(part)

    def operand(side: Buffer | Host) -> cl.Buffer | Host:
        return side.memory if isinstance(side, OpenCLBuffer) else memory

    event: cl.Event = cl.enqueue_copy(
        queue,
        operand(dst),
        operand(src),
        buffer_origin=(0, 0, 0),
        host_origin=(0, 0, 0),
        region=(length, count, 1),
        buffer_pitches=(length,),
        host_pitches=(pitch,),
        is_blocking=False,
    )
    return event
