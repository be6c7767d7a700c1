"""Bytes in use while a step runs, with some of its activations recomputed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from coexec.memory.problem import StepProblem


@dataclass(frozen=True)
class Event:
    """A node that runs, maybe ``again``; memory (numbers of roots) that it reads and writes.

    Repetitions have memory of their own: the number of the root plus that of all tensors.
    """

    node: int
    again: bool
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    in_place: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Usage:
    """Bytes while each event runs, and the last event that uses each piece of memory."""

    events: tuple[Event, ...]
    live: tuple[int, ...]
    last: dict[int, int]

    @property
    def peak(self) -> int:
        return max(self.live, default=0)

    @property
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


def usage(problem: StepProblem, recomputed: Collection[int] = ()) -> Usage:
    """Run the step on paper, with ``recomputed`` tensors made again before their first late reader.

    The order is that of :func:`coexec.passes.rematerialise.rematerialise`.
    """
    events = _Unrolled(problem, frozenset(recomputed)).run()
    last = {root: index for index, e in enumerate(events) for root in (*e.reads, *e.writes)}
    size = (*problem.nbytes, *problem.nbytes)
    live, now = [], 0
    born: set[int] = set()
    for index, event in enumerate(events):
        new = [root for root in event.writes if root not in born]
        born.update(new)
        now += sum(size[root] for root in new)
        reused = 0
        for written, read in event.in_place:
            if written in new and last[read] == index and size[read] == size[written]:
                reused += size[written]
                break
        live.append(now - reused + problem.nodes[event.node].workspace)
        now -= sum(size[root] for root in {*event.reads, *event.writes} if last[root] == index)
    return Usage(tuple(events), tuple(live), last)


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


class _Unrolled:
    """The events of a step in order."""

    def __init__(self, problem: StepProblem, recomputed: frozenset[int]) -> None:
        self.problem = problem
        self.plain = plain_events(problem)
        self.recomputed = recomputed
        self.shift = len(problem.tensors)
        self.roots = [*problem.roots, *range(self.shift, 2 * self.shift)]
        self.again: set[int] = set()
        # Tensors whose memory is another one than in the plain step.
        self.moved = set(recomputed)
        self.events: list[Event] = []

    def run(self) -> list[Event]:
        for index, node in enumerate(self.problem.nodes):
            if node.forward or self.moved.isdisjoint(node.reads):
                self.events.append(self.plain[index])
                continue
            for tensor in node.reads:
                if tensor in self.recomputed:
                    self._repeat(tensor)
            if node.view:
                self.moved.update(node.writes)
            self._emit(index, again=False)
        return self.events

    def _repeat(self, tensor: int) -> None:
        pending = [tensor]
        while pending:
            current = pending[-1]
            if current in self.again:
                pending.pop()
                continue
            index = self.problem.producer[current]
            missing = [
                operand
                for operand in self.problem.nodes[index].reads
                if operand in self.recomputed and operand not in self.again
            ]
            if missing:
                pending += missing
                continue
            pending.pop()
            self._emit(index, again=True)

    def _emit(self, index: int, *, again: bool) -> None:
        node = self.problem.nodes[index]
        use_again = again or not node.forward
        roots, shift = self.roots, self.shift

        def place(tensor: int) -> int:
            return tensor + shift if use_again and tensor in self.again else tensor

        reads = [place(tensor) for tensor in node.reads]
        written = list(node.writes)
        if again:
            while written[-1] not in self.recomputed and not node.whole:
                written.pop()
            self.again.update(t for t in written if t in self.recomputed or not node.whole)
            written = [tensor + shift for tensor in written]
        if node.view and written:
            roots[written[0]] = roots[reads[0]]
        to_read = dict(zip(node.reads, reads, strict=True))
        offset = shift if again else 0
        self.events.append(
            Event(
                index,
                again,
                tuple(dict.fromkeys(roots[t] for t in reads)),
                tuple(dict.fromkeys(roots[t] for t in written)),
                tuple((roots[w + offset], roots[to_read[r]]) for w, r in node.in_place),
            )
        )
