"""A placed step with repetitions as a planning problem: what they take on a timeline, and in bytes.

Repetitions that one reader waits for are a group. On the reader's processor a group runs right
before it. On another one it runs ahead: while the reader of the group before still computes, and
not before the reader of the one before that is done. So much of what is made ahead is there at
once, and no more (programs hold to that: memory is written again once it was read).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from coexec.memory.lifetimes import Places, make_again
from coexec.memory.problem import Choice, StepProblem
from coexec.passes.rematerialise import SUFFIX
from coexec.placement.problem import Problem, Schedule, Task, Tensor
from coexec.placement.timeline import Timeline, simulate

Groups = Mapping[int, int]
"""Processors of groups by number, where that is not the reader's."""


@dataclass(frozen=True, eq=False)
class PlacedStep:
    """A step as memory and timeline see it: node n of ``memory`` is task n of ``problem``.

    ``units`` has the processor of each. What processors have lies in one memory.

    Raises:
        ValueError: they are not of the same nodes.
    """

    memory: StepProblem
    problem: Problem
    units: tuple[int, ...]

    def __post_init__(self) -> None:
        nodes = [node.name for node in self.memory.nodes]
        if nodes != [task.name for task in self.problem.tasks]:
            raise ValueError("memory and timeline are not of the same nodes in the same order")

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Tensors of the planning problem by those of the memory problem."""
        known = {tensor.name: number for number, tensor in enumerate(self.problem.tensors)}
        names = enumerate(self.memory.tensors)
        return {number: known[name] for number, name in names if name in known}


class Item(NamedTuple):
    """A node that runs, in its ``group`` of repetitions (-1: none); tensors it reads and makes.

    Tensors of repetitions are numbered behind those of the step.
    """

    node: int
    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    group: int = -1


@dataclass(frozen=True)
class Evaluation:
    """Repetitions placed: the timeline, bytes in use at most, and all by name for a plan."""

    timeline: Timeline
    peak: int
    processors: Mapping[str, str]
    order: tuple[str, ...]

    @property
    def makespan_us(self) -> float:
        return self.timeline.makespan_us


class Repeated:
    """A step in which a choice of tensors is made again; ``readers`` are the groups' by number."""

    def __init__(self, step: PlacedStep, choice: Choice) -> None:
        self.step = step
        self.recomputed, self.alone = choice.recomputed, choice.alone
        self.origins = list(range(len(step.memory.tensors)))
        self.items: list[Item] = []
        self.readers: list[int] = []
        self._times: Counter[int] = Counter()
        self._shared: Places = {}
        self._unroll()

    @property
    def groups(self) -> list[list[Item]]:
        """Repetitions by group."""
        found: list[list[Item]] = [[] for _ in self.readers]
        for item in self.items:
            if item.group >= 0:
                found[item.group].append(item)
        return found

    def can_run(self, group: int, unit: int) -> bool:
        """Whether a processor executes a whole group."""
        times = self.step.problem.times
        items = (item for item in self.items if item.group == group)
        return all(times[item.node][unit] < float("inf") for item in items)

    def home(self, group: int) -> int:
        """The processor of a group's reader."""
        return self.step.units[self.readers[group]]

    def evaluated(self, away: Groups) -> Evaluation:
        """What it leads to with these groups elsewhere."""
        items = self._ordered(away)
        units = tuple(self._unit(item, away) for item in items)
        problem = self._problem(items, away)
        timeline = simulate(problem, Schedule(units, tuple(range(len(items)))))
        names = [unit.name for unit in problem.units]
        processors = {item.name: names[u] for item, u in zip(items, units, strict=True)}
        order = tuple(item.name for item in items)
        return Evaluation(timeline, self._peak(items), processors, order)

    def _unroll(self) -> None:
        memory, shared = self.step.memory, self._shared
        for index, node in enumerate(memory.nodes):
            reads = node.reads
            if not node.forward:
                missing = [t for t in reads if t in self.recomputed and t not in shared]
                if missing:
                    self.readers.append(index)
                for tensor in missing:
                    if tensor not in shared:
                        make_again(memory, tensor, self.recomputed, self.alone, shared, self._again)
                reads = tuple(shared.get(tensor, tensor) for tensor in reads)
            self.items.append(Item(index, node.name, reads, node.writes))

    def _again(self, index: int, target: Places, around: Places) -> None:
        """As :class:`coexec.memory.lifetimes._Unrolled` does, with the names of the pass."""
        node = self.step.memory.nodes[index]
        written = list(node.writes)
        while written[-1] not in self.recomputed and not node.whole:
            written.pop()
        self._times[index] += 1
        suffix = SUFFIX if self._times[index] == 1 else f"{SUFFIX}{self._times[index]}"
        reads = tuple(around.get(t, self._shared.get(t, t)) for t in node.reads)
        places = tuple(range(len(self.origins), len(self.origins) + len(written)))
        self.origins += written
        group = len(self.readers) - 1
        self.items.append(Item(index, f"{node.name}{suffix}", reads, places, group))
        target.update(
            (tensor, place)
            for tensor, place in zip(written, places, strict=True)
            if tensor in self.recomputed or not node.whole
        )

    def _unit(self, item: Item, away: Groups) -> int:
        if item.group < 0:
            return self.step.units[item.node]
        return away.get(item.group, self.home(item.group))

    def _ordered(self, away: Groups) -> list[Item]:
        """Groups elsewhere before the reader of the one before, once what they read is there."""
        moved = sorted(away)
        before = {group: self.readers[last] for last, group in pairwise(moved)}
        items = [item for item in self.items if item.group not in before]
        for group in moved[1:]:
            own = [item for item in self.items if item.group == group]
            wanted = {tensor for item in own for tensor in item.reads}
            reader = before[group]
            place = next(i for i, it in enumerate(items) if it.group < 0 and it.node == reader)
            made = (i + 1 for i, it in enumerate(items) if not wanted.isdisjoint(it.writes))
            place = max(place, *made, 0)
            items[place:place] = own
        return items

    def _problem(self, items: Sequence[Item], away: Groups) -> Problem:
        """The planning problem of the items in this order."""
        whole, step = self.step.problem, self.step
        position = {item.name: place for place, item in enumerate(items)}
        moved = {node.name: position[node.name] for node in step.memory.nodes}
        at = [moved[task.name] for task in whole.tasks]
        tensors = [
            replace(
                tensor,
                producer=None if tensor.producer is None else at[tensor.producer],
                home=None if tensor.home is None else at[tensor.home],
            )
            for tensor in whole.tensors
        ]
        numbers = dict(step.numbers)
        for item in items:
            for tensor in item.writes if item.group >= 0 else ():
                origin = whole.tensors[step.numbers[self.origins[tensor]]]
                numbers[tensor] = len(tensors)
                name = f"{origin.name} of {item.name}"
                tensors.append(Tensor(name, origin.nbytes, position[item.name]))
        tasks = [self._task(item, numbers) for item in items]
        self._throttle(items, away, tasks, tensors)
        rows = [item.node for item in items]
        return replace(
            whole,
            tasks=tuple(tasks),
            tensors=tuple(tensors),
            time_us=whole.time_us[rows],
            time_sigma=whole.time_sigma[rows],
            divisions={},
        )

    def _task(self, item: Item, numbers: Mapping[int, int]) -> Task:
        """A node's task: it reads repetitions instead of what it read, and makes its own."""
        task = self.step.problem.tasks[item.node]
        plain = self.step.memory.nodes[item.node].reads
        instead = {
            self.step.numbers[old]: numbers[new]
            for old, new in zip(plain, item.reads, strict=True)
            if old in self.step.numbers
        }
        reads = tuple(dict.fromkeys(instead.get(tensor, tensor) for tensor in task.inputs))
        made = task.outputs if item.group < 0 else tuple(numbers[t] for t in item.writes)
        return Task(item.name, task.operator, reads, made)

    def _throttle(
        self, items: Sequence[Item], away: Groups, tasks: list[Task], tensors: list[Tensor]
    ) -> None:
        """A group elsewhere waits until the memory of the last but one before it was read."""
        moved = sorted(away)
        place = {item.node: i for i, item in enumerate(items) if item.group < 0}
        for earlier, group in zip(moved, moved[2:], strict=False):
            reader = place[self.readers[earlier]]
            first = next(i for i, item in enumerate(items) if item.group == group)
            if reader > first:
                continue  # it is behind the group itself: another order
            number = len(tensors)
            tensors.append(Tensor(f"read {earlier}", 0, reader))
            tasks[reader] = replace(tasks[reader], outputs=(*tasks[reader].outputs, number))
            tasks[first] = replace(tasks[first], inputs=(*tasks[first].inputs, number))

    def _peak(self, items: Sequence[Item]) -> int:
        """Bytes in use at most, of all processors together, in this order."""
        memory = self.step.memory
        nbytes = [memory.nbytes[origin] for origin in self.origins]
        roots = list(memory.roots) + list(range(len(memory.tensors), len(self.origins)))
        born: dict[int, int] = {}
        last: dict[int, int] = {}
        for place, item in enumerate(items):
            if memory.nodes[item.node].view:
                roots[item.writes[0]] = roots[item.reads[0]]
            for tensor in item.writes:
                born.setdefault(roots[tensor], place)
            last.update(dict.fromkeys((roots[t] for t in (*item.reads, *item.writes)), place))
        change = [0] * (len(items) + 1)
        for root, start in born.items():
            change[start] += nbytes[root]
            change[last[root] + 1] -= nbytes[root]
        most = now = 0
        for place, item in enumerate(items):
            node = memory.nodes[item.node]
            now += change[place]
            over = 0
            reads = dict(zip(node.reads, item.reads, strict=True))
            writes = dict(zip(node.writes, item.writes, strict=False))
            for written, read in node.in_place:
                if written not in writes:
                    continue
                to, of = roots[writes[written]], roots[reads[read]]
                if nbytes[to] == nbytes[of] and born.get(to) == place == last[of]:
                    over = nbytes[to]
                    break
            most = max(most, now - over + node.workspace)
        return most
