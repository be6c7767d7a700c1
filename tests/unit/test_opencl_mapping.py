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
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import coexec
from coexec.base.pages import (
    LARGE_PAGE,
    PAGE,
    ask_for_large_pages,
    gather_in_large_pages,
    page_aligned,
)
from coexec.core.events import MAP
from coexec.core.types import OpCall, Region, TensorType
from coexec.processors.opencl import large_pages, mapping
from coexec.processors.opencl.bound import BoundRegion
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.large_pages import FEW_PAGES, LargePages
from tests.runtimes import RUNTIMES, THOROUGH, open_opencl

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


def large_bytes_at(address: int) -> int:
    """Bytes in large pages of the mapping that an address lies in."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if found:
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    return 0


def gathered_room() -> NDArray[np.uint8]:
    """Written memory with a whole large page that lies in large pages now, or the test skips."""
    needs_large_pages()
    room = np.frombuffer(mmap.mmap(-1, 4 * LARGE_PAGE, flags=mmap.MAP_PRIVATE), np.uint8)
    start = -room.__array_interface__["data"][0] % LARGE_PAGE
    memory = room[start : start + 2 * LARGE_PAGE]
    memory[:] = np.arange(memory.size, dtype=np.uint8)
    if not gather_in_large_pages(memory):
        pytest.skip("a system that gathers no pages")
    return memory


def test_small_memory_is_gathered_with_what_lies_beside_it() -> None:
    memory = gathered_room()
    assert large_bytes_at(memory.__array_interface__["data"][0]) >= 2 * LARGE_PAGE
    np.testing.assert_array_equal(memory, np.arange(memory.size, dtype=np.uint8))
    assert gather_in_large_pages(memory[5:1000]) == 1


def test_nothing_is_gathered_of_no_memory() -> None:
    assert gather_in_large_pages(np.empty(0, np.uint8)) == 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_buffer_keeps_its_contents_and_is_gathered_once(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = open_opencl(runtime)
    buffer = processor.alloc(FEW_PAGES * PAGE)
    sent = np.arange(buffer.nbytes, dtype=np.uint8)
    processor.wait(processor.copy(buffer, sent, ()))
    pages = LargePages(processor.context, wanted=True)
    gathered: list[int] = []
    monkeypatch.setattr(
        mapping, "gather_in_large_pages", lambda memory: gathered.append(memory.nbytes)
    )
    small = processor.alloc(PAGE)
    one, other = (BoundRegion([], [], []) for _ in range(2))
    pages.gather(one, lambda: [buffer, small])
    pages.gather(one, lambda: pytest.fail("memory of a region that was gathered"))
    pages.gather(other, lambda: [buffer])
    assert gathered == [buffer.nbytes]
    monkeypatch.undo()
    LargePages(processor.context, wanted=True).gather(one, lambda: [buffer])
    processor.wait(processor.copy(received := np.empty_like(sent), buffer, ()))
    np.testing.assert_array_equal(received, sent)


def test_constants_of_a_model_that_runs_again_and_again_are_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathered: list[int] = []

    def note(_context: cl.Context, buffer: OpenCLBuffer) -> None:
        gathered.append(buffer.nbytes)

    monkeypatch.setattr(large_pages, "gather_large_pages", note)
    weights = np.ones((256, 256), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 256])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    session = coexec.compile(coexec.load(model), [THOROUGH[0]])
    for _ in range(6):
        session.run({"x": np.ones((8, 256), np.float32)})
    assert sum(nbytes >= weights.nbytes for nbytes in gathered) == 1
