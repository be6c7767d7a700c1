"""What to recompute in a chain of segments: dynamic programming over what is kept between them.

Where a single tensor leads from one part of the forward pass to the next, the step is a chain of
segments. Each is kept as it is, thinned (what is cheap for its bytes is recomputed), or recomputed
as a whole, together with its neighbours. Of coarse segments, several may also be recomputed one by
one: their ends are made first, each alone, and what lies between them when its turn comes, so that
it is computed three times in all. Partial plans are compared by bytes kept and time: none that is
better in both is lost. Source: Griewank and Walther, "Algorithm 799: Revolve", 2000, for
checkpoints in chains; Chen et al., 2016 (arXiv 1604.06174), for segments of a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepProblem

LONGEST = 24
"""Segments that are recomputed together at most."""
WIDEST = 48
"""Partial plans kept at each cut."""
CLOSE = 1.005
"""The smallest budget is found up to this factor."""
BLOCK, AROUND, NARROW = 3, 3, 0.5
"""A segment of so many candidates is a block of its own; smaller ones are joined up to an end that
is the least of so many on both sides, and no more than this share of the largest of those."""


@dataclass(frozen=True)
class Segment:
    """Candidates made between two cuts, in order; ``end`` leads on to the next segment."""

    candidates: tuple[int, ...]
    end: int | None


class Dropped(NamedTuple):
    """Candidates that are not kept, and those of them that are made again alone."""

    candidates: frozenset[int]
    alone: frozenset[int]


@dataclass(frozen=True)
class _Way:
    """A way to treat segments ``first`` to ``last``."""

    first: int
    last: int
    dropped: Dropped
    kept: int
    transient: int
    cost_us: float


_Partial = tuple[int, float, int, "_Way | None", "_Partial | None"]
"""A treatment of the first segments: bytes kept, time, a number, its last way and what is before.

Plain tuples: millions are made, and compared by their first three fields."""


def _dropped(partial: _Partial | None) -> Dropped:
    found: set[int] = set()
    alone: set[int] = set()
    while partial is not None and partial[3] is not None:
        found |= partial[3].dropped.candidates
        alone |= partial[3].dropped.alone
        partial = partial[4]
    return Dropped(frozenset(found), frozenset(alone))


def segments(problem: StepProblem) -> list[Segment]:
    """The forward pass cut wherever one piece of memory alone leads on."""
    forward = [index for index, node in enumerate(problem.nodes) if node.forward]
    last: dict[int, int] = {}
    for index in forward:
        for tensor in problem.nodes[index].reads:
            last[problem.roots[tensor]] = index
    open_roots: set[int] = set()
    found: list[Segment] = []
    begun: list[int] = []
    candidates = frozenset(problem.candidates)
    for index in forward:
        node = problem.nodes[index]
        for root in {problem.roots[tensor] for tensor in node.writes}:
            if problem.nbytes[root] and last.get(root, -1) > index:
                open_roots.add(root)
            if root in candidates and root not in begun:
                begun.append(root)
        open_roots -= {root for root in open_roots if last[root] <= index}
        if len(open_roots) == 1 and begun and next(iter(open_roots)) in begun:
            found.append(Segment(tuple(begun), next(iter(open_roots))))
            begun = []
    if begun:
        found.append(Segment(tuple(begun), None))
    return found


def blocks(problem: StepProblem, parts: Sequence[Segment]) -> list[Segment]:
    """Coarser segments: each ends with a block of a network, or where little leads on."""
    sizes = [0 if part.end is None else problem.nbytes[part.end] for part in parts]
    found: list[Segment] = []
    joined: tuple[int, ...] = ()
    for index, part in enumerate(parts):
        joined += part.candidates
        near = sizes[max(index - AROUND, 0) : index + AROUND + 1]
        narrow = sizes[index] == min(near) <= NARROW * max(near)
        if narrow or len(part.candidates) >= BLOCK or index == len(parts) - 1:
            found.append(Segment(joined, part.end))
            joined = ()
    return found


class Chain:
    """The segments of a step and all ways to treat them, for plans with several budgets.

    ``by_blocks``: coarse segments, which may be recomputed one by one.
    """

    def __init__(self, problem: StepProblem, *, by_blocks: bool = False) -> None:
        parts = segments(problem)
        self.parts = blocks(problem, parts) if by_blocks else parts
        self.ways: list[list[_Way]] = [[] for _ in self.parts]
        for way in _ways(problem, self.parts, by_blocks):
            self.ways[way.first].append(way)

    def plan(self, budget: int) -> Dropped | None:
        """What to drop so that it fits ``budget`` bytes in the least time, or none."""
        number = count()
        fronts: list[list[_Partial]] = [[] for _ in range(len(self.parts) + 1)]
        fronts[0] = [(0, 0.0, next(number), None, None)]
        for start, ways in enumerate(self.ways):
            fields = [
                (w, fronts[w.last + 1], w.kept, w.kept + w.transient, w.cost_us) for w in ways
            ]
            for partial in _front(fronts[start]):
                kept, cost_us, *_ = partial
                for way, front, more, needed, extra_us in fields:
                    if kept + needed <= budget:
                        front.append((kept + more, cost_us + extra_us, next(number), way, partial))
        chosen = min(fronts[-1], key=lambda p: (p[1], p[0]), default=None)
        return None if chosen is None else _dropped(chosen)

    def least(self, low: int, high: int) -> int:
        """About the smallest budget in bytes between two that there is a plan for, by halving."""
        while high > max(low * CLOSE, low + 1):
            middle = (low + high) // 2
            if self.fits(middle):
                high = middle
            else:
                low = middle
        return high

    def fits(self, budget: int) -> bool:
        """Whether there is a plan: one that keeps least up to each cut needs least behind it."""
        least: list[int | None] = [0, *(None for _ in self.parts)]
        for start, ways in enumerate(self.ways):
            kept = least[start]
            for way in ways if kept is not None else ():
                assert kept is not None
                best = least[way.last + 1]
                more = kept + way.kept
                if more + way.transient <= budget and (best is None or more < best):
                    least[way.last + 1] = more
        return least[-1] is not None


def _front(partials: list[_Partial]) -> list[_Partial]:
    """Those that no other one beats in bytes and in time; evenly fewer if they are many."""
    front: list[_Partial] = []
    partials.sort()
    for partial in partials:
        if not front or partial[1] < front[-1][1]:
            front.append(partial)
    if len(front) <= WIDEST:
        return front
    return [front[round(i * (len(front) - 1) / (WIDEST - 1))] for i in range(WIDEST)]


NONE: frozenset[int] = frozenset()


def _ways(problem: StepProblem, parts: Sequence[Segment], by_blocks: bool) -> Iterator[_Way]:
    around = _surroundings(problem, parts)
    for first, part in enumerate(parts):
        thinned = _thinned(problem, part)
        for dropped in dict.fromkeys((NONE, *thinned)):
            yield _way(problem, parts, (first, first), dropped, around[first])
        members: list[int] = []
        transient = 0
        for last in range(first, min(first + LONGEST, len(parts))):
            members += parts[last].candidates
            transient = max(transient, around[last])
            gone = frozenset(members) - {parts[last].end}
            together = _way(problem, parts, (first, last), gone, transient)
            yield together
            if by_blocks and last > first:
                yield _one_by_one(problem, parts, together, transient)


def _way(
    problem: StepProblem,
    parts: Sequence[Segment],
    span: tuple[int, int],
    dropped: frozenset[int],
    around: int,
) -> _Way:
    members = [root for part in parts[span[0] : span[1] + 1] for root in part.candidates]
    gone = sum(problem.nbytes[root] for root in dropped)
    kept = sum(problem.nbytes[root] for root in members) - gone
    cost = problem.extra_us(problem.recomputed(dropped)) if dropped else 0.0
    return _Way(*span, Dropped(dropped, NONE), kept, gone + around, cost)


def _one_by_one(
    problem: StepProblem, parts: Sequence[Segment], together: _Way, around: int
) -> _Way:
    """The same, but ends are made again alone: what lies between them is there one at a time."""
    span = parts[together.first : together.last + 1]
    ends = frozenset(part.end for part in span[:-1] if part.end is not None)
    held = sum(problem.nbytes[root] for root in ends)
    inside = max(
        sum(problem.nbytes[root] for root in part.candidates if root != part.end) for part in span
    )
    before = [root for part in span[:-1] for root in part.candidates]
    twice = problem.extra_us(problem.recomputed(before)) if before else 0.0
    dropped = Dropped(together.dropped.candidates, ends)
    transient, cost_us = held + inside + around, together.cost_us + twice
    return _Way(together.first, together.last, dropped, together.kept, transient, cost_us)


def _thinned(problem: StepProblem, part: Segment) -> list[frozenset[int]]:
    """Growing sets of the segment's candidates, those with most bytes for their time first."""

    def rate(root: int) -> float:
        return problem.nbytes[root] / max(problem.nodes[problem.producer[root]].cost_us, 1e-3)

    ranked = sorted((r for r in part.candidates if r != part.end), key=rate, reverse=True)
    return [frozenset(ranked[:number]) for number in range(1, len(ranked))]


def _surroundings(problem: StepProblem, parts: Sequence[Segment]) -> list[int]:
    """For each segment the most that is there beside candidates while the backward pass is at it.

    That is gradients of parameters up to then, gradients on their way, and working memory.
    """
    home = {root: index for index, part in enumerate(parts) for root in part.candidates}
    plain = usage(problem)
    born = {root: problem.producer[root] for root in home}
    most = [0] * len(parts)
    for number, event in enumerate(plain.events):
        own = {home[root] for root in (*event.reads, *event.writes) if root in home}
        if problem.nodes[event.node].forward or not own:
            continue
        there = sum(
            problem.nbytes[root]
            for root in home
            if born[root] <= event.node and plain.last[root] >= number
        )
        for index in own:
            most[index] = max(most[index], plain.live[number] - there)
    return most
