"""Which activations leave the device between the passes, and when they go and come back.

Those that wait longest leave first: what is made early is read late. Transfers go one after the
other beside the computing. At most a few are under way at once, so that little memory waits for
them, and each begins as late as the times predict that it can. What a step then loses is reckoned
on the same times. Sources: Rhu et al., "vDNN", MICRO 2016 (arXiv 1602.08124), for layers that are
moved ahead of their use; Patil et al., "POET", ICML 2022 (arXiv 2207.07697), for paging beside
recomputing on devices whose storage is slow.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from coexec.core.pages import Page, PageLink
from coexec.memory.problem import StepProblem

AHEAD = 2
"""Transfers under way at once in each direction at most."""
LEAST_BYTES = 1 << 16
"""Of an activation: a smaller one is not worth two transfers."""
EARLIER = 1.25
"""Times the duration of a transfer: so much before the first use it begins."""


@dataclass(frozen=True)
class _Trip:
    """A page by numbers: tensor, last node before it leaves, first node that reads it again."""

    tensor: int
    nbytes: int
    last: int
    first: int
    gone: int = 0
    fetched: int = 0


def choose_pages(
    problem: StepProblem, names: Collection[str], link: PageLink, share: float
) -> list[Page]:
    """Pages that hold about a ``share`` of the bytes of those activations ``names`` that may leave.

    Not what is small, nor what the backward pass reads first thing.
    """
    starts = [0.0, *accumulate(node.cost_us for node in problem.nodes)]
    end = max((i for i, node in enumerate(problem.nodes) if node.forward), default=-1)
    able = [trip for trip in _trips(problem, end) if problem.tensors[trip.tensor] in names]
    trips = _longest(able, starts, share)
    trips = _return(_leave(trips, starts, link, end), starts, link, end)
    waits = _waits(trips, problem, link)
    name = [node.name for node in problem.nodes]
    return [
        Page(problem.tensors[trip.tensor], name[trip.gone], name[trip.fetched], waits[trip.tensor])
        for trip in sorted(trips, key=lambda trip: trip.last)
    ]


def _trips(problem: StepProblem, end: int) -> list[_Trip]:
    """All activations that may leave."""
    candidates = {r for r in problem.candidates if problem.nbytes[r] >= LEAST_BYTES}
    last = {root: problem.producer[root] for root in candidates}
    first: dict[int, int] = {}
    for index, node in enumerate(problem.nodes):
        for root in {problem.roots[tensor] for tensor in node.reads} & candidates:
            if index <= end:
                last[root] = index
            else:
                first.setdefault(root, index)
    return [
        _Trip(root, problem.nbytes[root], last[root], first[root])
        for root in candidates
        if first.get(root, 0) > end + 1
    ]


def _longest(trips: Sequence[_Trip], starts: Sequence[float], share: float) -> list[_Trip]:
    """Those that wait longest, as many as are nearest to a share of all bytes."""
    wanted = share * sum(trip.nbytes for trip in trips)
    found: list[_Trip] = []
    held = 0.0
    for trip in sorted(trips, key=lambda t: (starts[t.last + 1] - starts[t.first], t.tensor)):
        if held + trip.nbytes / 2 > wanted:
            break
        found.append(trip)
        held += trip.nbytes
    return found


def _leave(
    trips: Sequence[_Trip], starts: Sequence[float], link: PageLink, end: int
) -> list[_Trip]:
    """The node behind which each is gone: by the times, or for the next but one to leave."""
    ordered = sorted(trips, key=lambda trip: (trip.last, trip.tensor))
    free, found = 0.0, []
    for number, trip in enumerate(ordered):
        free = max(free, starts[trip.last + 1]) + link.out_us(trip.nbytes)
        limit = ordered[number + AHEAD].last if number + AHEAD < len(ordered) else end
        gone = trip.last
        while link.beside and gone < limit and starts[gone + 1] < free:
            gone += 1
        found.append(replace(trip, gone=gone))
    return found


def _return(
    trips: Sequence[_Trip], starts: Sequence[float], link: PageLink, end: int
) -> list[_Trip]:
    """The node before which each starts to come back: as late as can be by the times.

    Not before the one but one before it was read, nor in the forward pass.
    """
    ordered = sorted(trips, key=lambda trip: (trip.first, trip.tensor))
    begin, found = float("inf"), []
    for number in reversed(range(len(ordered))):
        trip = ordered[number]
        begin = min(starts[trip.first], begin) - EARLIER * link.in_us(trip.nbytes)
        limit = max(ordered[number - AHEAD].first if number >= AHEAD else 0, end + 1)
        fetched = trip.first
        while link.beside and fetched > limit and starts[fetched] > begin:
            fetched -= 1
        found.append(replace(trip, fetched=fetched))
    return found[::-1]


def _waits(trips: Sequence[_Trip], problem: StepProblem, link: PageLink) -> dict[int, float]:
    """What a step loses to each page: time that it waits for, and the part of the processor."""
    lost = {
        trip.tensor: link.load * (link.out_us(trip.nbytes) + link.in_us(trip.nbytes) * link.beside)
        for trip in trips
    }
    clock = free = 0.0
    there: dict[tuple[str, int], float] = {}

    def await_transfer(direction: str, trip: _Trip) -> None:
        nonlocal clock
        late = max(there[direction, trip.tensor] - clock, 0.0)
        lost[trip.tensor] += late
        clock += late

    for index, node in enumerate(problem.nodes):
        for trip in (each for each in trips if each.fetched == index):
            free = max(free, clock) + link.in_us(trip.nbytes)
            there["in", trip.tensor] = free
        for trip in (each for each in trips if each.first == index):
            await_transfer("in", trip)
        clock += node.cost_us
        for trip in (each for each in trips if each.last == index):
            free = max(free, clock) + link.out_us(trip.nbytes)
            there["out", trip.tensor] = free
        for trip in (each for each in trips if each.gone == index and link.beside):
            await_transfer("out", trip)
    return lost
