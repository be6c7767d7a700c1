"""What to recompute in a chain of segments: dynamic programming over what is kept between them.

Where a single tensor leads from one part of the forward pass to the next, the step is a chain of
segments. Each is kept as it is, thinned (what is cheap for its bytes is recomputed), or recomputed
as a whole, together with its neighbours. Partial plans are compared by bytes kept and time: none
that is better in both is lost. Source: Griewank and Walther, "Algorithm 799: Revolve", 2000, for
checkpoints in chains; Chen et al., 2016 (arXiv 1604.06174), for segments of a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepProblem

LONGEST = 24
"""Segments that are recomputed together at most."""
WIDEST = 48
"""Partial plans kept at each cut."""
CLOSE = 1.03
"""The smallest budget is found up to this factor."""


@dataclass(frozen=True)
class Segment:
    """Candidates made between two cuts, in order; ``end`` leads on to the next segment."""

    candidates: tuple[int, ...]
    end: int | None


@dataclass(frozen=True)
class _Way:
    """A way to treat segments ``first`` to ``last``."""

    first: int
    last: int
    dropped: frozenset[int]
    kept: int
    transient: int
    cost_us: float


class _Partial(NamedTuple):
    """A treatment of the first segments: bytes kept, and time."""

    kept: int
    cost_us: float
    way: _Way | None = None
    before: _Partial | None = None

    def then(self, way: _Way) -> _Partial:
        return _Partial(self.kept + way.kept, self.cost_us + way.cost_us, way, self)

    def dropped(self) -> frozenset[int]:
        found: set[int] = set()
        partial: _Partial | None = self
        while partial is not None and partial.way is not None:
            found |= partial.way.dropped
            partial = partial.before
        return frozenset(found)


_NOTHING = _Partial(0, 0.0)


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


class Chain:
    """The segments of a step and all ways to treat them, for plans with several budgets."""

    def __init__(self, problem: StepProblem) -> None:
        self.parts = segments(problem)
        self.ways: list[list[_Way]] = [[] for _ in self.parts]
        for way in _ways(problem, self.parts):
            self.ways[way.first].append(way)

    def plan(self, budget: int) -> frozenset[int] | None:
        """Candidates to drop so that it fits ``budget`` bytes in the least time, or none."""
        fronts: list[list[_Partial]] = [[] for _ in range(len(self.parts) + 1)]
        fronts[0] = [_NOTHING]
        for start, ways in enumerate(self.ways):
            for partial in _front(fronts[start]):
                for way in ways:
                    if partial.kept + way.kept + way.transient <= budget:
                        fronts[way.last + 1].append(partial.then(way))
        chosen = min(fronts[-1], key=lambda p: (p.cost_us, p.kept), default=None)
        return None if chosen is None else chosen.dropped()

    def least(self, low: int, high: int) -> int:
        """About the smallest budget in bytes between two that there is a plan for, by halving."""
        while high > low * CLOSE:
            middle = (low + high) // 2
            if self.plan(middle) is None:
                low = middle
            else:
                high = middle
        return high


def _front(partials: Sequence[_Partial]) -> list[_Partial]:
    """Those that no other one beats in bytes and in time; evenly fewer if they are many."""
    front: list[_Partial] = []
    for partial in sorted(partials, key=lambda p: (p.kept, p.cost_us)):
        if not front or partial.cost_us < front[-1].cost_us:
            front.append(partial)
    if len(front) <= WIDEST:
        return front
    return [front[round(i * (len(front) - 1) / (WIDEST - 1))] for i in range(WIDEST)]


def _ways(problem: StepProblem, parts: Sequence[Segment]) -> Iterator[_Way]:
    around = _surroundings(problem, parts)
    for first, part in enumerate(parts):
        thinned = _thinned(problem, part)
        for dropped in dict.fromkeys((frozenset[int](), *thinned)):
            yield _way(problem, parts, (first, first), dropped, around[first])
        members: list[int] = []
        transient = 0
        for last in range(first, min(first + LONGEST, len(parts))):
            members += parts[last].candidates
            transient = max(transient, around[last])
            gone = frozenset(members) - {parts[last].end}
            yield _way(problem, parts, (first, last), gone, transient)


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
    return _Way(*span, dropped, kept, gone + around, cost)


def _thinned(problem: StepProblem, part: Segment) -> list[frozenset[int]]:
    """Growing sets of the segment's candidates, those with most bytes for their time first."""

    def rate(root: int) -> float:
        return problem.nbytes[root] / max(problem.nodes[problem.producer[root]].cost_us, 1e-3)

    ranked = sorted((r for r in part.candidates if r != part.end), key=rate, reverse=True)
    return [frozenset(ranked[:count]) for count in range(1, len(ranked))]


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
