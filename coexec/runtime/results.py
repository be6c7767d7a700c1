"""Memory of results, which is used again once nobody holds it.

The system hands out fresh memory page by page, at the first touch of each: on a virtual machine
that takes 0.2 ms for a result of 800 KB (measured), of whoever writes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coexec.core.types import Array, TensorType

LARGE = 1 << 17
"""Bytes. Smaller memory is none of the system's: the C library hands it out again by itself."""
KEPT = 2
"""How many of a kind are kept for later: callers that compare two results hold no more at once."""


class Results:
    """Memory for results of programs; what a caller or his views hold is not touched."""

    def __init__(self) -> None:
        self._free: dict[TensorType, list[Array]] = {}

    def room(self, kind: TensorType) -> Array:
        """An array of undefined contents."""
        if kind.nbytes < LARGE:
            return np.empty(kind.shape, kind.dtype)
        free = self._free.setdefault(kind, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(kind.nbytes, np.uint8)
        return np.asarray(_Lent(memory, free)).view(kind.dtype).reshape(kind.shape)


class _Lent:
    """Memory that goes back to where it is from when the last array over it is gone."""

    def __init__(self, memory: Array, home: list[Array]) -> None:
        self.__array_interface__: dict[str, Any] = memory.__array_interface__
        self._memory = memory
        self._home = home

    def __del__(self) -> None:
        if len(self._home) < KEPT:
            self._home.append(self._memory)
