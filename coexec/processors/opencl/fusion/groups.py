"""Groups of a region's nodes that may run as one, and the region with groups in their places."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from coexec.core.types import Region, RegionNode
from coexec.ops.table import OPERATORS


class Groups:
    """Nodes of a region, each in a group; merging two keeps the graph of groups free of cycles.

    Edges lead from producers to readers, and from readers of a state to the node that replaces
    it. Sets of nodes are integers, one bit for each node.
    """

    def __init__(self, region: Region) -> None:
        self.nodes = region.nodes
        self.before = predecessors(region)
        self.of = list(range(len(self.nodes)))
        self.members = [1 << index for index in range(len(self.nodes))]
        self.ancestors: list[int] = []
        for own in self.before:
            reached = 0
            for index in own:
                reached |= self.ancestors[index] | 1 << index
            self.ancestors.append(reached)

    def merge(self, groups: Iterable[int]) -> int | None:
        """The group that unites ``groups``, or ``None`` if one would have to wait for itself."""
        parts = sorted(set(groups))
        union = above = 0
        for part in parts:
            union |= self.members[part]
            above |= self.ancestors[part]
        if any(self.ancestors[self.of[index]] & union for index in self._entries(union)):
            return None
        first = parts[0]
        self.members[first], self.ancestors[first] = union, above & ~union
        for index in bits(union):
            self.of[index] = first
        below = union | self.ancestors[first]
        for group in set(self.of):
            if group != first and self.ancestors[group] & union:
                self.ancestors[group] |= below
        return first

    def _entries(self, union: int) -> set[int]:
        """Nodes outside that nodes of ``union`` wait for."""
        return {
            index
            for member in bits(union)
            for index in self.before[member]
            if not union >> index & 1
        }

    def indices(self, group: int) -> list[int]:
        """Nodes of a group in order."""
        return list(bits(self.members[group]))

    def several(self) -> list[list[int]]:
        """The groups of more than one node."""
        chosen = dict.fromkeys(self.of)
        return [found for group in chosen if len(found := self.indices(group)) > 1]


def bits(mask: int) -> Iterator[int]:
    """Positions of the ones, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def predecessors(region: Region) -> list[set[int]]:
    """For each node those that must run before it."""
    producer: dict[str, int] = {}
    viewed: dict[str, str] = {}
    readers: dict[str, list[int]] = {}
    before: list[set[int]] = []
    for index, node in enumerate(region.nodes):
        own: set[int] = set()
        for name in filter(None, node.inputs):
            if name in producer:
                own.add(producer[name])
            readers.setdefault(viewed.get(name, name), []).append(index)
        for name in filter(None, node.outputs):
            producer[name] = index
            own.update(readers.get(region.aliases.get(name, ""), ()))
        op = OPERATORS.get(node.call.identifier)
        if op is not None and op.view:
            viewed[node.outputs[0]] = viewed.get(node.inputs[0], node.inputs[0])
        before.append(own - {index})
    return before


def readers_of(region: Region) -> dict[str, list[int]]:
    """Nodes that read each tensor."""
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(region.nodes):
        for name in filter(None, node.inputs):
            readers.setdefault(name, []).append(index)
    return readers


def replaced(region: Region, make: Callable[[list[int]], RegionNode], groups: Groups) -> Region:
    """``region`` with one node for each group of several.

    A group stands where its last node stood; nodes that wait for it follow at once.
    """
    several = groups.several()
    if not several:
        return region
    made = {groups.of[indices[0]]: make(indices) for indices in several}
    nodes = [
        made[group] if group in made else region.nodes[groups.indices(group)[0]]
        for group in _ordered(groups)
    ]
    return replace(region, nodes=tuple(nodes))


def _ordered(groups: Groups) -> Sequence[int]:
    """Groups such that each comes after all that it waits for, else by their last nodes."""
    alive = list(dict.fromkeys(groups.of))
    last = {group: groups.members[group].bit_length() for group in alive}
    waits: dict[int, set[int]] = {}
    followers: dict[int, list[int]] = {group: [] for group in alive}
    for group in alive:
        entries = {
            groups.of[index] for node in groups.indices(group) for index in groups.before[node]
        } - {group}
        waits[group] = entries
        for entry in entries:
            followers[entry].append(group)
    ready = [(last[group], group) for group in alive if not waits[group]]
    heapq.heapify(ready)
    ordered: list[int] = []
    while ready:
        _, group = heapq.heappop(ready)
        ordered.append(group)
        for follower in followers[group]:
            waits[follower].remove(group)
            if not waits[follower]:
                heapq.heappush(ready, (last[follower], follower))
    return ordered
