"""Mapped buffers: copies through them, and memory of the host that kernels compute on in place.

By the rules of OpenCL, a buffer's memory is the host's while it is mapped and the device's
otherwise. Where a buffer lies over memory of the host, telling the driver so is all there is to do;
and where it *is* that memory, as on CPUs, not even that (a map and its end take a tenth of a
millisecond of the host's time, most of it Python's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyopencl as cl

from coexec.base.pages import PAGE, ask_for_large_pages, gather_in_large_pages, page_aligned
from coexec.core.processor import Buffer, Host
from coexec.processors.opencl.buffer import OpenCLBuffer, View

Block = Callable[[cl.Event], None]


def buffer_over(context: cl.Context, memory: Host) -> OpenCLBuffer:
    """A buffer that lies over memory of the host.

    Raises:
        cl.Error: the driver refuses.
    """
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
    return OpenCLBuffer(cl.Buffer(context, flags, hostbuf=memory), memory.nbytes, memory)


def is_host_memory(context: cl.Context, device: cl.Device) -> bool:
    """Whether a buffer over memory of the host is that memory, for both sides at any time.

    Drivers of CPUs have no other; but one may keep a copy, and compare both when it maps. So it is
    tried: what one side wrote, the other must see.
    """
    if not device.type & cl.device_type.CPU:
        return False
    queue = cl.CommandQueue(context)
    memory, ones = page_aligned(PAGE), np.ones(PAGE, np.uint8)
    memory[:] = 0
    buffer = buffer_over(context, memory)
    cl.enqueue_copy(queue, buffer.memory, ones, is_blocking=True)
    device_wrote = bool((memory == ones).all())
    memory[:] = 2
    seen = np.empty_like(ones)
    cl.enqueue_copy(queue, seen, buffer.memory, is_blocking=True)
    return device_wrote and bool((seen == memory).all())


def wish_for_large_pages(context: cl.Context, buffer: OpenCLBuffer) -> None:
    """Ask the system for large pages below a new buffer of a device that shares the host's memory.

    Drivers map ordinary pages, of which a tensor has thousands, and kernels that walk along several
    rows wait for their translation. A queue of its own: nothing that was started is waited for.
    """
    queue = cl.CommandQueue(context)
    view, event = _map(queue, buffer, cl.map_flags.WRITE_INVALIDATE_REGION, buffer.nbytes)
    event.wait()
    ask_for_large_pages(view.array)
    view.release(queue).wait()


def gather_large_pages(context: cl.Context, buffer: OpenCLBuffer) -> None:
    """Put a buffer that was written into large pages; as :func:`wish_for_large_pages`."""
    if buffer.over is not None:
        gather_in_large_pages(buffer.over)
        return
    queue = cl.CommandQueue(context)
    view, event = _map(queue, buffer, cl.map_flags.READ, buffer.nbytes)
    event.wait()
    gather_in_large_pages(view.array)
    view.release(queue).wait()


def show_host(queue: cl.CommandQueue, source: Buffer | Host) -> list[cl.Event]:
    """Let the host read what the device wrote: map, until :func:`take_back`."""
    buffer = _own(source)
    take_back(queue, (buffer,))
    view, event = _map(queue, buffer, cl.map_flags.READ, buffer.nbytes)
    buffer.view = view
    return [event]


def show_device(queue: cl.CommandQueue, target: Buffer | Host) -> list[cl.Event]:
    """Let the device read what was written to the host's memory already.

    Mapping without regard to what the device had there, and unmapping, says so.
    """
    buffer = _own(target)
    take_back(queue, (buffer,))
    view, event = _map(queue, buffer, cl.map_flags.WRITE_INVALIDATE_REGION, buffer.nbytes)
    return [event, view.release(queue)]


def take_back(queue: cl.CommandQueue, buffers: Iterable[Buffer]) -> None:
    """Unmap what is still mapped, before the device writes it; both may read it meanwhile."""
    for buffer in buffers:
        if isinstance(buffer, OpenCLBuffer) and buffer.view is not None:
            buffer.view.release(queue)
            buffer.view = None


def read_mapped(
    queue: cl.CommandQueue, source: OpenCLBuffer, target: Buffer | Host, block: Block
) -> list[cl.Event]:
    """Map, copy from there, unmap."""
    assert isinstance(target, np.ndarray)
    view, event = _map(queue, source, cl.map_flags.READ, target.nbytes)
    block(event)
    target.reshape(-1).view(np.uint8)[:] = view.array
    return [event, view.release(queue)]


def write_mapped(
    queue: cl.CommandQueue, target: Buffer | Host, source: Buffer | Host, block: Block
) -> list[cl.Event]:
    """Map, copy to there, unmap."""
    assert isinstance(source, np.ndarray)
    flags = cl.map_flags.WRITE_INVALIDATE_REGION
    view, event = _map(queue, _own(target), flags, source.nbytes)
    block(event)
    view.array[:] = source.reshape(-1).view(np.uint8)
    return [event, view.release(queue)]


def _map(
    queue: cl.CommandQueue, buffer: OpenCLBuffer, flags: cl.map_flags, nbytes: int
) -> tuple[View, cl.Event]:
    mapped, event = cl.enqueue_map_buffer(
        queue, buffer.memory, flags, 0, (nbytes,), np.dtype(np.uint8), is_blocking=False
    )
    return View(mapped), event


def _own(side: Buffer | Host) -> OpenCLBuffer:
    assert isinstance(side, OpenCLBuffer)
    return side
