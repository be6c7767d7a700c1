"""Memory of the host in whole pages: drivers take it as it is instead of copying it."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
"""Bytes, of most systems."""
LARGE_PAGE = 2 << 20
"""Bytes, of most systems that have them."""
COLLAPSE = 25
"""MADV_COLLAPSE of Linux, which the module ``mmap`` does not name."""


def page_aligned(nbytes: int) -> NDArray[Any]:
    """Bytes at the start of a page; contents are undefined."""
    room = np.empty(nbytes + PAGE, np.uint8)
    first = -room.__array_interface__["data"][0] % PAGE
    return room[first : first + nbytes]


def let_go(array: NDArray[Any]) -> None:
    """Give up the resident pages of an array that lies in a mapped file; others stay as they are.

    Its contents stay: whoever looks at it next reads them from the file.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    mapped = base.obj if isinstance(base, memoryview) else base
    if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED") or not array.nbytes:
        return
    whole = np.frombuffer(mapped, np.uint8)
    first = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    start = first // mmap.PAGESIZE * mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, start, first + array.nbytes - start)


def give_back_heap() -> None:
    """Return what was freed to the system, where its allocator would keep it (glibc's)."""
    if os.name != "posix":  # there is no C library of the process to ask
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


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
    return _advise(start, length, mmap.MADV_HUGEPAGE)


def gather_in_large_pages(memory: NDArray[Any]) -> int:
    """Put ``memory`` (bytes) and what lies beside it into large pages now; how many it is in.

    Small buffers of an allocator lie side by side, so that several fill a page that none fills
    alone. Contents are copied by the system, what was never touched gets memory. Pages that reach
    out of mapped memory stay small, and all do on a system that does not do this (Linux since 6.1).
    """
    first = memory.__array_interface__["data"][0]
    if not sys.platform.startswith("linux") or not memory.nbytes:
        return 0
    starts = range(first // LARGE_PAGE * LARGE_PAGE, first + memory.nbytes, LARGE_PAGE)
    return sum(_advise(start, LARGE_PAGE, COLLAPSE) for start in starts)


def _advise(start: int, length: int, advice: int) -> bool:
    """Whether the system takes an advice on memory of this process."""
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return bool(advise(start, length, advice) == 0)
