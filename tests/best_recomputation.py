"""The best recomputation there is, by constraint programming: the yardstick on small steps.

Formulation after Jain et al., "Checkmate", MLSys 2020 (arXiv 1910.02653): before each node of the
backward pass, any nodes of the forward pass may run again, as often as they like, and each piece of
memory may be kept or let go at any time. Tighter here in three ways: the forward pass repeats
nothing, a node is repeated only for a node that reads what is made from it, and nodes that read no
activation have no variables of their own. Solved by OR-tools' CP-SAT.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ortools.sat.python import cp_model

from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepProblem

NS = 1e3
"""Costs are whole nanoseconds to the solver."""


@dataclass(frozen=True)
class Best:
    """Time of the fastest step that fits in microseconds, and one below which there is none.

    ``proved``: the two are the same.
    """

    total_us: float
    bound_us: float
    proved: bool


def best_recomputation(problem: StepProblem, budget: int, seconds: float) -> Best | None:
    """The fastest step within ``budget`` bytes; none: there is none, or none was found in time."""
    model = _Model(problem, budget)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.random_seed = 0
    solver.parameters.num_workers = 2
    status = solver.solve(model.model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    total, bound = solver.objective_value / NS, solver.best_objective_bound / NS
    return Best(problem.total_us + total, problem.total_us + bound, status == cp_model.OPTIMAL)


@dataclass
class _Slot:
    """A moment of a step: ``node`` runs, or may run once more if ``repeats`` is chosen.

    ``fixed`` are bytes of all that is no activation.
    """

    node: int
    fixed: int
    reads: frozenset[int]
    repeats: Any = None
    live: dict[int, Any] = field(default_factory=dict)


class _Model:
    """``live`` of a slot: whether a piece of memory of the forward pass is there."""

    def __init__(self, problem: StepProblem, budget: int) -> None:
        self.problem = problem
        self.model = cp_model.CpModel()
        self.plain = usage(problem)
        roots = {problem.roots[tensor] for tensor in problem.producer}
        self.home = {r: problem.producer[r] for r in roots if problem.nbytes[r]}
        self.slots = self._slots()
        self._add_lifetimes()
        for number, slot in enumerate(self.slots):
            self._add_use(slot)
            self._add_memory(number, slot, budget)
        costs = [round(NS * problem.nodes[s.node].cost_us) for s in self.slots]
        repeated = zip(self.slots, costs, strict=True)
        self.model.minimize(sum(c * s.repeats for s, c in repeated if s.repeats is not None))

    def _managed(self, tensors: tuple[int, ...]) -> frozenset[int]:
        return frozenset(self.problem.roots[t] for t in tensors) & self.home.keys()

    def _slots(self) -> list[_Slot]:
        """Nodes in order, each with what may be repeated for it; those in between as one."""
        found: list[_Slot] = []
        for index, node in enumerate(self.problem.nodes):
            reads, before = self._managed(node.reads), self._fixed_before(index)
            fixed = self._fixed_at(index)
            last = found[-1] if found else None
            if not (node.forward or reads) and last is not None and not self._touches(last):
                last.fixed = max(last.fixed, fixed)
                continue
            if not node.forward:
                for again in self._needed(reads):
                    number = len(found)
                    operands = self._managed(self.problem.nodes[again].reads)
                    chosen = self.model.new_bool_var(f"{again} again at {number}")
                    found.append(_Slot(again, before, operands, chosen))
            found.append(_Slot(index, fixed, reads))
        return found

    def _touches(self, slot: _Slot) -> bool:
        """Whether activations change at a slot."""
        return bool(slot.reads) or self.problem.nodes[slot.node].forward

    def _needed(self, reads: frozenset[int]) -> list[int]:
        """Nodes of the forward pass from which something is made, in order."""
        nodes: set[int] = set()
        pending = [self.home[root] for root in reads]
        while pending:
            index = pending.pop()
            if index not in nodes and self.problem.nodes[index].repeatable:
                nodes.add(index)
                operands = self._managed(self.problem.nodes[index].reads)
                pending += [self.home[root] for root in operands]
        return sorted(nodes)

    def _fixed_before(self, index: int) -> int:
        """Bytes that wait while something is repeated for a node, beside activations."""
        return self._others(lambda born, last: born < index <= last)

    def _fixed_at(self, index: int) -> int:
        """Bytes while a node runs, beside activations."""
        node, roots, nbytes = self.problem.nodes[index], self.problem.roots, self.problem.nbytes
        held = self._others(lambda born, last: born <= index <= last) + node.workspace
        for written, read in ((roots[w], roots[r]) for w, r in node.in_place):
            dies = self.plain.last.get(read) == index and nbytes[read] == nbytes[written]
            if read not in self.home and written not in self.home and dies:
                return held - nbytes[read]
        return held

    def _others(self, there: Any) -> int:
        born: dict[int, int] = {}
        for index, event in enumerate(self.plain.events):
            for root in event.writes:
                born.setdefault(root, index)
        return sum(
            self.problem.nbytes[root]
            for root, first in born.items()
            if root not in self.home and there(first, self.plain.last[root])
        )

    def _add_lifetimes(self) -> None:
        """What is there was there before, or is made here."""
        makers: dict[int, set[int]] = {}
        for root, index in self.home.items():
            makers.setdefault(index, set()).add(root)
        wanted = self._last_wanted()
        for number, slot in enumerate(self.slots):
            before = self.slots[number - 1].live if number else {}
            made = makers.get(slot.node, set())
            for root, index in self.home.items():
                if slot.node == index and slot.repeats is None:
                    slot.live[root] = 1
                    continue
                if number > wanted[root] or (root not in before and root not in made):
                    continue
                live = self.model.new_bool_var(f"{root} at {number}")
                sources = [before[root]] if root in before else []
                sources += [slot.repeats] if root in made else []
                self.model.add(live <= sum(sources))
                slot.live[root] = live

    def _last_wanted(self) -> dict[int, int]:
        """The last slot that may read each piece of memory."""
        last = dict.fromkeys(self.home, -1)
        for number, slot in enumerate(self.slots):
            last.update(dict.fromkeys(slot.reads, number))
        return last

    def _add_use(self, slot: _Slot) -> None:
        """A node that runs has its operands, and makes what it makes."""
        runs = 1 if slot.repeats is None else slot.repeats
        for root in slot.reads:
            self.model.add(slot.live[root] >= runs)
        node = self.problem.nodes[slot.node]
        made = node.writes if node.whole else node.writes[:1]
        for root in self._managed(made):
            if slot.repeats is not None and root in slot.live:
                self.model.add(slot.live[root] >= runs)

    def _add_memory(self, number: int, slot: _Slot, budget: int) -> None:
        nbytes, node = self.problem.nbytes, self.problem.nodes[slot.node]
        held = sum(nbytes[root] * live for root, live in slot.live.items())
        space = 0 if slot.repeats is None else node.workspace * slot.repeats
        reused = self._reused(number, slot)
        saved = sum(nbytes[root] * literal for root, literal in reused)
        self.model.add(held + space + slot.fixed - saved <= budget)
        self.model.add(sum(literal for _, literal in reused) <= 1)

    def _reused(self, number: int, slot: _Slot) -> list[tuple[int, Any]]:
        """Activations that die in a slot's node, whose memory its result takes over."""
        node, roots, nbytes = self.problem.nodes[slot.node], self.problem.roots, self.problem.nbytes
        after = self.slots[number + 1].live if number + 1 < len(self.slots) else {}
        found = []
        for written, read in ((roots[w], roots[r]) for w, r in node.in_place):
            if read in self.home and read in slot.live and nbytes[read] == nbytes[written]:
                literal = self.model.new_bool_var(f"{written} in {read} at {number}")
                self.model.add(literal <= 1 - after.get(read, 0))
                if slot.repeats is not None:
                    self.model.add(literal <= slot.repeats)
                found.append((read, literal))
        return found
