"""Bytes in use while a step runs, with some of its activations recomputed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat

from coexec.memory.problem import StepProblem


@dataclass(frozen=True, slots=True)
class Event:
    """A node that runs, maybe ``again``; memory (numbers of roots) that it reads and writes.

    Repetitions have memory of their own: see :attr:`Usage.origins`.
    """

    node: int
    again: bool
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    in_place: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Usage:
    """Bytes while each event runs, and the last event that uses each piece of memory.

    ``origins`` maps numbers of memory to the tensors that lie there or that are repeated there;
    ``extra_us`` is the time that repetitions take.
    """

    events: tuple[Event, ...]
    live: tuple[int, ...]
    last: dict[int, int]
    origins: tuple[int, ...]
    extra_us: float

    @cached_property
    def peak(self) -> int:
        return max(self.live, default=0)

    @cached_property
    def peak_event(self) -> int:
        return max(range(len(self.live)), key=self.live.__getitem__, default=0)

    def live_at(self, event: int) -> list[int]:
        """Numbers of the memory that is in use while an event runs."""
        born: dict[int, int] = {}
        for index, each in enumerate(self.events[: event + 1]):
            for root in each.writes:
                born.setdefault(root, index)
        return [root for root in born if self.last[root] >= event]

    def excess(self, budget: int) -> int:
        """Bytes above ``budget``, summed over events: 0 where the step fits."""
        return sum(live - budget for live in self.live if live > budget)


def usage(
    problem: StepProblem, recomputed: Collection[int] = (), alone: Collection[int] = ()
) -> Usage:
    """Run the step on paper, with ``recomputed`` tensors made again before their first late reader.

    What leads to those that are ``alone`` is repeated for them only, and once more for others. The
    order is that of :func:`coexec.passes.rematerialise.rematerialise`.
    """
    head = _head(problem)
    unrolled = _Unrolled(problem, frozenset(recomputed), frozenset(alone), head)
    events, size = unrolled.run(), unrolled.sizes
    last = dict(head.last)
    for index in range(head.length, len(events)):
        event = events[index]
        for root in event.reads:
            last[root] = index
        for root in event.writes:
            last[root] = index
    dying = [0] * len(events)
    for root, index in last.items():
        dying[index] += size[root]
    nodes, born = problem.nodes, dict(head.born)
    live, now = [], 0
    for index, event in enumerate(events):
        if index < head.length:
            now += head.bytes_born[index]
        else:
            for root in event.writes:
                if root not in born:
                    born[root] = index
                    now += size[root]
        reused = 0
        for written, read in event.in_place:
            if born[written] == index == last[read] and size[read] == size[written]:
                reused = size[written]
                break
        live.append(now - reused + nodes[event.node].workspace)
        now -= dying[index]
    extra_us = sum(nodes[event.node].cost_us for event in events if event.again)
    return Usage(tuple(events), tuple(live), last, tuple(unrolled.origins), extra_us)


@dataclass(frozen=True)
class _Head:
    """What recomputing does not change: plain events, and the forward pass, which comes first.

    Of its ``length`` events: the last use of memory, where it is born, and bytes born by event.
    """

    events: tuple[Event, ...]
    length: int
    last: dict[int, int]
    born: dict[int, int]
    bytes_born: tuple[int, ...]


@lru_cache(maxsize=8)
def _head(problem: StepProblem) -> _Head:
    events = plain_events(problem)
    late = (index for index, node in enumerate(problem.nodes) if not node.forward)
    length = next(late, len(events))
    last: dict[int, int] = {}
    born: dict[int, int] = {}
    bytes_born = []
    for index, event in enumerate(events[:length]):
        last.update(zip((*event.reads, *event.writes), repeat(index)))
        new = [root for root in event.writes if root not in born]
        born.update(dict.fromkeys(new, index))
        bytes_born.append(sum(problem.nbytes[root] for root in new))
    return _Head(events, length, last, born, tuple(bytes_born))


@lru_cache(maxsize=8)
def plain_events(problem: StepProblem) -> tuple[Event, ...]:
    """The events of a step in which nothing is recomputed."""
    roots = problem.roots
    return tuple(
        Event(
            index,
            False,
            tuple(dict.fromkeys(roots[tensor] for tensor in node.reads)),
            tuple(dict.fromkeys(roots[tensor] for tensor in node.writes)),
            tuple((roots[written], roots[read]) for written, read in node.in_place),
        )
        for index, node in enumerate(problem.nodes)
    )


def forget_lifetimes() -> None:
    """Let go of problems that were looked at."""
    _head.cache_clear()
    plain_events.cache_clear()


Places = dict[int, int]
"""Where repetitions of tensors lie, by tensor."""


def make_again(
    problem: StepProblem,
    tensor: int,
    recomputed: frozenset[int],
    alone: frozenset[int],
    shared: Places,
    again: Callable[[int, Places, Places], None],
) -> None:
    """Make a tensor again, and first what it takes and nobody has.

    ``shared`` has the repetitions that everybody may read. ``again`` is called for each node that
    is repeated, in order: it adds the places of the node's results to the first mapping, and finds
    operands in the second one before ``shared``.
    """
    pending: list[tuple[int, Places, Places]] = [
        (tensor, shared, {} if tensor in alone else shared)
    ]
    while pending:
        current, target, around = pending[-1]
        if current in shared or current in target:
            pending.pop()
            continue
        index = problem.producer[current]
        missing = [
            operand
            for operand in problem.nodes[index].reads
            if operand in recomputed and operand not in shared and operand not in around
        ]
        if not missing:
            pending.pop()
            again(index, target, around)
        for operand in missing:
            own = operand in alone
            pending.append((operand, shared if own else around, {} if own else around))


class _Unrolled:
    """The events of a step in order; memory of repetitions is numbered behind that of tensors."""

    def __init__(
        self, problem: StepProblem, recomputed: frozenset[int], alone: frozenset[int], head: _Head
    ) -> None:
        self.problem = problem
        self.recomputed = recomputed
        self.alone = alone
        self.head = head
        self.roots = list(problem.roots)
        self.sizes = list(problem.nbytes)
        self.origins = list(range(len(problem.tensors)))
        # Places of repetitions that everybody may read.
        self.shared: Places = {}
        # Tensors whose memory is another one than in the plain step.
        self.moved = set(recomputed)
        self.events: list[Event] = list(head.events[: head.length])

    def run(self) -> list[Event]:
        plain, moved, recomputed = self.head.events, self.moved, self.recomputed
        for index in range(self.head.length, len(plain)):
            node = self.problem.nodes[index]
            if node.forward or moved.isdisjoint(node.reads):
                self.events.append(plain[index])
                continue
            for tensor in node.reads:
                if tensor in recomputed and tensor not in self.shared:
                    make_again(
                        self.problem, tensor, recomputed, self.alone, self.shared, self._again
                    )
            if node.view:
                moved.update(node.writes)
            self._emit(index, node.writes, self.shared, {})
        return self.events

    def _again(self, index: int, target: Places, around: Places) -> None:
        """Repeat a node up to its last result that is recomputed; ``target`` learns the places."""
        node = self.problem.nodes[index]
        written = list(node.writes)
        while written[-1] not in self.recomputed and not node.whole:
            written.pop()
        places = [self._place(tensor) for tensor in written]
        self._emit(index, places, self.shared, around, again=True)
        target.update(
            (tensor, place)
            for tensor, place in zip(written, places, strict=True)
            if tensor in self.recomputed or not node.whole
        )

    def _place(self, tensor: int) -> int:
        """Memory for a repetition."""
        self.roots.append(len(self.roots))
        self.sizes.append(self.problem.nbytes[tensor])
        self.origins.append(tensor)
        return len(self.roots) - 1

    def _emit(
        self,
        index: int,
        written: Collection[int],
        shared: Places,
        around: Places,
        *,
        again: bool = False,
    ) -> None:
        """An event that reads repetitions where there are some, but for late writes of its own."""
        node, roots = self.problem.nodes[index], self.roots
        if again or not node.forward:
            reads = [around.get(t, shared.get(t, t)) for t in node.reads]
        else:
            reads = list(node.reads)
        places = tuple(written)
        if node.view and places:
            roots[places[0]] = roots[reads[0]]
        to_read = dict(zip(node.reads, reads, strict=True))
        to_write = dict(zip(node.writes, places, strict=False))
        self.events.append(
            Event(
                index,
                again,
                tuple(dict.fromkeys(roots[place] for place in reads)),
                tuple(dict.fromkeys(roots[place] for place in places)),
                tuple(
                    (roots[to_write[w]], roots[to_read[r]])
                    for w, r in node.in_place
                    if w in to_write
                ),
            )
        )
