"""Divide operators among processors where that pays: dynamic programming over chains of shares.

Each task is whole on one processor, or divided along an axis in one of a few ratios: those that
balance the most expensive tasks. Between two tasks stands what moves: nothing where cuts agree, a
halo where windows reach over them, all of it where a whole value is wanted. After CoDL (Jia and
others, 2022), which chooses among such chains on phones, with measured costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np

from coexec.base.window import Window
from coexec.placement.divide import divide
from coexec.placement.policies.overlap import overlap
from coexec.placement.policies.single_best import single_best
from coexec.placement.problem import Division, Problem, Schedule, Shares
from coexec.placement.timeline import LEAST_FACTOR, simulate

RATIOS = 4
"""Ratios that all tasks may take, beside the one that balances each of them."""
GRAIN = 32
"""Ratios are compared in parts of this many."""
AGAIN = 2.0
"""How many times the least a halo that is computed takes: tasks before it compute more, too."""
STEPS = 14
"""Of a bisection: to a ten-thousandth of the longest share."""
EPSILON = 1e-12
"""Of a time: what rounding may take away."""
Ratio = tuple[float, ...]
Counts = tuple[tuple[int, int], ...]
"""Pairs of a processor and its units."""
Balances = Mapping[int, Sequence[tuple[Ratio, ...]]]
"""Ratios by task and division."""


@dataclass(frozen=True)
class State:
    """A task on processor ``unit``, or divided: ``shares`` with the ratio behind them."""

    unit: int
    shares: Shares | None = None
    ratio: Ratio = ()

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Its processors."""
        return (self.unit,) if self.shares is None else tuple(u for u, _ in self.shares.units)

    @cached_property
    def fractions(self) -> list[tuple[int, float]]:
        """Of a divided task, the part that each processor has."""
        assert self.shares is not None
        total = sum(count for _, count in self.shares.units)
        return [(unit, count / total) for unit, count in self.shares.units]


def operator_split(problem: Problem) -> Schedule:
    """All on one processor or a chain of whole and divided tasks, whatever is predicted best."""
    alone = single_best(problem)
    if not problem.divisions or len(problem.units) < 2:
        return alone
    order = tuple(range(len(problem.tasks)))
    states = _best_chain(problem)
    divided = Schedule(
        tuple(state.unit for state in states),
        order,
        {i: state.shares for i, state in enumerate(states) if state.shares is not None},
    )
    candidates = (alone, divided, overlap(problem, divided))
    return min(candidates, key=lambda schedule: _makespan(problem, schedule))


def balanced(problem: Problem, division: Division, start: bool = True) -> Counts:
    """Units by processor so that the last share ends as early as it can.

    Bisection on the time in which all is done. ``start`` is whether others start later than the
    fastest, by the way to them: the first of a chain does, those behind it do not.
    """
    team = _team(problem, division)
    away = {unit: problem.latencies[team[0]][unit] if start else 0.0 for unit in team}
    if len(team) < 2:
        return tuple((unit, division.count) for unit in team)
    factor = {unit: _slowdown(problem, team, unit) for unit in team}

    def share_us(unit: int, count: int) -> float:
        return away[unit] + factor[unit] * division.time_us(unit, count) if count else 0.0

    def within(time_us: float) -> list[int]:
        """The most units that each finishes in a time, however that is rounded."""
        most = time_us * (1 + EPSILON)
        return [division.units_within(u, (most - away[u]) / factor[u]) for u in team]

    low, high = 0.0, max(share_us(unit, division.count) for unit in team)
    for _ in range(STEPS):
        middle = (low + high) / 2
        done = sum(within(middle))
        low, high = (low, middle) if done >= division.count else (middle, high)
    counts = dict(zip(team, within(high), strict=True))
    while sum(counts.values()) > division.count:
        last = max((u for u in team if counts[u]), key=lambda unit: share_us(unit, counts[unit]))
        counts[last] -= 1
    return tuple((unit, n) for unit, n in counts.items() if n)


def _slowdown(problem: Problem, team: tuple[int, ...], unit: int) -> float:
    """How many times longer a share takes while the others of the team are busy."""
    others = (float(problem.slowdown[unit, other]) - 1.0 for other in team if other != unit)
    return max(1.0 + sum(others), LEAST_FACTOR)


def _busy_us(
    problem: Problem, division: Division, team: tuple[int, ...], unit: int, count: int
) -> float:
    """A share while the others of the team are busy."""
    return division.time_us(unit, count) * _slowdown(problem, team, unit)


def _team(problem: Problem, division: Division) -> tuple[int, ...]:
    """Processors that take shares and share no silicon, the fastest first."""
    able = [unit for unit, curve in enumerate(division.curves) if curve]
    team: list[int] = []
    taken: set[int] = set()
    for unit in sorted(able, key=lambda unit: division.time_us(unit, division.count)):
        if taken.isdisjoint(problem.resources[unit]):
            team.append(unit)
            taken.update(problem.resources[unit])
    return tuple(team)


def _ratio(problem: Problem, shares: Counts, count: int) -> Ratio:
    """Parts of the whole by processor, rounded."""
    parts = dict(shares)
    return tuple(round(parts.get(u, 0) / count * GRAIN) / GRAIN for u in range(len(problem.units)))


def _counts(division: Division, ratio: Ratio) -> Counts:
    """Units by processor for a ratio, in the order of processors: cuts of all tasks agree."""
    whole, reached, start = sum(ratio), 0.0, 0
    found = []
    for unit, part in enumerate(ratio):
        reached += part
        end = round(reached / whole * division.count)
        if end > start:
            found.append((unit, end - start))
        start = end
    return tuple(found)


def _balances(problem: Problem) -> Balances:
    """Ratios that balance each division at the start of a chain and within one."""
    return {
        index: [
            tuple(
                _ratio(problem, balanced(problem, division, start), division.count)
                for start in (True, False)
            )
            for division in divisions
        ]
        for index, divisions in problem.divisions.items()
    }


def _common_ratios(problem: Problem, balances: Balances) -> list[Ratio]:
    """Ratios that balance the tasks which weigh most, the heaviest first."""
    weights: dict[Ratio, float] = {}
    for index, of_task in balances.items():
        best = float(problem.time_us[index].min())
        for ratio in itertools.chain.from_iterable(of_task):
            if sum(part > 0 for part in ratio) > 1:
                weights[ratio] = weights.get(ratio, 0.0) + best
    return sorted(weights, key=lambda ratio: (-weights[ratio], ratio))[:RATIOS]


def _states(
    problem: Problem, index: int, ratios: list[Ratio], balances: Sequence[tuple[Ratio, ...]]
) -> list[State]:
    whole = np.flatnonzero(np.isfinite(problem.time_us[index]))
    states = [State(int(unit)) for unit in whole]
    for number, division in enumerate(problem.divisions.get(index, ())):
        for ratio in dict.fromkeys((*ratios, balances[number][0])):
            counts = _counts(division, ratio)
            finite = all(isfinite(division.time_us(unit, n)) for unit, n in counts)
            if len(counts) > 1 and finite:
                largest = max(counts, key=lambda pair: pair[1])[0]
                states.append(State(largest, Shares(number, counts), ratio))
    return states


def _best_chain(problem: Problem) -> list[State]:
    """Least total of task times and of what moves between neighbours in the order of tasks."""
    balances = _balances(problem)
    ratios = _common_ratios(problem, balances)
    table = [
        _states(problem, index, ratios, balances.get(index, []))
        for index in range(len(problem.tasks))
    ]
    cost = np.array([_time(problem, 0, state) + _to(problem, 0, state) for state in table[0]])
    came_from = []
    for index in range(1, len(table)):
        moves = _moves(problem, index, table[index - 1], table[index])
        total = cost[:, None] + moves
        came_from.append(total.argmin(axis=0))
        here = [_time(problem, index, s) + _to(problem, index, s) for s in table[index]]
        cost = total.min(axis=0) + np.array(here)
    place = int(cost.argmin())
    chosen = [table[-1][place]]
    for index in range(len(table) - 2, -1, -1):
        place = int(came_from[index][place])
        chosen.append(table[index][place])
    return chosen[::-1]


def _time(problem: Problem, index: int, state: State) -> float:
    if state.shares is None:
        return problem.times[index][state.unit]
    division = problem.divisions[index][state.shares.division]
    return max(_busy_us(problem, division, state.places, unit, n) for unit, n in state.shares.units)


def _to(problem: Problem, index: int, state: State) -> float:
    """What comes from the host, and what the host wants of a task."""
    task = problem.tasks[index]
    total = 0.0
    for tensor in task.inputs:
        found = problem.tensors[tensor]
        if found.producer is None and found.home is None:
            ways = (problem.delay(tensor, problem.host, unit) for unit in state.places)
            total = max(total, *ways)
    for tensor in task.outputs:
        if problem.tensors[tensor].fetched:
            total += _gather(problem, tensor, state, state.unit)
            total += problem.delay(tensor, state.unit, problem.host)
    return total


def _moves(problem: Problem, index: int, before: list[State], after: list[State]) -> np.ndarray:
    """Cost between each state of the task before (row) and each of this one (column)."""
    tensors = [t for t in problem.tasks[index].inputs if problem.tensors[t].producer == index - 1]
    costs = np.zeros((len(before), len(after)))
    for tensor in tensors:
        for i, source in enumerate(before):
            whole = [_gather(problem, tensor, source, unit) for unit in range(len(problem.units))]
            moves = [_move(problem, index, tensor, source, target, whole) for target in after]
            costs[i] = np.maximum(costs[i], moves)
    return costs


def _move(
    problem: Problem,
    index: int,
    tensor: int,
    source: State,
    target: State,
    gathered: list[float],
) -> float:
    """Until the shares of ``target`` have what they read; ``gathered``: whole, by processor."""
    if target.shares is None:
        return gathered[target.unit]
    division = problem.divisions[index][target.shares.division]
    window = division.windows[problem.tasks[index].inputs.index(tensor)]
    places = target.places
    if window is None:
        return max(gathered[unit] for unit in places)
    if source.shares is None:
        return _scatter(problem, tensor, source.unit, target)
    made = problem.divisions[index - 1][source.shares.division]
    if made.axis != window.axis or source.ratio != target.ratio:
        copied = max(_copy(problem, tensor, unit, 1.0) for unit in places)
        return max(gathered[unit] for unit in places) + copied
    halo = (window.reach - window.step) / window.extent
    if halo <= 0:
        return 0.0
    # Cut a halo, send it to the neighbour, join it there to what that has; or compute it.
    pairs = [(p, q) for p in places for q in places if p != q]
    sent = max(_delay(problem, tensor, p, q, halo) for p, q in pairs)
    joined = max(_copy(problem, tensor, unit, n) for unit, n in target.fractions)
    return min(sent + joined, AGAIN * _again(made, source, window))


def _again(made: Division, source: State, window: Window) -> float:
    """What shares take longer if they compute the halo, too (see :mod:`overlap`)."""
    assert source.shares is not None
    more = -(-(window.reach - window.step) // (2 * made.quantum))
    return max(
        made.time_us(unit, min(count + more, made.count)) - made.time_us(unit, count)
        for unit, count in source.shares.units
    )


def _gather(problem: Problem, tensor: int, source: State, target: int) -> float:
    """Until a value is whole on ``target``."""
    if source.shares is None:
        return problem.delay(tensor, source.unit, target)
    parts = source.fractions
    arrived = max(_delay(problem, tensor, unit, target, share) for unit, share in parts)
    return arrived + (_copy(problem, tensor, target, 1.0) if target < problem.host else 0.0)


def _scatter(problem: Problem, tensor: int, source: int, target: State) -> float:
    """Until every share of ``target`` has its part of a whole value, one cut after the other."""
    parts = target.fractions
    cut = sum(_copy(problem, tensor, source, share) for _, share in parts)
    return cut + max(_delay(problem, tensor, source, unit, share) for unit, share in parts)


def _delay(problem: Problem, tensor: int, source: int, target: int, share: float) -> float:
    nbytes = problem.tensors[tensor].nbytes * share
    return problem.latencies[source][target] + nbytes * problem.byte_times[source][target]


def _copy(problem: Problem, tensor: int, unit: int, share: float) -> float:
    on = problem.units[unit]
    return on.launch_us + 2 * problem.tensors[tensor].nbytes * share * on.us_per_byte


def _makespan(problem: Problem, schedule: Schedule) -> float:
    plain = divide(problem, schedule)
    return simulate(plain.problem, plain.schedule).makespan_us
