"""What moves between states, computed for all pairs at once, against one pair after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.base.window import Window
from coexec.placement.policies.split_moves import AGAIN, Moves
from coexec.placement.policies.split_states import State, states_of
from coexec.placement.problem import Division, Problem
from tests.placement.made_up import random_problem


def divisible(seed: int) -> Problem:
    """A random problem on three processors, most tasks of which divide in one or two ways."""
    rng = np.random.default_rng(seed)
    of = random_problem(rng, 12, 3, refusals=0.1, window=2)
    ways = {}
    for index, task in enumerate(of.tasks):
        row = of.time_us[index].tolist()
        curves = tuple(((0.0, us / 20), (1.0, us)) if np.isfinite(us) else () for us in row)
        found = []
        for axis in range(1, int(rng.integers(1, 4))):
            count = int(rng.choice([7, 56]))
            windows = (None, Window(axis, count), Window(axis, 2 * count, 2, 1, 3))
            read = tuple(windows[int(rng.integers(3))] for _ in task.inputs)
            found.append(Division(axis, count, read, curves))
        if found:
            ways[index] = tuple(found)
    units = tuple(replace(unit, launch_us=1.5, us_per_byte=2e-4) for unit in of.units)
    return replace(of, units=units, divisions=ways)


def one(of: Problem, index: int, tensor: int, source: State, target: State) -> float:
    """Until the target has what it reads of a tensor of the task before."""
    gathered = max(_gather(of, tensor, source, unit) for unit in target.places)
    if target.shares is None:
        return gathered
    window = of.divisions[index][target.shares.division].windows[
        of.tasks[index].inputs.index(tensor)
    ]
    if window is None:
        return gathered
    if source.shares is None:
        cut = sum(_copy(of, tensor, source.unit, part) for _, part in _parts(target))
        ways = (_delay(of, tensor, source.unit, unit, part) for unit, part in _parts(target))
        return cut + max(ways)
    made = of.divisions[index - 1][source.shares.division]
    if made.axis != window.axis or source.ratio != target.ratio:
        return gathered + max(_copy(of, tensor, unit, 1.0) for unit in target.places)
    halo = (window.reach - window.step) / window.extent
    if halo <= 0:
        return 0.0
    pairs = [(p, q) for p in target.places for q in target.places if p != q]
    sent = max(_delay(of, tensor, p, q, halo) for p, q in pairs)
    joined = max(_copy(of, tensor, unit, part) for unit, part in _parts(target))
    more = -(-(window.reach - window.step) // (2 * made.quantum))
    again = max(
        made.time_us(unit, min(count + more, made.count)) - made.time_us(unit, count)
        for unit, count in source.shares.units
    )
    return min(sent + joined, AGAIN * again)


def _parts(state: State) -> list[tuple[int, float]]:
    assert state.shares is not None
    total = sum(count for _, count in state.shares.units)
    return [(unit, count / total) for unit, count in state.shares.units]


def _gather(of: Problem, tensor: int, source: State, target: int) -> float:
    if source.shares is None:
        return of.delay(tensor, source.unit, target)
    arrived = max(_delay(of, tensor, unit, target, part) for unit, part in _parts(source))
    return arrived + _copy(of, tensor, target, 1.0)


def _delay(of: Problem, tensor: int, source: int, target: int, share: float) -> float:
    nbytes = of.tensors[tensor].nbytes * share
    return of.latencies[source][target] + nbytes * of.byte_times[source][target]


def _copy(of: Problem, tensor: int, unit: int, share: float) -> float:
    on = of.units[unit]
    return on.launch_us + 2 * of.tensors[tensor].nbytes * share * on.us_per_byte


@pytest.mark.parametrize("seed", range(8))
def test_all_pairs_at_once_cost_what_each_costs(seed: int) -> None:
    of = divisible(seed)
    table, moves = states_of(of), Moves(of)
    for index in range(1, len(table)):
        before, after = table[index - 1], table[index]
        read = [t for t in of.tasks[index].inputs if of.tensors[t].producer == index - 1]
        wanted = [
            [max((one(of, index, t, s, d) for t in read), default=0.0) for d in after.each]
            for s in before.each
        ]
        np.testing.assert_allclose(moves.between(index, before, after), wanted, rtol=1e-12)
