"""Memory of dead tensors between processors: who takes it over."""

from __future__ import annotations

from coexec.runtime.boundary_pool import BoundaryPool, Room


def test_the_smallest_room_that_is_large_enough_is_taken_else_the_largest_grows() -> None:
    pool = BoundaryPool()
    rooms = [Room(f"b{n}", n, f"t{n}", {}) for n in (8, 32, 16)]
    for room in rooms:
        pool.give("one", room)
    assert pool.take("two", 4) is None
    assert pool.take("one", 12) == rooms[2]
    assert pool.take("one", 64) == rooms[1]
    assert pool.take("one", 1) == rooms[0]
    assert pool.take("one", 1) is None
