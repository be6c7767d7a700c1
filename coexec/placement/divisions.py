"""The ways to divide the nodes of a graph, with what shares cost: measured ones, and in between."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import onnx_ir as ir

from coexec.base.window import Window
from coexec.core.types import OpCall
from coexec.cost.model import Cost, ProcessorCosts
from coexec.ops.split import CannotSplit, Way, share_call
from coexec.ops.split_rules import transposed, way
from coexec.placement.fused import Fused, apart_us
from coexec.placement.problem import Division, Task, Tensor

POINTS = (0.25, 0.5, 0.75)
"""Shares of the whole that are measured, or looked for among what was."""
Curve = tuple[tuple[float, float], ...]
Points = Mapping[tuple[int, int], frozenset[int]]
"""By task and axis, the units of shares that may be measured beside those at :data:`POINTS`."""
NO_POINTS: Points = MappingProxyType({})


def divisions(
    nodes: Sequence[ir.Node],
    calls: Sequence[OpCall],
    tasks: Sequence[Task],
    tensors: Sequence[Tensor],
    rows: Sequence[Sequence[Cost | None]],
    costs: Sequence[ProcessorCosts],
    axes: int,
    points: Points = NO_POINTS,
    fused: Fused = MappingProxyType({}),
) -> dict[int, tuple[Division, ...]]:
    """By number of the task, its divisions along ``axes`` axes, see :func:`ways_of`.

    Shares of a node that a processor has ``fused`` with others are computed as all of it is, or
    else without those.
    """
    by_name = {call.name: call for call in calls}
    numbers = {tensor.name: number for number, tensor in enumerate(tensors)}
    found = {}
    for index, (node, call) in enumerate(zip(nodes, calls, strict=True)):
        priced = [
            None if cost is None else _priced(node, cost, by_name, each, fused.get(each.name, {}))
            for cost, each in zip(rows[index], costs, strict=True)
        ]
        divided = tuple(
            Division(
                how.axis,
                how.count,
                _windows(node, how, tasks[index], numbers),
                tuple(
                    ()
                    if own is None
                    else _curve(call, how, points.get((index, how.axis), ()), own, each)
                    for own, each in zip(priced, costs, strict=True)
                ),
                how.quantum,
            )
            for how in ways_of(call, axes)
        )
        if divided:
            found[index] = divided
    return found


class _Priced(NamedTuple):
    """What all of a node costs a processor of which shares are to be priced.

    ``made`` computes it there with others, and its shares alike; else ``more_us`` is what nodes
    around the whole take that are computed apart then, of which each share has its part.
    """

    cost: Cost
    more_us: float = 0.0
    made: OpCall | None = None


def _priced(
    node: ir.Node,
    cost: Cost,
    calls: Mapping[str, OpCall],
    costs: ProcessorCosts,
    own: Mapping[str, OpCall | None],
) -> _Priced:
    call = calls[str(node.name)]
    made = own.get(call.name)
    if made is None:
        return _Priced(cost)
    if costs.processor.fused_share(made, call) is not None:
        return _Priced(cost, made=made)
    return _Priced(costs.cost(call), apart_us(node, calls, costs, own))


def ways_of(call: OpCall, axes: int) -> Iterator[Way]:
    """How a call divides along each of the first ``axes`` axes of its result, where it does.

    An axis that was one of the first stays one where it is transposed.
    """
    rank = max((kind.rank for kind in call.outputs if kind is not None), default=0)
    order = transposed(call) if call.identifier == "Transpose" else range(rank)
    for axis in range(rank):
        if min(axis, order[axis]) >= axes:
            continue
        try:
            yield way(call, axis)
        except CannotSplit:
            continue


def shares_to_measure(call: OpCall, axes: int) -> Iterator[OpCall]:
    """The shares of a call whose times say most about others."""
    for how in ways_of(call, axes):
        for count in _counts(how):
            yield share_call(call, how, 0, count)


def _counts(how: Way) -> list[int]:
    """Units of the shares at :data:`POINTS`."""
    counts = dict.fromkeys(round(point * how.count) for point in POINTS)
    return [count for count in counts if 0 < count < how.count]


def _windows(
    node: ir.Node, how: Way, task: Task, numbers: Mapping[str, int]
) -> tuple[Window | None, ...]:
    """What shares read of each tensor; one that several operands read is read whole if any does."""
    reads: dict[int, set[Window | None]] = {tensor: set() for tensor in task.inputs}
    for value, window in zip(node.inputs, how.windows, strict=False):
        number = None if value is None else numbers.get(str(value.name))
        if number in reads:
            reads[number].add(window)
    return tuple(
        next(iter(windows)) if len(windows := reads[tensor]) == 1 else None
        for tensor in task.inputs
    )


def _curve(
    call: OpCall,
    how: Way,
    more: Collection[int],
    priced: _Priced,
    costs: ProcessorCosts,
) -> Curve:
    """From a launch to the whole, by way of what was measured; no point where shares are refused.

    Times never fall with the size of a share: of two measured ones, the later is at least as long.
    """
    counts = sorted({*_counts(how), *more})
    shares = {count: share_call(call, how, 0, count) for count in counts}
    if not all(costs.processor.supports(share).yes for share in shares.values()):
        return ()
    whole = priced.cost.time.median_us + priced.more_us
    points = [(0.0, min(costs.rates.launch_us, whole))]
    for count, share in shares.items():
        own = share if priced.made is None else costs.processor.fused_share(priced.made, share)
        entry = None if own is None else costs.measured(own)
        if entry is not None:
            us = entry.time.median_us + priced.more_us * count / how.count
            time = min(max(us, points[-1][1]), whole)
            points.append((count / how.count, time))
    return (*points, (1.0, whole))
