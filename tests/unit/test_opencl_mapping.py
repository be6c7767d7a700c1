"""Kernels on memory of the host: what both sides write is there for the other, without a copy.

And memory of the driver that is the host's: large buffers ask for large pages.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
import pyopencl as cl
import pytest

from coexec.base.pages import LARGE_PAGE, ask_for_large_pages, page_aligned
from coexec.core.events import MAP
from coexec.core.types import OpCall, Region, TensorType
from tests.runtimes import RUNTIMES, open_opencl

SIZE = 1000


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_kernels_compute_on_memory_of_the_host(runtime: str) -> None:
    processor = open_opencl(runtime)
    if not processor.host_memory:
        pytest.skip("a device with memory of its own")
    kind = TensorType((SIZE,), np.dtype(np.float32))
    call = OpCall("Add", (kind, kind), {}, (kind,), version=14)
    executable = processor.compile(Region.alone(call))
    memory = [page_aligned(kind.nbytes) for _ in executable.arguments]
    buffers = [processor.adopt(each) for each in memory]
    a, b, y = (each.view(np.float32) for each in memory)
    rng = np.random.default_rng(0)
    # Twice: what is mapped after the first round is the device's again in the second.
    for _ in range(2):
        a[:], b[:] = rng.standard_normal((2, SIZE))
        y[:] = np.nan
        for buffer, each in zip(buffers, memory, strict=True):
            event = processor.wait(processor.copy(buffer, each, ()))
            assert (event.kind, event.bytes, event.name) == (MAP, 0, "share write")
        processor.submit(executable, buffers, ())
        event = processor.wait(processor.copy(memory[2], buffers[2], ()))
        assert (event.kind, event.bytes, event.name) == (MAP, 0, "share read")
        np.testing.assert_array_equal(y, a + b)
    copied = np.empty(SIZE, np.float32)
    event = processor.wait(processor.copy(copied, buffers[2], ()))
    assert event.bytes == kind.nbytes
    np.testing.assert_array_equal(copied, y)


ASKED = "hg"
"""Flag of a range of memory for which large pages were asked for."""


def flags_at(address: int) -> set[str]:
    """What Linux says of the range of this process's memory that holds ``address``."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if found:
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    return set()


def needs_large_pages() -> None:
    """Skip where the system has none to ask for."""
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("no large pages here")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_large_buffers_ask_for_large_pages(runtime: str) -> None:
    needs_large_pages()
    processor = open_opencl(runtime)
    if not processor.host_memory:
        pytest.skip("a device with memory of its own")
    buffer = processor.alloc(3 * LARGE_PAGE)
    sent = np.arange(buffer.nbytes, dtype=np.uint8)
    processor.wait(processor.copy(buffer, sent, ()))
    processor.wait(processor.copy(received := np.empty_like(sent), buffer, ()))
    np.testing.assert_array_equal(received, sent)
    processor.queue.finish()
    view, event = cl.enqueue_map_buffer(
        processor.queue, buffer.memory, cl.map_flags.READ, 0, (buffer.nbytes,), np.dtype(np.uint8)
    )
    event.wait()
    middle = view.__array_interface__["data"][0] + buffer.nbytes // 2
    assert ASKED in flags_at(middle)
    view.base.release(processor.queue).wait()


def test_memory_without_a_whole_large_page_is_left_alone() -> None:
    assert not ask_for_large_pages(np.empty(LARGE_PAGE - 1, np.uint8))


def test_what_was_asked_for_holds_for_whole_large_pages_alone() -> None:
    needs_large_pages()
    room = np.frombuffer(mmap.mmap(-1, 4 * LARGE_PAGE), np.uint8)
    start = -room.__array_interface__["data"][0] % LARGE_PAGE
    memory = room[start + 1 : start + 2 * LARGE_PAGE + 1]
    address = room.__array_interface__["data"][0] + start
    assert ask_for_large_pages(memory)
    assert ASKED in flags_at(address + LARGE_PAGE)
    assert ASKED not in flags_at(address)
    assert ASKED not in flags_at(address + 2 * LARGE_PAGE)
