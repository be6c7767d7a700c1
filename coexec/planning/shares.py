"""Shares of operators whose times are measured: some of each, then those that a plan takes.

Between measured shares time is taken to be linear, which it is not: a share is computed in whole
tiles of channels, rows or columns. So the shares that the best plan takes are measured themselves,
and if they take another time than was thought, it is planned again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from coexec.core.types import OpCall
from coexec.cost.model import ProcessorCosts
from coexec.ops.split import share_call
from coexec.placement.build_problem import Planned
from coexec.placement.divisions import Points, shares_to_measure, ways_of
from coexec.placement.fused import Fused, calls_made
from coexec.placement.policies.table import DIVIDED, Outcome
from coexec.placement.problem import Problem

HEAVY = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators whose shares are measured."""
NEAR = 0.02
"""Shares that take so little more or less than was thought change no plan."""


def shares_of(call: OpCall, axes: int) -> Iterator[OpCall]:
    """Shares to measure of a call that computes much."""
    if call.op_type in HEAVY:
        yield from map(_side_by_side, shares_to_measure(call, axes))


def own_calls(
    calls: Sequence[OpCall], fused: Fused, costs: Mapping[str, ProcessorCosts], axes: int
) -> dict[str, list[OpCall]]:
    """By processor that fuses any: what it makes of the calls, and (``axes``) of their shares."""
    found = calls_made(calls, fused)
    for name, own in found.items():
        processor, fuses = costs[name].processor, fused[name]
        made = ((call, fuses.get(call.name)) for call in calls)
        parts = ((whole, share) for call, whole in made if whole for share in shares_of(call, axes))
        shares = [processor.fused_share(whole, share) for whole, share in parts]
        own += [share for share in shares if share is not None]
    return found


def points_of(planned: Planned, outcomes: Sequence[Outcome]) -> Points:
    """The shares of calls that compute much in the first of the outcomes that divides operators."""
    divided = next((each for each in outcomes if each.way == DIVIDED), None)
    found: dict[tuple[int, int], frozenset[int]] = {}
    if divided is None:
        return found
    for task, shares in divided.schedule.shares.items():
        if planned.calls[task].op_type in HEAVY:
            division = planned.problem.divisions[task][shares.division]
            units = frozenset(stop - start for _, start, stop in shares.computed)
            found[task, division.axis] = frozenset(n for n in units if n < division.count)
    return found


def calls_at(
    planned: Planned, points: Points, axes: int, costs: Mapping[str, ProcessorCosts]
) -> tuple[list[OpCall], dict[str, list[OpCall]]]:
    """The calls of shares, by their numbers of units, and as :func:`own_calls` has them."""
    ways = {
        (task, way.axis): way
        for task in {task for task, _ in points}
        for way in ways_of(planned.calls[task], axes)
    }
    shares = [
        _side_by_side(share_call(planned.calls[task], ways[task, axis], 0, count))
        for (task, axis), counts in points.items()
        for count in sorted(counts)
    ]
    found = {}
    for name, own in planned.fused.items():
        processor = costs[name].processor
        pairs = ((share, own.get(share.name)) for share in shares)
        made = [(made and processor.fused_share(made, share)) or share for share, made in pairs]
        if own:
            found[name] = made
    return shares, found


def merged(one: Points, other: Points) -> Points:
    """The points of both."""
    none: frozenset[int] = frozenset()
    return {key: one.get(key, none) | other.get(key, none) for key in {**one, **other}}


def agree(before: Problem, after: Problem, points: Points) -> bool:
    """Whether shares of two problems about the same tasks take about as long."""
    thought, found = (_times(of, points) for of in (before, after))
    return all(abs(found[key] / us - 1) <= NEAR for key, us in thought.items() if us > 0)


def _times(problem: Problem, points: Points) -> Mapping[tuple[int, int, int, int], float]:
    """Microseconds by task, axis, units and processor that takes such shares."""
    return {
        (task, axis, count, unit): us
        for (task, axis), counts in points.items()
        for division in problem.divisions[task]
        if division.axis == axis
        for count in counts
        for unit in range(len(problem.units))
        if np.isfinite(us := division.time_us(unit, count))
    }


def _side_by_side(share: OpCall) -> OpCall:
    """With the parts of constants as they lie when a plan is run."""
    constants = {i: np.ascontiguousarray(a) for i, a in share.constants.items()}
    return replace(share, constants=constants)
