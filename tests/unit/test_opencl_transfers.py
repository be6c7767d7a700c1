"""Copies between buffers and memory of the host, as the driver makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyopencl as cl
import pytest

from coexec.processors.opencl import transfers
from coexec.processors.opencl.programs import INTEL
from coexec.processors.opencl.transfers import LARGE_ROWS, enqueue_copy
from tests.runtimes import RUNTIMES, open_opencl

SMALL = 1 << 12


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("nbytes", [SMALL - LARGE_ROWS, SMALL, SMALL + 4, SMALL + LARGE_ROWS])
def test_large_copies_in_rows_are_copies_like_others(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, runtime: str, nbytes: int
) -> None:
    """And those that rows do not divide evenly are not made so."""
    monkeypatch.setattr(transfers, "LARGE", SMALL)
    taken: list[object] = []
    by_rows = transfers._enqueue_rows

    def noting(*how: Any) -> cl.Event:
        taken.append(how[-1])
        return by_rows(*how)

    monkeypatch.setattr(transfers, "_enqueue_rows", noting)
    device = open_opencl(runtime)
    source = rng.integers(0, 256, nbytes).astype(np.uint8)
    target, buffer = np.zeros_like(source), device.alloc(nbytes)
    for dst, src in ((buffer, source), (target, buffer)):
        device.block(enqueue_copy(device.queue, dst, src, ()))
    np.testing.assert_array_equal(target, source)
    large = nbytes >= SMALL and nbytes % LARGE_ROWS == 0
    intel = device.queue.device.platform.name == INTEL
    assert taken == [LARGE_ROWS, LARGE_ROWS] * (large and intel)
