"""A pipeline over a stream of inputs: consecutive tasks are stages, each on a processor of its own.

While one processor works on an input, the next one works on the input before. What counts is how
often an input is done, not how long one takes: the busiest stage is made as short as can be, by
dynamic programming over the order of tasks and the set of processors that have their stage already.

Sources: Bokhari, "Partitioning problems in parallel, pipelined, and distributed computing" (1988);
Pinar, Tabak, Aykanat, "One-dimensional partitioning for heterogeneous systems" (2008), who show
that unequal processors need the search over their orders; Narayanan et al., "PipeDream" (2019),
whose program this is without replicated stages.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coexec.placement.problem import Matrix, Problem, Schedule

Numbers = NDArray[np.int64]
CUTS = 400
"""Places where a stage may begin. Longer graphs have more: then, in each of so many slices of equal
work, only the place over which the fewest bytes pass. A stage is at most two slices too long."""
NEIGHBOURS = 3
"""Places on each side that a calm one is compared with."""


@dataclass(frozen=True)
class Stage:
    """Tasks ``first`` up to ``last`` (exclusive) on a processor."""

    unit: int
    first: int
    last: int


def pipeline(problem: Problem, *, calm: bool = False) -> Schedule:
    """Stages with the shortest busiest one; a task that a stage's processor refuses goes elsewhere.

    ``calm`` as in :func:`stages`. Time is linear in tasks, exponential in the few processors.
    """
    count = len(problem.tasks)
    placed = problem.time_us.argmin(axis=1)
    for stage in stages(problem, calm=calm) if count else ():
        own = np.arange(stage.first, stage.last)
        accepted = own[np.isfinite(problem.time_us[own, stage.unit])]
        placed[accepted] = stage.unit
    return Schedule(tuple(placed.tolist()), tuple(range(count)))


def stages(problem: Problem, *, calm: bool = False) -> tuple[Stage, ...]:
    """The best stages, in order.

    With ``calm``, they begin only where less passes than before and behind (the ends of blocks):
    costs of single tasks do not know what a processor loses if it may not compile a block whole.
    """
    crossing = _crossing_bytes(problem)
    places = _places(problem, crossing)
    if calm:
        places = places[_is_calm(crossing)[places]]
    found = (_best(problem, crossing, places, team) for team in _teams(problem))
    return min(found, key=lambda each: each[0])[1]


def _teams(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Sets of processors that can all be busy at once; the smallest first."""
    units = range(len(problem.units))
    for size in range(1, len(units) + 1):
        for team in itertools.combinations(units, size):
            resources = [r for unit in team for r in problem.resources[unit]]
            if len(set(resources)) == len(resources):
                yield team


def _best(
    problem: Problem, crossing: tuple[Matrix, Matrix], places: Numbers, team: Sequence[int]
) -> tuple[float, tuple[Stage, ...]]:
    """Length of the busiest stage, and the stages, where each processor of a team has one."""
    loads = {unit: _loads(problem, crossing, places, unit, team) for unit in team}
    start = np.full(len(places), np.inf)
    start[0] = 0.0
    # By the processors that have a stage: the busiest one, up to each place; and where it began.
    busiest: dict[frozenset[int], Matrix] = {frozenset(): start}
    came_from: dict[frozenset[int], tuple[Numbers, Numbers]] = {}
    for size in range(1, len(team) + 1):
        for used in map(frozenset, itertools.combinations(team, size)):
            busiest[used], came_from[used] = _extend(busiest, loads, used)
    return float(busiest[frozenset(team)][-1]), _trace_back(came_from, places, frozenset(team))


def _extend(
    busiest: Mapping[frozenset[int], Matrix], loads: Mapping[int, Matrix], used: frozenset[int]
) -> tuple[Matrix, tuple[Numbers, Numbers]]:
    """The best last stage up to each place: the busiest then, and (its processor, its begin)."""
    units = sorted(used)
    # Axes: processor of the last stage, its end.
    value, begin = [], []
    for unit in units:
        total = np.maximum(busiest[used - {unit}][:, None], loads[unit])
        begin.append(total.argmin(axis=0))
        value.append(total.min(axis=0))
    best = np.argmin(value, axis=0)
    ends = np.arange(len(best))
    return np.array(value)[best, ends], (np.array(units)[best], np.array(begin)[best, ends])


def _trace_back(
    came_from: Mapping[frozenset[int], tuple[Numbers, Numbers]],
    places: Numbers,
    used: frozenset[int],
) -> tuple[Stage, ...]:
    found: list[Stage] = []
    end = len(places) - 1
    while used:
        units, begins = came_from[used]
        unit, begin = int(units[end]), int(begins[end])
        found.append(Stage(unit, int(places[begin]), int(places[end])))
        used, end = used - {unit}, begin
    return tuple(reversed(found))


def _loads(
    problem: Problem,
    crossing: tuple[Matrix, Matrix],
    places: Numbers,
    unit: int,
    team: Sequence[int],
) -> Matrix:
    """Time of a stage on a processor from each place (row) to each (column); infinite if empty.

    The others of the team are busy meanwhile. What crosses its ends is written and read by it.
    """
    own = problem.time_us[:, unit]
    times = np.where(np.isfinite(own), own, problem.time_us.min(axis=1))
    slowdown = 1.0 + sum(problem.slowdown[unit, other] - 1.0 for other in team if other != unit)
    so_far = np.concatenate([[0.0], np.cumsum(times)])[places] * slowdown
    write, read = (
        np.where(nbytes > 0, problem.latency_us[line] + nbytes * problem.us_per_byte[line], 0.0)
        for nbytes, line in zip(crossing, ((problem.host, unit), (unit, problem.host)), strict=True)
    )
    loads: Matrix = so_far[None, :] - so_far[:, None] + write[places][:, None] + read[places][None]
    loads[np.tril_indices(len(places))] = np.inf
    return loads


def _crossing_bytes(problem: Problem) -> tuple[Matrix, Matrix]:
    """Bytes that a stage which begins at each place takes in, and that one which ends there gives.

    What the host has comes in at the first place that needs it; what it wants leaves where it is
    made or later. Parameters that live on devices do not move.
    """
    count = len(problem.tasks)
    taken, given = np.zeros(count + 2), np.zeros(count + 2)
    for number, tensor in enumerate(problem.tensors):
        if tensor.home is not None and tensor.producer is None:
            continue
        consumers = problem.consumers[number]
        first = 0 if tensor.producer is None else tensor.producer + 1
        last = max(consumers, default=-1)
        if last >= first:
            taken[first] += tensor.nbytes
            taken[last + 1] -= tensor.nbytes
        if tensor.producer is None:
            continue
        # Read at the end of the producer's stage if somebody behind it wants it.
        end = count if tensor.fetched else last
        if end >= first:
            given[first] += tensor.nbytes
            given[end + 1] -= tensor.nbytes
    return np.cumsum(taken)[: count + 1], np.cumsum(given)[: count + 1]


def _is_calm(crossing: tuple[Matrix, Matrix]) -> NDArray[np.bool_]:
    """By place, whether fewer bytes pass than at the next ones, and not more than at the last."""
    nbytes = crossing[0] + crossing[1]
    calm = np.ones(len(nbytes), bool)
    for distance in range(1, NEIGHBOURS + 1):
        calm[distance:] &= nbytes[distance:] <= nbytes[:-distance]
        calm[:-distance] &= nbytes[:-distance] < nbytes[distance:]
    calm[[0, -1]] = True
    return calm


def _places(problem: Problem, crossing: tuple[Matrix, Matrix]) -> Numbers:
    """Where stages may begin and end: see :data:`CUTS`."""
    count = len(problem.tasks)
    if count <= CUTS:
        return np.arange(count + 1, dtype=np.int64)
    work = np.cumsum(problem.time_us.min(axis=1))
    slices = np.minimum((work * (CUTS / max(work[-1], 1e-12))).astype(int), CUTS - 1)
    nbytes = crossing[0][1:count] + crossing[1][1:count]
    # By slice, then by bytes: the first of each slice crosses the least.
    order = np.lexsort((nbytes, slices[: count - 1]))
    _, firsts = np.unique(slices[: count - 1][order], return_index=True)
    inner = np.sort(order[firsts]) + 1
    return np.concatenate([[0], inner, [count]])
