"""Memory of the host in whole pages: drivers take it as it is instead of copying it."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
"""Bytes, of most systems."""
LARGE_PAGE = 2 << 20
"""Bytes, of most systems that have them."""


def page_aligned(nbytes: int) -> NDArray[Any]:
    """Bytes at the start of a page; contents are undefined."""
    room = np.empty(nbytes + PAGE, np.uint8)
    first = -room.__array_interface__["data"][0] % PAGE
    return room[first : first + nbytes]


def ask_for_large_pages(memory: NDArray[Any]) -> bool:
    """Ask the system to back ``memory`` (bytes) by large pages, which need fewer translations.

    A wish: pages that were touched before stay small. ``False`` where ``memory`` has no whole large
    page, or the system (not Linux, or built without them) takes no such wish.
    """
    first = memory.__array_interface__["data"][0]
    start, end = -(-first // LARGE_PAGE) * LARGE_PAGE, first + memory.nbytes
    length = (end - start) // LARGE_PAGE * LARGE_PAGE
    if length <= 0 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return False
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return bool(advise(start, length, mmap.MADV_HUGEPAGE) == 0)
