"""What a run on several processors does, move by move, and orders in which the same comes sooner.

Processors work through their own moves in order; between two of them, flags alone say who goes
first. So moves may change places as long as those of each processor, and what the caller does by
itself, stay in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coexec.core.processor import Runner
from coexec.core.program import Instruction, Launch


@dataclass(frozen=True)
class Region:
    """A launch by ``runner``, the ``number``-th of all."""

    runner: Runner
    step: Launch
    number: int


@dataclass(frozen=True)
class Begin:
    """As much of a region as keeps its processor busy while others begin."""

    region: Region

    @property
    def runner(self) -> Runner:
        return self.region.runner


@dataclass(frozen=True)
class GoOn:
    """The rest of a region that was begun."""

    region: Region

    @property
    def runner(self) -> Runner:
        return self.region.runner


@dataclass(frozen=True)
class Tell:
    """The flag of ``runner`` comes to a number."""

    runner: Runner
    number: int


@dataclass(frozen=True)
class Follow:
    """``runner`` goes on after another one told."""

    runner: Runner
    told: Tell


@dataclass(frozen=True)
class Meet:
    """The flag of ``runner`` comes to a number, and it goes on after another one told."""

    tell: Tell
    told: Tell

    @property
    def runner(self) -> Runner:
        return self.tell.runner


@dataclass(frozen=True)
class Watch:
    """The caller, who is ``runner``, waits for a region."""

    runner: Runner
    region: Region


@dataclass(frozen=True)
class ByHand:
    """What differs from run to run: an instruction of a lane."""

    runner: Runner
    lane: str
    step: Instruction


Move = Region | Begin | GoOn | Tell | Follow | Meet | Watch | ByHand


def heard(moves: Sequence[Move]) -> list[Move]:
    """Moves without flags that nobody waits for: they might come up when the next run has begun."""
    told = {move.told for move in moves if isinstance(move, Follow)}
    return [move for move in moves if not isinstance(move, Tell) or move in told]


def met(moves: Sequence[Move], caller: Runner | None) -> list[Move]:
    """Moves in which who tells others, and waits for them next, does both at once.

    Not the ``caller``, who would wait before others are given their work.
    """
    found: list[Move] = []
    # By processor, the place of its last move.
    last: dict[Runner, int] = {}
    for move in moves:
        before = last.get(move.runner)
        tell = None if before is None or move.runner is caller else found[before]
        if isinstance(move, Follow) and isinstance(tell, Tell) and before is not None:
            found[before] = Meet(tell, move.told)
        else:
            last[move.runner] = len(found)
            found.append(move)
    return found


def begun(moves: Sequence[Move], caller: Runner | None, late: Runner | None = None) -> list[Move]:
    """Moves in which all processors but the ``caller`` begin before the first is given the rest.

    The one that is ``late``, if one is, after all others.
    """
    first: list[Move] = []
    rest: list[Move] = []
    waiting, busy = set[Runner](), set[Runner]()
    for move in moves:
        if isinstance(move, Follow | Meet | Watch) or move.runner is caller:
            waiting.add(move.runner)
        if move.runner in busy | waiting:
            rest.append(move)
        elif isinstance(move, Region):
            busy.add(move.runner)
            first.append(Begin(move))
            rest.append(GoOn(move))
        else:
            first.append(move)
    first.sort(key=lambda move: move.runner is late)
    return [*first, *rest] if len(busy) > 1 else [*moves]
