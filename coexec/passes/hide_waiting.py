"""Put work that nobody waits for where a processor would otherwise wait for another one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_ir as ir

from coexec.ops.builder import PHASE

UPDATE = "optimizer"
HELD = 2
"""So many nodes are held back on each processor: what they read stays in memory meanwhile."""


def hide_waiting(
    nodes: Sequence[ir.Node], processors: Mapping[str, str], patient: Collection[ir.Node]
) -> list[ir.Node]:
    """``nodes`` (in a valid order, with their processors by name) in another valid order.

    Nodes of ``patient`` go in front of the next one on their processor that reads what another
    processor makes, or of the first that reads them, and in front of all updates.
    """
    held: dict[str, list[ir.Node]] = {}
    ordered: list[ir.Node] = []
    for node in nodes:
        place = processors[str(node.name)]
        makers = set(_makers(node))
        update = node.metadata_props.get(PHASE) == UPDATE
        for waiting in held.values():
            if update or not makers.isdisjoint(waiting):
                ordered += waiting
                waiting.clear()
        mine = held.setdefault(place, [])
        if node in patient:
            mine.append(node)
            ordered += [mine.pop(0) for _ in range(len(mine) - HELD)]
            continue
        if any(processors[str(maker.name)] != place for maker in makers):
            ordered += mine
            mine.clear()
        ordered.append(node)
    return ordered + [node for waiting in held.values() for node in waiting]


def latest_first(nodes: Sequence[ir.Node], joins: Collection[ir.Node]) -> list[ir.Node]:
    """``nodes`` with the updates among ``joins`` in front of all others, the latest operand first.

    Who has waited for the last operand has waited for all: the updates become one region.
    """
    position = {node: number for number, node in enumerate(nodes)}
    updates = [node for node in nodes if node.metadata_props.get(PHASE) == UPDATE]
    start = position[updates[0]] if updates else len(nodes)
    ready = {n: max((position[maker] for maker in _makers(n)), default=0) for n in updates}
    first = [node for node in updates if node in joins and ready[node] < start]
    first.sort(key=lambda node: -ready[node])
    chosen = set(first)
    return [*nodes[:start], *first, *(node for node in nodes[start:] if node not in chosen)]


def _makers(node: ir.Node) -> Iterator[ir.Node]:
    for value in node.inputs:
        maker = None if value is None else value.producer()
        if maker is not None:
            yield maker
