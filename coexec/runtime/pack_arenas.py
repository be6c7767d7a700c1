"""Places in a processor's arena, once all regions that lie there are known.

A region is laid out before those behind it: what it leaves in the arena may then stand between
their blocks. With all of them known, everything is placed again over the whole program, as if it
were one region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from coexec.core.arena import ArenaBlock, Lifetime, plan_arena
from coexec.core.processor import Executable

Shifts = Mapping[str, int]
"""By the name of a block, how many bytes further it is to lie."""


class LaidOut(NamedTuple):
    """A region as it was laid out; the program has it in executables ``first`` to ``end`` - 1."""

    executable: Executable
    first: int
    end: int


def pack(regions: Mapping[str, Sequence[LaidOut]], executables: list[Executable]) -> dict[str, int]:
    """Move what lies in arenas so that they become smaller; the new bytes by processor.

    ``regions`` are those of each processor, in order; ``executables`` are replaced.
    """
    found: dict[str, int] = {}
    for processor, own in regions.items():
        smaller = packed([each.executable for each in own])
        if smaller is None:
            continue
        found[processor], shifts = smaller
        for region, far in zip(own, shifts, strict=True):
            for number in range(region.first, region.end):
                executables[number] = executables[number].moved(far, found[processor])
    return found


def packed(executables: Sequence[Executable]) -> tuple[int, list[Shifts]] | None:
    """Bytes of one arena for all regions of a processor, in order, and what moves in each.

    None where that is no smaller, or something cannot be moved.
    """
    if any(each.scratch_bytes and (not each.blocks or each.page_bytes) for each in executables):
        return None
    lives: dict[str, Lifetime] = {}
    at: dict[str, int] = {}
    keys: list[dict[str, str]] = []
    left: dict[str, str] = {}
    begin = 0
    for number, each in enumerate(executables):
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
    plan = plan_arena(lives, 1)
    if plan.nbytes >= max((each.scratch_bytes for each in executables), default=0):
        return None
    moves: list[Shifts] = [
        {name: plan.offsets[key] - at[key] for name, key in own.items()} for own in keys
    ]
    return plan.nbytes, moves


def _holder(executable: Executable, offset: int) -> str:
    """The block in which something is left at an offset."""
    end = max(block.last for block in executable.blocks)

    def holds(block: ArenaBlock) -> bool:
        return block.last == end and block.offset <= offset < block.offset + block.nbytes

    return next(block.name for block in executable.blocks if holds(block))
