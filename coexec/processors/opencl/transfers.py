"""The driver's copies: between buffers, and between one and memory of the host.

That may be a part of an array, whose elements lie in rows with others in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyopencl as cl

from coexec.base.array_parts import rows_of
from coexec.core.processor import Buffer, Host
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.programs import INTEL

LARGE, LARGE_ROWS = 8 << 20, 8
"""Bytes from which on Intel's runtime copies faster in so many rows: what it does with one row is
for memory that nobody reads soon. (Two cores of a Zen 4, one row and eight: 25.6 MB to the host in
2.4 and 1.2 ms, from there in 2.1 and 1.2; 12.8 MB in 0.8 and 0.5, 0.7 and 0.6; 6.4 MB 0.3 and 0.2,
0.2 and 0.2.)"""


def has_gaps(side: Buffer | Host) -> bool:
    """Whether this is memory of the host with other elements in between."""
    return isinstance(side, np.ndarray) and not side.flags.c_contiguous


def can_map(dst: Buffer | Host, src: Buffer | Host) -> bool:
    """Whether one side is a buffer and the other memory of the host without gaps."""
    between = isinstance(dst, OpenCLBuffer) != isinstance(src, OpenCLBuffer)
    return between and not (has_gaps(dst) or has_gaps(src))


def enqueue_copy(
    queue: cl.CommandQueue, dst: Buffer | Host, src: Buffer | Host, after: Sequence[cl.Event]
) -> cl.Event:
    """Start a copy behind some events. Memory of the host must live until it is done."""
    if has_gaps(dst) or has_gaps(src):
        return _enqueue_rows(queue, dst, src, after)
    if _is_faster_in_rows(queue, dst, src):
        return _enqueue_rows(queue, dst, src, after, LARGE_ROWS)
    target, source = _operand(dst), _operand(src)
    # Host memory is not mapped here but read or written in the background.
    extra: dict[str, Any] = (
        {"byte_count": src.nbytes}
        if isinstance(target, cl.Buffer) and isinstance(source, cl.Buffer)
        else {"is_blocking": False}
    )
    event: cl.Event = cl.enqueue_copy(queue, target, source, wait_for=after or None, **extra)
    return event


def _is_faster_in_rows(queue: cl.CommandQueue, dst: Buffer | Host, src: Buffer | Host) -> bool:
    """Whether a large copy between a buffer and the host takes less time row by row."""
    between = isinstance(dst, OpenCLBuffer) != isinstance(src, OpenCLBuffer)
    even = src.nbytes >= LARGE and src.nbytes % LARGE_ROWS == 0
    return between and even and queue.device.platform.name == INTEL


def _enqueue_rows(
    queue: cl.CommandQueue,
    dst: Buffer | Host,
    src: Buffer | Host,
    after: Sequence[cl.Event],
    parts: int = 1,
) -> cl.Event:
    """Start a copy between a buffer, where rows lie without gaps, and a part of an array.

    An array without gaps, which is one row, may be taken for ``parts`` of it as rows.
    """
    part = dst if isinstance(dst, np.ndarray) else src
    assert isinstance(part, np.ndarray)
    memory, count, length, pitch = rows_of(part)
    if parts > 1:
        count, length, pitch = parts, length // parts, length // parts
    target: Any = dst.memory if isinstance(dst, OpenCLBuffer) else memory
    source: Any = src.memory if isinstance(src, OpenCLBuffer) else memory
    # Rows are missing in PyOpenCL's own types.
    rows: dict[str, Any] = {
        "buffer_origin": (0, 0, 0),
        "host_origin": (0, 0, 0),
        "region": (length, count, 1),
        "buffer_pitches": (length,),
        "host_pitches": (pitch,),
        "is_blocking": False,
    }
    event: cl.Event = cl.enqueue_copy(queue, target, source, wait_for=after or None, **rows)
    return event


def _operand(side: Buffer | Host) -> cl.Buffer | Host:
    return side.memory if isinstance(side, OpenCLBuffer) else side  # type: ignore[return-value]
