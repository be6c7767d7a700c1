"""The chain of whole and divided tasks that is predicted to end earliest.

Dynamic programming in the order of tasks sees what moves between neighbours in that order. What
skips tasks (a residual, keys and values beside queries) is taken to be there in the first pass; in
those behind it, moves to and from where the pass before had the other end. Chains in which all
shares have one ratio are tried, too: neighbours agree there, and exchange less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from coexec.placement.divide import divide
from coexec.placement.policies.split_moves import Moves
from coexec.placement.policies.split_states import Ratio, State, States, states_of
from coexec.placement.problem import Matrix, Problem, Schedule
from coexec.placement.timeline import simulate

PASSES = 3
"""At most: where nothing changes any more, they end."""
CLOSE = 1.03
"""Chains that end so many times later than the best one end as early, for all that is known: each
exchange takes the host more than it does in a program that does nothing else."""
RATIOS = 2
"""So many ratios are tried as those of all shares: the ones with most of the time."""
Places = tuple[int, ...]
"""By task, the number of its state."""


def best_chain(problem: Problem) -> list[State]:
    """The chain of all passes whose timeline is shortest, or nearly so with less to exchange."""
    table, moves = states_of(problem), Moves(problem)
    free = _Search(problem, table, moves).chains()
    ratios = _heaviest(free[-1])
    chains = [*free]
    for ratio in ratios:
        chains += _Search(problem, [_with_ratio(of, ratio) for of in table], moves).chains()
    return _least_exchanged(problem, chains)


def _least_exchanged(problem: Problem, chains: Sequence[list[State]]) -> list[State]:
    """Of the chains that end about as early as the best one, the one that moves least often."""
    lines = []
    for states in chains:
        plain = divide(problem, schedule_of(states))
        lines.append(simulate(plain.problem, plain.schedule))
    best = min(line.makespan_us for line in lines)
    places = [i for i, line in enumerate(lines) if line.makespan_us <= CLOSE * best]
    chosen = min(places, key=lambda i: (len(lines[i].moves), lines[i].makespan_us))
    return chains[chosen]


def _heaviest(states: Sequence[State]) -> list[Ratio]:
    """The ratios of a chain in which most time is spent."""
    weights: dict[Ratio, float] = {}
    for state in states:
        if state.shares is not None:
            weights[state.ratio] = weights.get(state.ratio, 0.0) + state.time_us
    return sorted(weights, key=lambda ratio: -weights[ratio])[:RATIOS]


def _with_ratio(of: States, ratio: Ratio) -> States:
    """The states of a task that are whole or have a ratio."""
    kept = [i for i, state in enumerate(of.each) if state.shares is None or state.ratio == ratio]
    return States(
        tuple(of.each[i] for i in kept),
        of.units[kept],
        of.fractions[kept],
        of.ways[kept],
        of.axes[kept],
        of.ratios[kept],
    )


def schedule_of(states: Sequence[State]) -> Schedule:
    """The tasks in their order, each in its state."""
    return Schedule(
        tuple(state.unit for state in states),
        tuple(range(len(states))),
        {i: state.shares for i, state in enumerate(states) if state.shares is not None},
    )


@dataclass(frozen=True, eq=False)
class _Skip:
    """A tensor that goes past tasks, and what it costs (states of its maker, of its reader)."""

    maker: int
    reader: int
    costs: Matrix


@dataclass(frozen=True, eq=False)
class _Search:
    problem: Problem
    table: Sequence[States]
    moves: Moves

    def chains(self) -> list[list[State]]:
        """The chain of each pass, until nothing changes any more."""
        found = [self.chain(None)]
        while len(found) < PASSES and self.skipping:
            again = self.chain(found[-1])
            if again in found:
                break
            found.append(again)
        return [self._states(places) for places in found]

    def _states(self, places: Places) -> list[State]:
        return [of.each[place] for of, place in zip(self.table, places, strict=True)]

    def chain(self, known: Places | None) -> Places:
        """Least total of task times and moves; ``known`` says where tensors past tasks end."""
        own = self._own(known)
        cost = own[0]
        came_from = []
        for index in range(1, len(self.table)):
            between = self.moves.between(index, self.table[index - 1], self.table[index])
            total = cost[:, None] + between
            came_from.append(total.argmin(axis=0))
            cost = total.min(axis=0) + own[index]
        places = [int(cost.argmin())]
        for before in reversed(came_from):
            places.append(int(before[places[-1]]))
        return tuple(reversed(places))

    def _own(self, known: Places | None) -> list[Matrix]:
        """What the states of each task cost by themselves."""
        own = [
            of.times_us + with_host
            for of, with_host in zip(self.table, self._with_host, strict=True)
        ]
        if known is not None:
            for skip in self.skipping:
                own[skip.reader] += skip.costs[known[skip.maker]]
                own[skip.maker] += skip.costs[:, known[skip.reader]]
        return own

    @cached_property
    def _with_host(self) -> list[Matrix]:
        return [self.moves.with_host(index, of) for index, of in enumerate(self.table)]

    @cached_property
    def skipping(self) -> list[_Skip]:
        """All tensors whose maker and reader are no neighbours."""
        found = []
        for reader, task in enumerate(self.problem.tasks):
            for tensor in task.inputs:
                maker = self.problem.tensors[tensor].producer
                if maker is not None and maker != reader - 1:
                    costs = self.moves.of(reader, tensor, self.table[maker], self.table[reader])
                    found.append(_Skip(maker, reader, costs))
        return found
