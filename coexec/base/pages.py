"""Memory of the host in whole pages: drivers take it as it is instead of copying it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
"""Bytes, of most systems."""


def page_aligned(nbytes: int) -> NDArray[Any]:
    """Bytes at the start of a page; contents are undefined."""
    room = np.empty(nbytes + PAGE, np.uint8)
    first = -room.__array_interface__["data"][0] % PAGE
    return room[first : first + nbytes]
