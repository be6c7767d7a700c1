"""Memory of an OpenCL device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyopencl as cl

from coexec.core.processor import Buffer
from coexec.core.types import Array
from coexec.processors.opencl.in_place import InPlace


@dataclass(frozen=True)
class View:
    """A mapped buffer as bytes of the host."""

    array: Array

    def release(self, queue: cl.CommandQueue) -> cl.Event:
        """Unmap; the array must not be used any more."""
        mapped: Any = self.array.base
        event: cl.Event = mapped.release(queue)
        return event


class OpenCLBuffer(Buffer):
    """Device memory. ``view`` keeps it mapped while the host may read what the device wrote.

    ``in_place`` is set where the host copies to and from the memory below (``over``) by itself
    (:mod:`coexec.processors.opencl.in_place`).
    """

    def __init__(self, memory: cl.Buffer, nbytes: int, over: Array | None = None) -> None:
        self.memory = memory
        self.nbytes = nbytes
        self.over = over
        self.view: View | None = None
        self.in_place: InPlace | None = None
