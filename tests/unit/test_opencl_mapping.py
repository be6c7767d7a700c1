"""Kernels on memory of the host: what both sides write is there for the other, without a copy."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.base.pages import page_aligned
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
