"""Host memory that ONNX Runtime reads and writes in place."""

from __future__ import annotations

import numpy as np

from coexec.core.processor import Buffer, Host
from coexec.core.types import Array

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector of any CPU."""


class OrtBuffer(Buffer):
    """Aligned bytes on the host. ``address`` never changes; contents are undefined at first."""

    def __init__(self, nbytes: int, over: Array | None = None) -> None:
        self.nbytes = nbytes
        self.over = over
        if over is not None:
            self.memory: Array = over
            self.address: int = over.ctypes.data
            return
        room = np.empty(nbytes + ALIGNMENT, np.uint8)
        first = -room.ctypes.data % ALIGNMENT
        self.memory = room[first : first + nbytes]
        self.address = room.ctypes.data + first


def own(buffer: Buffer) -> OrtBuffer:
    """A buffer that was made here."""
    assert isinstance(buffer, OrtBuffer)
    return buffer


def memory_of(side: Buffer | Host) -> Array:
    """One side of a copy as memory of the host."""
    if isinstance(side, OrtBuffer):
        return side.memory
    assert isinstance(side, np.ndarray)
    return side
