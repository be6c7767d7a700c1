"""Memory of results: used again when nobody holds it, and never before."""

from __future__ import annotations

import numpy as np

from coexec.core.types import TensorType
from coexec.runtime.results import KEPT, LARGE, Results

KIND = TensorType((4, LARGE // 4), np.dtype(np.float32))


def address(array: np.ndarray) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def test_memory_is_used_again_once_nobody_holds_it() -> None:
    results = Results()
    room = results.room(KIND)
    assert (room.shape, room.dtype) == (KIND.shape, KIND.dtype)
    assert room.flags.c_contiguous
    assert room.flags.writeable
    first = address(room)
    del room
    assert address(results.room(KIND)) == first


def test_what_a_view_holds_is_not_touched() -> None:
    results = Results()
    room = results.room(KIND)
    room[:] = 7
    part, seen = room.T[1:, 2:], memoryview(room)  # type: ignore[arg-type]
    del room
    results.room(KIND)[:] = 0
    assert (part == 7).all()
    del part
    results.room(KIND)[:] = 0
    assert (np.asarray(seen) == 7).all()


def test_no_more_than_a_few_are_kept_for_later() -> None:
    results = Results()
    rooms = [results.room(KIND) for _ in range(KEPT + 3)]
    assert len({address(room) for room in rooms}) == len(rooms)
    del rooms
    assert len(results._free[KIND]) == KEPT


def test_small_results_are_the_c_librarys() -> None:
    results = Results()
    assert results.room(TensorType((5,), np.dtype(np.float32))).base is None
