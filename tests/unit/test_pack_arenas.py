"""Arenas of several regions, placed again once all of them are known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import pytest

from coexec.base.pages import PAGE
from coexec.core.arena import ArenaBlock, Lifetime, plan_arena
from coexec.core.processor import Executable
from coexec.core.program import BOUNDARY, SCRATCH, BufferSpec
from coexec.runtime.lent_memory import Lent
from coexec.runtime.pack_arenas import LaidOut, Packed, laid_into, pack


@dataclass(frozen=True)
class Region(Executable):
    """Nothing but its blocks."""

    def moved(self, shifts: Mapping[str, int], nbytes: int) -> Self:
        blocks = (b._replace(offset=b.offset + shifts[b.name]) for b in self.blocks)
        return replace(self, blocks=tuple(blocks), scratch_bytes=nbytes)


@dataclass(frozen=True)
class Tensor:
    """From step ``first`` of the region ``made`` to step ``last`` of the region ``read``."""

    nbytes: int
    made: int
    first: int
    read: int
    last: int


STEPS = 4


def regions(tensors: Mapping[str, Tensor]) -> list[Region]:
    """Laid out one after the other, as processors do: each knows what those before have left."""
    left: dict[str, int] = {}
    found = []
    for number in range(1 + max(each.read for each in tensors.values())):
        lives = {
            name: Lifetime(
                t.nbytes,
                t.first if t.made == number else 0,
                t.last if t.read == number else STEPS,
            )
            for name, t in tensors.items()
            if t.made <= number <= t.read
        }
        kept = {name: offset for name, offset in left.items() if name in lives}
        plan = plan_arena(lives, 1, kept)
        carried = {n: plan.offsets[n] for n in lives if tensors[n].read > number}
        left = carried
        blocks = tuple(ArenaBlock(n, plan.offsets[n], *vars(t).values()) for n, t in lives.items())
        new = {name: offset for name, offset in carried.items() if name not in kept}
        how = {"carried": new, "blocks": blocks}
        found.append(Region("a", (), (), plan.nbytes, plan.nbytes, **how))  # type: ignore[arg-type]
    return found


def packed(found: list[Region]) -> list[Executable]:
    return arena_of(found, ())[0]


def arena_of(found: list[Region], lent: Sequence[Lent]) -> tuple[list[Executable], Packed | None]:
    """All in one arena, with what was lent of it."""
    executables: list[Executable] = [*found]
    laid_out = [LaidOut(each, number, number + 1) for number, each in enumerate(found)]
    return executables, pack({"a": laid_out}, executables, {"a": lent}).get("a")


def size(found: list[Executable]) -> int:
    return max(each.scratch_bytes for each in found)


def is_sound(found: list[Executable]) -> bool:
    """Nothing shares a byte with what is there at the same time, or moves between two regions."""
    apart = all(
        a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
        for each in found
        for a, b in combinations(each.blocks, 2)
        if a.nbytes and b.nbytes and a.first <= b.last and b.first <= a.last
    )
    places = [{block.name: block.offset for block in each.blocks} for each in found]
    still = all(
        one[name] == other[name]
        for one, other in combinations(places, 2)
        for name in one.keys() & other.keys()
    )
    inside = all(b.offset + b.nbytes <= size(found) for each in found for b in each.blocks)
    return apart and still and inside


def test_what_one_region_leaves_stands_between_no_blocks_of_the_next() -> None:
    found = regions(
        {
            "first": Tensor(40, 0, 0, 0, 1),
            "kept": Tensor(20, 0, 1, 1, 3),
            "large": Tensor(60, 1, 0, 1, 3),
        }
    )
    assert size([*found]) == 120
    assert size(packed(found)) == 80
    assert is_sound(packed(found))


@pytest.mark.parametrize("seed", range(12))
def test_no_byte_has_two_tensors_and_arenas_do_not_grow(seed: int) -> None:
    choose = random.Random(seed)
    tensors = {}
    for number in range(40):
        made, first = choose.randrange(8), choose.randrange(STEPS)
        read = min(made + choose.choice((0, 0, 1, 3, 7)), 7)
        last = choose.randrange(first if made == read else 0, STEPS)
        tensors[f"t{number}"] = Tensor(choose.randrange(1, 100), made, first, read, last)
    found = regions(tensors)
    assert is_sound([*found])
    assert size(packed(found)) <= size([*found])
    assert is_sound(packed(found))


@pytest.mark.parametrize("seed", range(6))
def test_what_was_lent_has_its_pages_for_as_long_as_it_is_and_others_have_them_then(
    seed: int,
) -> None:
    choose = random.Random(seed)
    tensors = {}
    for number in range(24):
        made, first = choose.randrange(8), choose.randrange(STEPS)
        read = min(made + choose.choice((0, 0, 1, 3)), 7)
        last = choose.randrange(first if made == read else 0, STEPS)
        tensors[f"t{number}"] = Tensor(PAGE * choose.randrange(1, 9), made, first, read, last)
    tensors["end"] = Tensor(PAGE, 7, 0, 7, 1)
    begins = [choose.randrange(7) for _ in range(6)]
    lent = [
        Lent(f"b{number}", PAGE * choose.randrange(1, 9), first, choose.choice((first + 1, None)))
        for number, first in enumerate(begins)
    ]
    regions_then, arena = arena_of(regions(tensors), lent)
    assert arena is not None
    assert is_sound(regions_then)
    assert arena.nbytes < size([*regions(tensors)]) + sum(each.nbytes for each in lent)
    for each in lent:
        start = arena.lent[each.buffer]
        assert start % PAGE == 0
        assert start + each.nbytes <= arena.nbytes
        for region in regions_then[each.first : 8 if each.last is None else each.last + 1]:
            assert all(
                b.offset + b.nbytes <= start or start + each.nbytes <= b.offset
                for b in region.blocks
            )


def test_buffers_that_lie_in_an_arena_take_those_of_their_readers_along() -> None:
    arena = BufferSpec("arena", "a", 12, SCRATCH)
    made, read = BufferSpec("t@a", "a", 4, BOUNDARY), BufferSpec("t@b", "b", 4, BOUNDARY, "t@a")
    apart = BufferSpec("u@a", "a", 4, BOUNDARY)
    buffers = {each.name: each for each in (made, read, apart)}
    found = laid_into(arena, buffers, {"t@a": 8})
    assert next(iter(found)) == "arena"
    assert found == {
        "t@a": replace(made, shares="arena", offset=8),
        "t@b": replace(read, shares="arena", offset=8),
        "u@a": apart,
        "arena": arena,
    }


def test_an_arena_whose_blocks_are_not_known_stays_as_it_is() -> None:
    found = regions({"a": Tensor(40, 0, 0, 0, 1), "b": Tensor(20, 0, 1, 1, 3)})
    unknown = [replace(found[0], blocks=()), found[1]]
    assert packed(unknown) == unknown
