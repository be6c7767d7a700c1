"""Small tensors that the host copies by itself, whatever is under way: right as by the driver."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
import pyopencl as cl
import pytest

import coexec
from coexec.base.pages import PAGE, page_aligned
from coexec.core.events import COPY, Trace
from coexec.core.processor import Ticket
from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.processors.find import open_processor
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.executable import OpenCLExecutable
from coexec.processors.opencl.in_place import LARGEST
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.pipeline.small import FEATURES, network
from tests.runtimes import DRIVERS, RUNTIMES, open_opencl

SIZE = 1000
SECONDS = 10


@dataclass
class Negation:
    """``y = -x`` on a processor, with buffers for the host."""

    processor: OpenCLProcessor
    executable: OpenCLExecutable
    x: OpenCLBuffer
    y: OpenCLBuffer

    def write(self, value: float) -> Ticket:
        array = np.full(SIZE, value, np.float32)
        return self.processor.copy(self.x, array, ())

    def submit(self) -> Ticket:
        return self.processor.submit(self.executable, [self.x, self.y], ())

    def read(self) -> tuple[Array, Ticket]:
        result = np.zeros(SIZE, np.float32)
        return result, self.processor.copy(result, self.y, ())


@pytest.fixture(params=RUNTIMES)
def negation(request: pytest.FixtureRequest) -> Negation:
    processor = open_opencl(request.param)
    kind = TensorType((SIZE,), np.dtype(np.float32))
    call = OpCall("Neg", (kind,), {}, (kind,), version=13)
    executable = processor.compile(Region.alone(call))
    assert isinstance(executable, OpenCLExecutable)
    x, y = (processor.alloc_for_host(kind.nbytes) for _ in "xy")
    if x.in_place is None:
        pytest.skip("buffers of this device are not memory of the host")
    return Negation(processor, executable, x, y)


def hold(processor: OpenCLProcessor) -> cl.UserEvent:
    """Keep the device from going on until the event is set."""
    if processor.name not in DRIVERS:
        pytest.skip("an interpreter works while commands are handed over: it would wait for ever")
    event = cl.UserEvent(processor.context)
    cl.enqueue_barrier(processor.queue, wait_for=[event])
    return event


def go_on(event: cl.UserEvent) -> None:
    event.set_status(cl.command_execution_status.COMPLETE)


def test_a_write_does_not_overtake_the_kernel_that_reads_the_old_values(negation: Negation) -> None:
    negation.write(1)
    held = hold(negation.processor)
    negation.submit()
    first, read_first = negation.read()
    last_write = negation.write(2)
    go_on(held)
    negation.processor.wait(read_first)
    negation.processor.wait(last_write)
    assert (first == -1).all()
    negation.submit()
    second, read_second = negation.read()
    negation.processor.wait(read_second)
    assert (second == -2).all()


def test_a_read_has_the_values_of_its_place_in_the_order_of_commands(negation: Negation) -> None:
    negation.write(1)
    negation.submit()
    first, read_first = negation.read()
    negation.write(2)
    negation.submit()  # overwrites what nobody has read so far
    second, read_second = negation.read()
    negation.processor.wait(read_second)
    negation.processor.wait(read_first)
    assert (first == -1).all()
    assert (second == -2).all()


def test_a_second_read_finds_the_same_values(negation: Negation) -> None:
    negation.write(3)
    negation.submit()
    reads = [negation.read() for _ in range(2)]
    for result, ticket in reversed(reads):
        negation.processor.wait(ticket)
        negation.processor.wait(ticket)  # as a trace does afterwards
        assert (result == -3).all()


def test_others_are_told_when_a_copy_of_the_host_is_done(negation: Negation) -> None:
    written, read = Event(), Event()
    negation.write(4).then(written.set)
    assert written.is_set()
    negation.submit()
    result, ticket = negation.read()
    ticket.then(read.set)
    negation.processor.queue.flush()
    assert read.wait(SECONDS)
    assert (result == -4).all()


def test_large_tensors_are_left_to_the_driver() -> None:
    processor = open_opencl(DRIVERS[-1])
    assert processor.alloc_for_host(LARGEST + 1).in_place is None
    assert processor.alloc_for_host(0).in_place is None


def test_memory_for_the_host_counts_while_it_lives() -> None:
    processor = open_opencl(DRIVERS[-1])
    before = processor.allocated_bytes
    buffer = processor.alloc_for_host(SIZE)
    assert processor.allocated_bytes == before + SIZE
    del buffer
    assert processor.allocated_bytes == before


def test_a_part_of_memory_that_a_buffer_lies_over_counts_once() -> None:
    processor = open_opencl(DRIVERS[-1])
    before, memory = processor.allocated_bytes, page_aligned(4 * PAGE)
    whole = processor.adopt(memory)
    part = processor.adopt(memory[PAGE : 2 * PAGE])
    apart = processor.adopt(page_aligned(PAGE))
    assert processor.allocated_bytes == before + 5 * PAGE
    del part
    assert processor.allocated_bytes == before + 5 * PAGE
    del whole, apart
    assert processor.allocated_bytes == before


@pytest.mark.parametrize("runtime", DRIVERS)
def test_a_run_hands_no_copy_to_the_driver_and_says_when_copies_were(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = {"x": np.linspace(-1, 1, 2 * FEATURES, dtype=np.float32).reshape(2, FEATURES)}
    results: dict[str, Array] = {}
    copies: list[Any] = []
    enqueue_copy = cl.enqueue_copy

    def counted(*args: Any, **options: Any) -> cl.Event:
        copies.append(args)
        return enqueue_copy(*args, **options)

    monkeypatch.setattr(cl, "enqueue_copy", counted)
    for options in ("?transfer=copy", ""):
        processor = open_processor(f"{runtime}{options}")
        assert isinstance(processor, OpenCLProcessor)
        session = coexec.compile(coexec.load(network(), {"x": (2, FEATURES)}), [processor.name])
        session.run(feeds)
        copies.clear()
        trace = Trace()
        results[options] = session.run(feeds, trace=trace)["y"]
        assert len(copies) == (2 if options else 0)
        events = [e for e in trace.leaves() if e.kind == COPY]
        assert [e.name for e in sorted(events, key=lambda e: e.start_ns)] == ["write", "read"]
        assert [e.bytes for e in events] == [feeds["x"].nbytes, results[options].nbytes]
    assert np.array_equal(results[""], results["?transfer=copy"])
