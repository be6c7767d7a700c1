"""Static memory planning: tensors with lifetimes are placed in one arena so that none overlap.

Best-fit in order of decreasing size ("greedy by size"): Pisarchyk and Lee, "Efficient Memory
Management for Deep Neural Net Inference", 2020 (arXiv 2001.03288), section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lifetime:
    """A block of ``nbytes`` that is live from step ``first`` to step ``last``, both included."""

    nbytes: int
    first: int
    last: int


@dataclass(frozen=True)
class ArenaPlan:
    """Offsets in bytes by name; ``nbytes`` is the arena's size, ``naive_bytes`` without reuse."""

    offsets: Mapping[str, int]
    nbytes: int
    naive_bytes: int


def plan_arena(blocks: Mapping[str, Lifetime], alignment: int) -> ArenaPlan:
    """Place ``blocks`` so that blocks live at the same time never share a byte.

    ``alignment`` in bytes holds for every offset (OpenCL: ``CL_DEVICE_MEM_BASE_ADDR_ALIGN``).
    """
    placed: list[tuple[int, int, Lifetime]] = []
    offsets: dict[str, int] = {}
    for name in sorted(blocks, key=lambda n: (-blocks[n].nbytes, blocks[n].first, n)):
        block = blocks[name]
        size = _round_up(max(block.nbytes, 1), alignment)
        offset = _best_gap(placed, block, size)
        offsets[name] = offset
        placed.append((offset, offset + size, block))
    total = max((end for _, end, _ in placed), default=0)
    naive = sum(_round_up(max(b.nbytes, 1), alignment) for b in blocks.values())
    return ArenaPlan(offsets, total, naive)


def largest_live_set(blocks: Mapping[str, Lifetime]) -> int:
    """Lower bound on any plan: the most bytes that are live at one step."""
    changes: dict[int, int] = {}
    for block in blocks.values():
        changes[block.first] = changes.get(block.first, 0) + block.nbytes
        changes[block.last + 1] = changes.get(block.last + 1, 0) - block.nbytes
    live = peak = 0
    for step in sorted(changes):
        live += changes[step]
        peak = max(peak, live)
    return peak


def _best_gap(placed: Sequence[tuple[int, int, Lifetime]], block: Lifetime, size: int) -> int:
    """The tightest gap between blocks live at the same time, else the end of them all."""
    rivals = sorted(
        (start, end)
        for start, end, other in placed
        if other.first <= block.last and block.first <= other.last
    )
    best: tuple[int, int] | None = None
    cursor = 0
    for start, end in rivals:
        gap = start - cursor
        if gap >= size and (best is None or gap < best[0]):
            best = (gap, cursor)
        cursor = max(cursor, end)
    return best[1] if best else cursor


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
