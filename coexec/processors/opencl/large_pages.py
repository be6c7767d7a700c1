"""Large pages below the buffers of a device that computes on memory of the host.

A model that is divided has dozens of regions, each with constants of its own that are smaller than
a large page. From small pages, weights that are in no cache are read at a fraction of the rate, as
each page has to be looked up first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakSet

import pyopencl as cl

from coexec.base.pages import LARGE_PAGE, PAGE
from coexec.processors.opencl.bound import BoundRegion
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.mapping import gather_large_pages, wish_for_large_pages

FEW_PAGES = 16
"""Buffers of fewer are left where they are."""


class LargePages:
    """Asks for large pages if they are ``wanted``; each buffer's are gathered once."""

    def __init__(self, context: cl.Context, *, wanted: bool) -> None:
        self._context = context
        self._wanted = wanted
        self._regions: WeakSet[BoundRegion] = WeakSet()
        self._gathered: WeakSet[OpenCLBuffer] = WeakSet()

    def wish(self, buffer: OpenCLBuffer) -> None:
        """Ask for them below a new buffer that has some as a whole, wherever it begins."""
        if self._wanted and buffer.nbytes >= 2 * LARGE_PAGE:
            wish_for_large_pages(self._context, buffer)

    def gather(self, region: BoundRegion, memory: Callable[[], Iterable[OpenCLBuffer]]) -> None:
        """Put the memory of a region that ran into large pages, with what lies beside it."""
        if not self._wanted or region in self._regions:
            return
        self._regions.add(region)
        for buffer in memory():
            if buffer.nbytes >= FEW_PAGES * PAGE and buffer not in self._gathered:
                self._gathered.add(buffer)
                gather_large_pages(self._context, buffer)
