"""What processors make of the nodes of a graph that they compute as one, and what that costs.

A processor that computes a quantised layer on bytes has one kernel for what are several nodes on
floats (:meth:`coexec.core.processor.Processor.fused`). That kernel's time is the time of the node
that it is about; the others have none. Shares of a node are computed alike where the processor says
by what (:meth:`coexec.core.processor.Processor.fused_share`). Elsewhere they cost what they do on
floats, the nodes around them included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.cost.distribution import Distribution
from coexec.cost.model import FUSED, Cost, ProcessorCosts
from coexec.ops.region import region_of

Fused = Mapping[str, Mapping[str, OpCall | None]]
"""By processor and node: the call that computes it there, or nothing: another node's does."""
NOTHING = Cost(Distribution.exactly(0.0), FUSED)
BEHIND = 2
"""Nodes behind one whose call has them in it: an activation, then a quantisation."""


def fused_calls(graph: ir.Graph, costs: Mapping[str, ProcessorCosts]) -> Fused:
    """What the processors make of nodes of ``graph`` (static types, execution order)."""
    region = region_of(graph)
    return {name: each.processor.fused(region) for name, each in costs.items()}


def calls_made(calls: Sequence[OpCall], fused: Fused) -> dict[str, list[OpCall]]:
    """By processor that fuses any: what it makes of the calls of a graph."""
    return {
        name: [made for call in calls if (made := own.get(call.name, call)) is not None]
        for name, own in fused.items()
        if own
    }


def whole_cost(call: OpCall, costs: ProcessorCosts, own: Mapping[str, OpCall | None]) -> Cost:
    """What the node of ``call`` costs where all nodes around it are on the same processor."""
    made = own.get(call.name, call)
    return NOTHING if made is None else costs.cost(made)


def apart_us(
    node: ir.Node, calls: Mapping[str, OpCall], costs: ProcessorCosts, own: Mapping[str, object]
) -> float:
    """What the nodes around a divided one take on floats that its own call has in it."""
    found = [calls[name] for name in dict.fromkeys(_around(node)) if own.get(name, ()) is None]
    return sum(costs.cost(call).time.median_us for call in found)


def _around(node: ir.Node) -> Iterator[str]:
    """Names of the nodes that one reads, and of those behind it."""
    makers = (None if value is None else value.producer() for value in node.inputs)
    yield from (str(maker.name) for maker in makers if maker is not None)
    last = [node]
    for _ in range(BEHIND):
        last = [reader for each in last for reader in each.outputs[0].consumers()]
        yield from (str(reader.name) for reader in last)
