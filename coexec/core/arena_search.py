"""Improves orders of placing: blocks at the top of the arena are taken out and put in earlier."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from coexec.core.arena_placement import Block, place_in_order

MOST_PLACEMENTS = 20_000
"""Blocks placed in all rounds together: some tenths of a second."""

MOST_ROUNDS = 60
"""What these did not find, more of them seldom do."""

Walls = Sequence[tuple[Block, int]]


def improve(
    orders: Iterable[Sequence[Block]], walls: Walls, wanted: int, seed: int = 0
) -> list[Block]:
    """An order whose arena is no larger than that of any of ``orders``, at best ``wanted`` bytes.

    Iterated local search (Lourenço, Martin and Stützle, 2003) from every order in turns: a block
    that ends at the top of the arena moves to a random place before its own. Equals are accepted,
    so that the search crosses plateaus. How many rounds there are depends on the number of blocks,
    never on a clock: plans repeat.
    """
    climbs = [_Climb(order, walls, random.Random(seed)) for order in orders]  # noqa: S311
    blocks = max((len(climb.order) for climb in climbs), default=0)
    for number in range(min(MOST_PLACEMENTS // max(blocks, 1), MOST_ROUNDS)):
        best = min(climbs, key=lambda climb: climb.nbytes)
        if best.nbytes <= wanted:
            break
        climbs[number % len(climbs)].step()
    return min(climbs, key=lambda climb: climb.nbytes).order


class _Climb:
    """An order, the size of its arena in bytes, and the places of the blocks that end there."""

    def __init__(self, order: Sequence[Block], walls: Walls, choose: random.Random) -> None:
        self.walls = walls
        self.choose = choose
        self._accept(list(order), *self._evaluated(order))

    def step(self) -> None:
        """Move one block of the top; keep that unless the arena grows."""
        place = self.choose.choice(self.top)
        changed = list(self.order)
        block = changed.pop(place)
        changed.insert(self.choose.randrange(place) if place else 0, block)
        nbytes, top = self._evaluated(changed)
        if nbytes <= self.nbytes:
            self._accept(changed, nbytes, top)

    def _accept(self, order: list[Block], nbytes: int, top: list[int]) -> None:
        self.order, self.nbytes, self.top = order, nbytes, top

    def _evaluated(self, order: Sequence[Block]) -> tuple[int, list[int]]:
        offsets = place_in_order(order, self.walls)
        ends = [offsets[block.name] + block.nbytes for block in order]
        nbytes = max(ends)
        return nbytes, [place for place, end in enumerate(ends) if end == nbytes]
