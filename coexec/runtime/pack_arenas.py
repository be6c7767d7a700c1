"""Places in a processor's arena, once all regions that lie there are known.

A region is laid out before those behind it: what it leaves in the arena may then stand between
their blocks. With all of them known, everything is placed again over the whole program, as if it
were one region. What others read there (:mod:`coexec.runtime.lent_memory`) is placed with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from coexec.base.pages import PAGE
from coexec.core.arena import ArenaBlock, Lifetime, plan_arena
from coexec.core.processor import Executable
from coexec.core.program import BufferSpec
from coexec.runtime.lent_memory import Lent

Shifts = Mapping[str, int]
"""By the name of a block, how many bytes further it is to lie."""


class LaidOut(NamedTuple):
    """A region as it was laid out; the program has it in executables ``first`` to ``end`` - 1."""

    executable: Executable
    first: int
    end: int


class Packed(NamedTuple):
    """An arena for all regions of a processor; where buffers lie that were lent of it.

    ``shifts`` are those of each region, in order.
    """

    nbytes: int
    lent: Mapping[str, int]
    shifts: Sequence[Shifts]


def pack(
    regions: Mapping[str, Sequence[LaidOut]],
    executables: list[Executable],
    lent: Mapping[str, Sequence[Lent]],
) -> dict[str, Packed]:
    """Move what lies in arenas so that they become smaller; those that do, by processor.

    ``regions`` are those of each processor, in order; ``executables`` are replaced.
    """
    found: dict[str, Packed] = {}
    for processor, own in regions.items():
        smaller = packed([each.executable for each in own], lent.get(processor, ()))
        if smaller is None:
            continue
        found[processor] = smaller
        for region, far in zip(own, smaller.shifts, strict=True):
            for number in range(region.first, region.end):
                if executables[number].scratch_bytes:
                    executables[number] = executables[number].moved(far, smaller.nbytes)
    return found


def laid_into(
    arena: BufferSpec, buffers: Mapping[str, BufferSpec], offsets: Mapping[str, int]
) -> dict[str, BufferSpec]:
    """Buffers by name, some of which (and those of others in their memory) lie in an ``arena``.

    That is the first: what lies in memory that is there already takes no more.
    """
    found = {arena.name: arena}
    for name, spec in buffers.items():
        offset = offsets.get(spec.shares or name)
        moved = spec if offset is None else replace(spec, shares=arena.name, offset=offset)
        found.setdefault(name, moved)
    return found


def packed(executables: Sequence[Executable], lent: Sequence[Lent] = ()) -> Packed | None:
    """One arena for all regions of a processor, in order, with what was ``lent`` of it.

    None where that is no smaller than all by themselves, or something cannot be moved.
    """
    if any(each.scratch_bytes and (not each.blocks or each.page_bytes) for each in executables):
        return None
    lives: dict[str, Lifetime] = {}
    at: dict[str, int] = {}
    keys: list[dict[str, str]] = []
    left: dict[str, str] = {}
    begin = 0
    begins: list[int] = []
    for number, each in enumerate(executables):
        begins.append(begin)
        own = {b.name: left.get(b.name, f"{number}/{b.name}") for b in each.blocks}
        for block in each.blocks:
            key, first = own[block.name], begin + block.first
            known = lives.get(key, Lifetime(block.nbytes, first, first))
            until = max(known.last, begin + block.last)
            at.setdefault(key, block.offset)
            # A part of what lies there may be all that is continued.
            lives[key] = replace(known, last=until)
        left.update((name, own[_holder(each, offset)]) for name, offset in each.carried.items())
        keys.append(own)
        begin += 2 + max((block.last for block in each.blocks), default=0)
    begins.append(begin)
    whole = plan_arena({**lives, **_lives(lent, begins)}, PAGE if lent else 1)
    apart = max((each.scratch_bytes for each in executables), default=0)
    if whole.nbytes >= apart + sum(each.nbytes for each in lent):
        return None
    moves: list[Shifts] = [
        {name: whole.offsets[key] - at[key] for name, key in own.items()} for own in keys
    ]
    return Packed(whole.nbytes, {b.buffer: whole.offsets[_key(b)] for b in lent}, moves)


def _lives(lent: Sequence[Lent], begins: Sequence[int]) -> dict[str, Lifetime]:
    """Steps from the begin of the first region to that of the one behind the last."""
    ends = [len(begins) - 2 if each.last is None else each.last for each in lent]
    return {
        _key(each): Lifetime(each.nbytes, begins[each.first], begins[end + 1] - 1)
        for each, end in zip(lent, ends, strict=True)
    }


def _key(each: Lent) -> str:
    return f"lent/{each.buffer}"


def _holder(executable: Executable, offset: int) -> str:
    """The block in which something is left at an offset."""
    end = max(block.last for block in executable.blocks)

    def holds(block: ArenaBlock) -> bool:
        return block.last == end and block.offset <= offset < block.offset + block.nbytes

    return next(block.name for block in executable.blocks if holds(block))
