"""Static memory planning: tensors with lifetimes are placed in one arena so that none overlap.

Blocks are placed one after the other, each into the tightest gap that is free all its life. What
counts is the order: by size and by breadth are those of Pisarchyk and Lee, "Efficient Memory
Management for Deep Neural Net Inference", 2020 (arXiv 2001.03288), sections 5.1 and 5.2. The first
that comes close enough to the lower bound is taken; where none does, all of them are changed step
by step (:func:`coexec.core.arena_search.improve`). Blocks that stay for later plans of the same
arena come first, at the bottom, where that is near enough to the bound: else they would stand
between the blocks of those plans, which cannot move them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from coexec.core.arena_placement import Block, place_in_order
from coexec.core.arena_search import Walls, improve

NEAR = 1.005
"""A plan of at most this multiple of the lower bound ends the trying of orders."""

FAR, FAR_OF_MANY, MANY = 1.03, 1.01, 300
"""Above this multiple the best order is not good enough: all are improved by search. With so many
blocks, those of a whole training step, search gets nearer to the bound than with few."""

STACKED = 1.05
"""A plan with what stays at the bottom may take this multiple of the lower bound."""


@dataclass(frozen=True)
class Lifetime:
    """A block of ``nbytes`` that is live from step ``first`` to step ``last``, both included."""

    nbytes: int
    first: int
    last: int


class ArenaBlock(NamedTuple):
    """``nbytes`` (aligned) at ``offset``, in use from step ``first`` to step ``last``."""

    name: str
    offset: int
    nbytes: int
    first: int
    last: int


@dataclass(frozen=True)
class ArenaPlan:
    """Offsets in bytes by name; ``nbytes`` is the arena's size, ``naive_bytes`` without reuse.

    No plan of these blocks takes less than ``bound_bytes``.
    """

    offsets: Mapping[str, int]
    nbytes: int
    naive_bytes: int
    bound_bytes: int


def plan_arena(
    blocks: Mapping[str, Lifetime],
    alignment: int,
    kept: Mapping[str, int] | None = None,
    staying: Collection[str] = (),
) -> ArenaPlan:
    """Place ``blocks`` so that blocks live at the same time never share a byte.

    ``alignment`` in bytes holds for every offset (OpenCL: ``CL_DEVICE_MEM_BASE_ADDR_ALIGN``).
    ``kept`` are offsets of blocks that have their place already, ``staying`` are blocks that later
    plans of the same arena will keep. The plan is a function of the arguments: no clock, no random
    state.
    """
    fixed = kept or {}
    lives = {
        name: Lifetime(padded(life.nbytes, alignment), life.first, life.last)
        for name, life in sorted(blocks.items())
    }
    rounded = {name: Block(name, b.nbytes, b.first, b.last) for name, b in lives.items()}
    walls = [(rounded[name], offset) for name, offset in sorted(fixed.items())]
    free = [block for name, block in rounded.items() if name not in fixed]
    reach = max((offset + block.nbytes for block, offset in walls), default=0)
    bound = max(largest_live_set(lives), reach)
    offsets = {**fixed, **_places(free, walls, bound, staying)}
    return ArenaPlan(
        {name: offsets[name] for name in blocks},
        max((offsets[name] + block.nbytes for name, block in rounded.items()), default=0),
        sum(block.nbytes for block in rounded.values()),
        bound,
    )


def largest_live_set(blocks: Mapping[str, Lifetime]) -> int:
    """Lower bound on any plan: the most bytes that are live at one step."""
    steps = 1 + max((block.last for block in blocks.values()), default=-1)
    return max(live_bytes([*blocks.values()], steps), default=0)


def live_bytes(blocks: Sequence[Lifetime], steps: int) -> list[int]:
    """Bytes that are live at each of ``steps`` steps."""
    changes = [0] * (steps + 2)
    for block in blocks:
        changes[block.first] += block.nbytes
        changes[block.last + 1] -= block.nbytes
    return list(accumulate(changes[:steps]))


def padded(nbytes: int, alignment: int) -> int:
    """Bytes that a block takes in an arena: a multiple of ``alignment``, never none."""
    return -(-max(nbytes, 1) // alignment) * alignment


def _places(
    blocks: Sequence[Block], walls: Walls, bound: int, staying: Collection[str]
) -> Mapping[str, int]:
    """Offsets with what stays at the bottom, unless others are much better."""
    stack = _by_first_use([block for block in blocks if block.name in staying])
    if not stack:
        return _best_places(blocks, walls, bound)
    bottom = place_in_order(stack, walls)
    rest = [block for block in blocks if block.name not in bottom]
    around = [*walls, *((block, bottom[block.name]) for block in stack)]
    offsets = {**bottom, **_best_places(rest, around, bound)}
    if _reach(blocks, offsets) <= STACKED * bound:
        return offsets
    return _best_places(blocks, walls, bound)


def _reach(blocks: Sequence[Block], offsets: Mapping[str, int]) -> int:
    return max((offsets[block.name] + block.nbytes for block in blocks), default=0)


def _best_places(blocks: Sequence[Block], walls: Walls, bound: int) -> Mapping[str, int]:
    """Offsets of the order whose plan is smallest, or near enough to ``bound``."""
    tried: list[tuple[Sequence[Block], Mapping[str, int]]] = []
    for order in ORDERS:
        ordered = order(blocks)
        offsets = place_in_order(ordered, walls)
        if _reach(blocks, offsets) <= NEAR * bound:
            return offsets
        tried.append((ordered, offsets))
    best = min((offsets for _, offsets in tried), key=lambda offsets: _reach(blocks, offsets))
    wanted = int((FAR if len(blocks) < MANY else FAR_OF_MANY) * bound)
    if _reach(blocks, best) <= wanted:
        return best
    return improve(tried, walls, wanted)


def _by_size(blocks: Sequence[Block]) -> list[Block]:
    return sorted(blocks, key=lambda b: (-b.nbytes, b.first, b.name))


def _by_area(blocks: Sequence[Block]) -> list[Block]:
    """Bytes times steps: what is large and stays long has the least choice."""
    return sorted(blocks, key=lambda b: (-b.nbytes * b.steps, b.first, b.name))


def _by_length(blocks: Sequence[Block]) -> list[Block]:
    return sorted(blocks, key=lambda b: (-b.steps, -b.nbytes, b.first, b.name))


def _by_first_use(blocks: Sequence[Block]) -> list[Block]:
    return sorted(blocks, key=lambda b: (b.first, -b.last, -b.nbytes, b.name))


def _by_breadth(blocks: Sequence[Block]) -> list[Block]:
    """Blocks of the fullest step first, the largest of them first; then those of the next."""
    steps = 1 + max((block.last for block in blocks), default=-1)
    live = live_bytes([Lifetime(b.nbytes, b.first, b.last) for b in blocks], steps)
    rank = {step: place for place, step in enumerate(sorted(range(steps), key=lambda s: -live[s]))}
    fullest = {
        block.name: min(rank[step] for step in range(block.first, block.last + 1))
        for block in blocks
    }
    return sorted(blocks, key=lambda b: (fullest[b.name], -b.nbytes, b.first, b.name))


ORDERS: tuple[Callable[[Sequence[Block]], list[Block]], ...] = (
    _by_size,
    _by_breadth,
    _by_area,
    _by_length,
    _by_first_use,
)
"""Orders of placing, the one that is best most often first."""
