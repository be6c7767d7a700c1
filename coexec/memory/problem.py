"""A training step as numbers: nodes in order, tensors with sizes, times and working memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from coexec.core.plan import ALONE, split_alone


@dataclass(frozen=True)
class StepNode:
    """A node: numbers of the tensors it reads and writes, its time, its working memory in bytes.

    ``forward`` nodes may be repeated later if they are ``repeatable``; a ``whole`` one with all its
    results, if only for one of them. A ``view`` writes no memory: its result is its first operand.
    ``in_place`` are pairs (write, read) of tensors that may share memory where the second is read
    for the last time.
    """

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    cost_us: float = 0.0
    workspace: int = 0
    forward: bool = False
    repeatable: bool = True
    view: bool = False
    update: bool = False
    whole: bool = False
    in_place: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class StepProblem:
    """Nodes in the order in which they run; names and bytes of tensors.

    A tensor that has memory of its own all the time (parameters, data, results) has 0 bytes here.
    """

    nodes: tuple[StepNode, ...]
    tensors: tuple[str, ...]
    nbytes: tuple[int, ...]

    @cached_property
    def producer(self) -> dict[int, int]:
        """The forward node that makes each tensor of the forward pass."""
        return {
            tensor: index
            for index, node in enumerate(self.nodes)
            if node.forward
            for tensor in node.writes
        }

    @cached_property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """The forward nodes that read each tensor."""
        found: dict[int, tuple[int, ...]] = {}
        for index, node in enumerate(self.nodes):
            for tensor in node.reads if node.forward else ():
                found[tensor] = (*found.get(tensor, ()), index)
        return found

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """The tensor in whose memory each tensor lies: its own, or what it is a view of."""
        roots = list(range(len(self.tensors)))
        for node in self.nodes:
            if node.view:
                roots[node.writes[0]] = roots[node.reads[0]]
        return tuple(roots)

    @cached_property
    def late(self) -> frozenset[int]:
        """Tensors of the forward pass that a node after it reads.

        Not what updates alone read: new running statistics are small, and what makes them is large.
        """
        made = self.producer
        return frozenset(
            tensor
            for node in self.nodes
            if not (node.forward or node.update)
            for tensor in node.reads
            if tensor in made
        )

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """Memory that is kept for the backward pass and may be recomputed, in order of making."""
        found = dict.fromkeys(self.roots[tensor] for tensor in sorted(self.late, key=self._born))
        return tuple(
            root
            for root in found
            if self.nbytes[root]
            and root in self.producer
            and self.nodes[self.producer[root]].repeatable
        )

    @cached_property
    def total_us(self) -> float:
        """Time of all nodes, each once."""
        return sum(node.cost_us for node in self.nodes)

    def recomputed(
        self, dropped: Collection[int], checkpoints: Collection[int] = ()
    ) -> frozenset[int]:
        """Tensors to make again so that the candidates ``dropped`` need not be kept.

        These are the ones that are read late, and on the way to them whatever nobody keeps:
        ``checkpoints`` (memory that is not read late) are kept.
        """
        gone, kept = frozenset(dropped), frozenset(checkpoints)
        made, roots, candidates = self.producer, self.roots, self._candidates
        found: set[int] = set()
        pending = [tensor for tensor in self.late if roots[tensor] in gone]
        while pending:
            tensor = pending.pop()
            if tensor in found:
                continue
            found.add(tensor)
            for operand in self.nodes[made[tensor]].reads:
                root = roots[operand]
                if operand not in made or operand in found:
                    continue
                again = root in gone or not (root in candidates or root in kept)
                if again and self.nodes[made[operand]].repeatable:
                    pending.append(operand)
        return frozenset(found)

    def extra_us(self, recomputed: Collection[int]) -> float:
        """Time that recomputing takes."""
        return sum(self.nodes[i].cost_us for i in {self.producer[t] for t in recomputed})

    def numbers(self, names: Collection[str]) -> tuple[frozenset[int], frozenset[int]]:
        """Numbers of tensors to make again by their names, and of those that are ``ALONE``."""
        bare, alone = split_alone(names)
        numbers = {name: number for number, name in enumerate(self.tensors)}
        return frozenset(numbers[n] for n in bare), frozenset(numbers[n] for n in alone)

    @cached_property
    def _candidates(self) -> frozenset[int]:
        return frozenset(self.candidates)

    def _born(self, tensor: int) -> int:
        return self.producer[tensor]


@dataclass(frozen=True)
class Choice:
    """What to recompute (numbers of tensors), the planned peak in bytes and the time it takes.

    What leads to those that are ``alone`` is repeated for them only. ``dropped`` are the candidates
    that it is made for.
    """

    recomputed: frozenset[int]
    peak: int
    extra_us: float
    alone: frozenset[int] = frozenset()
    dropped: frozenset[int] = frozenset()

    def names(self, problem: StepProblem) -> tuple[str, ...]:
        """Names of the tensors to recompute, in order; those alone are marked."""
        return tuple(
            problem.tensors[tensor] + (ALONE if tensor in self.alone else "")
            for tensor in sorted(self.recomputed)
        )


def best(choices: Sequence[Choice], budget: int) -> Choice:
    """The cheapest choice that fits ``budget`` bytes; if none does, the one of the lowest peak."""
    fitting = [choice for choice in choices if choice.peak <= budget]
    if fitting:
        return min(fitting, key=lambda choice: (choice.extra_us, choice.peak))
    return min(choices, key=lambda choice: (choice.peak, choice.extra_us))
