"""Bytes in use while a step runs with some of its activations recomputed, and nothing else.

The same numbers as those of :func:`coexec.memory.lifetimes.usage`, many times faster: only what is
repeated, and what reads a repetition, is gone through one by one. All else is moved behind the
repetitions as whole arrays. For searches that try thousands of choices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from coexec.memory.lifetimes import Event, Places, forget_lifetimes, make_again, plain_events
from coexec.memory.problem import StepNode, StepProblem

Ints = NDArray[np.int64]
Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class LiveBytes:
    """Bytes while each node or repetition runs; ``extra_us`` is the time of the repetitions."""

    live: Ints
    extra_us: float

    @cached_property
    def peak(self) -> int:
        return int(self.live.max(initial=0))

    def excess(self, budget: int) -> int:
        """Bytes above ``budget``, summed over what runs: 0 where the step fits."""
        return int(np.maximum(self.live - budget, 0).sum())


def live_bytes(
    problem: StepProblem, recomputed: Collection[int] = (), alone: Collection[int] = ()
) -> LiveBytes:
    """What :func:`~coexec.memory.lifetimes.usage` of the same arguments finds, without its events.

    ``recomputed`` and ``alone`` are numbers of tensors.
    """
    return _Repeated(_plain(problem), frozenset(recomputed), frozenset(alone)).measured()


class _Plain:
    """The step with nothing repeated: when memory is born, when it dies, and who reads it.

    ``readers`` are nodes behind the forward pass that read a tensor or a view of it, ``touched``
    the events that use memory, ``reused`` bytes that an event writes over an operand.
    """

    def __init__(self, problem: StepProblem) -> None:
        self.problem = problem
        self.events = plain_events(problem)
        late = (index for index, node in enumerate(problem.nodes) if not node.forward)
        self.begin = next(late, len(self.events))
        self.touched: dict[int, list[int]] = {}
        self.born: dict[int, int] = {}
        self.over: dict[int, list[int]] = {}
        for index, event in enumerate(self.events):
            for root in dict.fromkeys((*event.reads, *event.writes)):
                self.touched.setdefault(root, []).append(index)
            for root in event.writes:
                self.born.setdefault(root, index)
            for _, read in event.in_place:
                self.over.setdefault(read, []).append(index)
        self.last = {root: events[-1] for root, events in self.touched.items()}
        self.readers = self._readers()
        self.bytes_born, self.bytes_dead = self._bytes(self.born), self._bytes(self.last)
        self.reused = [self._reused(index, event) for index, event in enumerate(self.events)]
        workspace = np.array([node.workspace for node in problem.nodes], np.int64)
        self.beside = workspace - np.array(self.reused, np.int64)

    def _bytes(self, when: Mapping[int, int]) -> Ints:
        found = np.zeros(len(self.events), np.int64)
        for root, index in when.items():
            found[index] += self.problem.nbytes[root]
        return found

    def _reused(self, index: int, event: Event) -> int:
        for written, read in event.in_place:
            same = self.problem.nbytes[written] == self.problem.nbytes[read]
            if same and self.born[written] == index == self.last[read]:
                return self.problem.nbytes[written]
        return 0

    def _readers(self) -> dict[int, frozenset[int]]:
        found: dict[int, frozenset[int]] = {}
        nodes = self.problem.nodes
        for index in range(len(nodes) - 1, self.begin - 1, -1):
            node = nodes[index]
            if node.forward:
                continue
            viewed = (found.get(t, frozenset()) for t in node.writes if node.view)
            reached = frozenset((index,)).union(*viewed)
            for tensor in node.reads:
                found[tensor] = found.get(tensor, frozenset()) | reached
        return found


@lru_cache(maxsize=8)
def _plain(problem: StepProblem) -> _Plain:
    return _Plain(problem)


def forget_live_bytes() -> None:
    """Let go of problems that were looked at."""
    _plain.cache_clear()
    forget_lifetimes()


class _Repeated:
    """A step with repetitions: their memory is numbered behind that of tensors.

    ``inserted`` are the plain events that repetitions stand before, in order; ``last`` is the last
    use of memory by a repetition or by an event that reads one; ``pairs`` are operands that such
    an event may write over.
    """

    def __init__(self, plain: _Plain, recomputed: frozenset[int], alone: frozenset[int]) -> None:
        self.plain = plain
        self.problem = plain.problem
        self.recomputed = recomputed
        self.alone = alone
        self.roots = list(self.problem.roots)
        self.own = len(self.roots)
        self.sizes: list[int] = []
        self.shared: Places = {}
        self.inserted: list[int] = []
        self.repeated: list[int] = []
        self.before = 0
        self.born: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.pairs: list[tuple[int, Pairs]] = []
        self.moved: list[int] = []
        self.affected = frozenset[int]().union(
            *(plain.readers.get(tensor, ()) for tensor in recomputed)
        )

    def measured(self) -> LiveBytes:
        nodes, recomputed, shared = self.problem.nodes, self.recomputed, self.shared
        for index in sorted(self.affected):
            self.before = index
            node = nodes[index]
            for tensor in node.reads:
                if tensor in recomputed and tensor not in shared:
                    make_again(self.problem, tensor, recomputed, self.alone, shared, self._again)
            self._emit(node, index + len(self.inserted), node.writes, shared)
        return LiveBytes(self._live(), sum(nodes[index].cost_us for index in self.repeated))

    def _again(self, index: int, target: Places, around: Places) -> None:
        """Repeat a node up to its last result that is recomputed; ``target`` learns the places."""
        node, recomputed = self.problem.nodes[index], self.recomputed
        written = node.writes
        while written[-1] not in recomputed and not node.whole:
            written = written[:-1]
        first = len(self.roots)
        places = range(first, first + len(written))
        self.roots += places
        self.sizes += [self.problem.nbytes[tensor] for tensor in written]
        position = self.before + len(self.inserted)
        self.inserted.append(self.before)
        self.repeated.append(index)
        self._emit(node, position, places, around)
        for tensor, place in zip(written, places, strict=True):
            if self.roots[place] == place:
                self.born[place] = position
            if not node.whole or tensor in recomputed:
                target[tensor] = place

    def _emit(
        self, node: StepNode, position: int, places: Sequence[int], around: Mapping[int, int]
    ) -> None:
        """Uses of memory by an event that reads repetitions where there are some."""
        roots, shared, last = self.roots, self.shared, self.last
        reads = [roots[around.get(t, shared.get(t, t))] for t in node.reads]
        if node.view and places:
            roots[places[0]] = reads[0]
        for root in reads:
            last[root] = position
        for place in places:
            last[roots[place]] = position
        if node.in_place:
            to_read = dict(zip(node.reads, reads, strict=True))
            to_write = dict(zip(node.writes, places, strict=False))
            pairs = [(roots[to_write[w]], to_read[r]) for w, r in node.in_place if w in to_write]
            self.pairs.append((position, pairs))

    def _live(self) -> Ints:
        plain, count = self.plain, len(self.inserted)
        events = len(plain.events)
        moved = np.arange(events)
        if count:
            moved += np.cumsum(np.bincount(self.inserted, minlength=events))
        self.moved = moved.tolist()
        change = np.zeros(events + count + 1, np.int64)
        change[moved] = plain.bytes_born
        change[moved + 1] -= plain.bytes_dead
        beside = np.zeros(events + count, np.int64)
        beside[moved] = plain.beside
        for root in self._changed():
            end, nbytes = self.moved[plain.last[root]], self.problem.nbytes[root]
            change[end + 1] += nbytes
            change[self.last[root] + 1] -= nbytes
            for index in plain.over.get(root, ()):
                if index not in self.affected and self.moved[index] in (end, self.last[root]):
                    self._see(beside, index)
        for root, position in self.born.items():
            nbytes = self.sizes[root - self.own]
            change[position] += nbytes
            change[self.last[root] + 1] -= nbytes
        self._write_over(beside)
        live: Ints = np.cumsum(change[:-1]) + beside
        return live

    def _changed(self) -> list[int]:
        """Memory of tensors that is used for the last time by another event than without.

        From here on, :attr:`last` is right for whatever it has.
        """
        plain, affected, roots, moved = self.plain, self.affected, self.problem.roots, self.moved
        own, last, shared, nodes = self.own, self.last, self.shared, self.problem.nodes
        replaced = {
            roots[tensor]
            for index in affected
            for tensor in nodes[index].reads
            if self.roots[shared.get(tensor, tensor)] != roots[tensor]
        }
        changed = []
        for root in {*replaced, *last}:
            if root >= own:
                continue
            stays = plain.last[root]
            if root in replaced and stays in affected:
                touched = reversed(plain.touched[root])
                stays = next((e for e in touched if e not in affected), -1)
            here = max(last.get(root, -1), moved[stays] if stays >= 0 else -1)
            last[root] = here
            if here != moved[plain.last[root]] and self.problem.nbytes[root]:
                changed.append(root)
        return changed

    def _see(self, beside: Ints, index: int) -> None:
        """What a plain event writes over an operand, now that others use that later or no more."""
        position = self.moved[index]
        beside[position] = self.problem.nodes[index].workspace
        self.pairs.append((position, self.plain.events[index].in_place))

    def _write_over(self, beside: Ints) -> None:
        """Working memory of repetitions, and bytes that are written over operands."""
        nodes = self.problem.nodes
        for number, (before, index) in enumerate(zip(self.inserted, self.repeated, strict=True)):
            beside[before + number] = nodes[index].workspace
        for index in self.affected:
            if self.plain.reused[index]:
                beside[self.moved[index]] = nodes[index].workspace
        for position, pairs in dict(self.pairs).items():
            for written, read in pairs:
                same = self._size(written) == self._size(read)
                if same and self._birth(written) == position == self._end(read):
                    beside[position] -= self._size(written)
                    break

    def _size(self, root: int) -> int:
        return self.problem.nbytes[root] if root < self.own else self.sizes[root - self.own]

    def _birth(self, root: int) -> int:
        return self.moved[self.plain.born[root]] if root < self.own else self.born[root]

    def _end(self, root: int) -> int:
        return self.last[root] if root in self.last else self.moved[self.plain.last[root]]
