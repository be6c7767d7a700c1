"""Tickets of the copies that the host makes by itself."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pyopencl as cl

from coexec.core.events import COPY
from coexec.core.processor import Buffer, Host
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.executable import Label
from coexec.processors.opencl.in_place import InPlace
from coexec.processors.opencl.ticket import OpenCLTicket
from coexec.processors.opencl.transfers import has_gaps


def copy_by_host(
    queue: cl.CommandQueue, dst: Buffer | Host, src: Buffer | Host
) -> OpenCLTicket | None:
    """A copy without the device; none where it is needed, or still works on the buffer."""
    if has_gaps(dst) or has_gaps(src):
        return None
    if isinstance(dst, OpenCLBuffer):
        if dst.in_place is None or isinstance(src, Buffer) or not dst.in_place.idle:
            return None
        span = dst.in_place.write(src)
        return OpenCLTicket("write", COPY, [], _labels("write", src.nbytes), src, spans=[span])
    if not isinstance(src, OpenCLBuffer) or src.in_place is None or isinstance(dst, Buffer):
        return None
    memory = src.memory

    def enqueue() -> cl.Event:
        return cl.enqueue_copy(queue, dst, memory, is_blocking=False)

    read = src.in_place.read(dst, enqueue)
    labels = _labels("read", dst.nbytes)
    return OpenCLTicket("read", COPY, read.events, labels, dst, spans=read.spans, left=read)


def before_command(sides: Iterable[Buffer | Host]) -> list[InPlace]:
    """The memory among ``sides`` that the host copies by itself, ready to be used by a command."""
    places = [s.in_place for s in sides if isinstance(s, OpenCLBuffer) and s.in_place]
    for place in places:
        place.hand_over()
    return places


@cache
def _labels(direction: str, nbytes: int) -> tuple[Label, ...]:
    return (Label(direction, bytes=nbytes),)
