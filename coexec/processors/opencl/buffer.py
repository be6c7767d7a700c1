"""Memory of an OpenCL device."""

from __future__ import annotations

import pyopencl as cl

from coexec.core.processor import Buffer


class OpenCLBuffer(Buffer):
    """Device memory."""

    def __init__(self, memory: cl.Buffer, nbytes: int) -> None:
        self.memory = memory
        self.nbytes = nbytes
