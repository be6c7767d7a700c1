"""Improves orders of placing: blocks at the top of the arena are taken out and put in earlier."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from coexec.core.arena_placement import Block, place_in_order

MOST_PLACEMENTS = 12_000
"""Blocks placed in all rounds together: a second or two."""

MOST_ROUNDS = 60
"""What these did not find, more of them seldom do."""

Walls = Sequence[tuple[Block, int]]
Plan = tuple[Sequence[Block], Mapping[str, int]]
"""An order of placing and the offsets that it leads to."""


def improve(plans: Iterable[Plan], walls: Walls, wanted: int, seed: int = 0) -> Mapping[str, int]:
    """Offsets whose arena is no larger than that of any of ``plans``, at best ``wanted`` bytes.

    Iterated local search (Lourenço, Martin and Stützle, 2003) from every order in turns: a block
    that ends at the top of the arena moves to a random place before its own. Equals are accepted,
    so that the search crosses plateaus. How many rounds there are depends on the number of blocks,
    never on a clock: plans repeat.
    """
    climbs = [_Climb(*plan, walls, random.Random(seed)) for plan in plans]  # noqa: S311
    placed = 0
    for number in range(MOST_ROUNDS):
        best = min(climbs, key=lambda climb: climb.nbytes)
        if best.nbytes <= wanted or placed > MOST_PLACEMENTS:
            break
        placed += climbs[number % len(climbs)].step()
    return min(climbs, key=lambda climb: climb.nbytes).offsets


class _Climb:
    """An order, the size of its arena in bytes, and the places of the blocks that end there."""

    def __init__(
        self,
        order: Sequence[Block],
        offsets: Mapping[str, int],
        walls: Walls,
        choose: random.Random,
    ) -> None:
        self.walls = walls
        self.choose = choose
        self._accept(list(order), offsets)

    def step(self) -> int:
        """Move one block of the top; keep that unless the arena grows.

        Returns the number of blocks that stand behind the move: all others stay where they are.
        """
        place = self.choose.choice(self.top)
        changed = list(self.order)
        block = changed.pop(place)
        start = self.choose.randrange(place) if place else 0
        changed.insert(start, block)
        offsets = self._placed(changed, start)
        if len(offsets) == len(changed):
            self._accept(changed, offsets)
        return len(changed) - start

    def _accept(self, order: list[Block], offsets: Mapping[str, int]) -> None:
        self.order, self.offsets = order, offsets
        self.nbytes = _size(order, offsets)
        ends = (offsets[block.name] + block.nbytes for block in order)
        self.top = [place for place, end in enumerate(ends) if end == self.nbytes]

    def _placed(self, order: Sequence[Block], start: int) -> dict[str, int]:
        """Offsets of an order that is the accepted one up to ``start``; fewer if that grows."""
        before = {block.name: self.offsets[block.name] for block in order[:start]}
        walls = [*self.walls, *((block, before[block.name]) for block in order[:start])]
        return {**before, **place_in_order(order[start:], walls, self.nbytes)}


def _size(order: Sequence[Block], offsets: Mapping[str, int]) -> int:
    return max(offsets[block.name] + block.nbytes for block in order)
