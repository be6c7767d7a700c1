"""Regions of a placed graph's parts: what goes in and out, and what waits on a processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from coexec.core.types import Kept, Region, TensorType
from coexec.ops.node import constant_of, type_of
from coexec.ops.region import region_node
from coexec.runtime.joined_parts import JoinedParts
from coexec.runtime.lowering import Lowering
from coexec.runtime.partition import Part


@dataclass(frozen=True)
class PartRegions:
    """Makes the regions of a graph's parts, one after another.

    ``types`` are the program's, to which regions add theirs. ``homes`` are the processors of
    states, ``last_read`` the last part that reads a tensor, ``joined`` what processors write to its
    place in a larger tensor. ``exported`` are tensors that other processors read, ``outputs`` those
    that are results or states. ``carried`` are offsets of what waits in a processor's arena, by
    tensor and processor.
    """

    how: Lowering
    types: dict[str, TensorType]
    homes: Mapping[str, str]
    last_read: Mapping[str, int]
    joined: Mapping[str, JoinedParts]
    exported: AbstractSet[str]
    outputs: AbstractSet[str]
    carried: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, index: int, part: Part) -> Region:
        """The region of part ``index``; notes the types of what goes in and out."""
        nodes = tuple(region_node(node) for node in part.nodes)
        produced = {name for node in nodes for name in node.outputs if name}
        used = {str(v.name): v for node in part.nodes for v in node.inputs if v is not None}
        constants = {name: c for name, v in used.items() if (c := constant_of(v)) is not None}
        inputs = [name for name in used if name not in produced and name not in constants]
        outputs = [
            name
            for node in nodes
            for name in node.outputs
            if name and (self.last_read.get(name, -1) > index or name in self.outputs)
        ]
        types = {name: type_of(value) for name, value in used.items()}
        for node in part.nodes:
            types.update({str(v.name): type_of(v) for v in node.outputs if v.name})
        self.types.update((name, types[name]) for name in (*inputs, *outputs))
        aliases = {
            new: old
            for new, old in self.how.state.items()
            if new in outputs and old in inputs and self.homes[old] == part.processor
        }
        return Region(
            nodes,
            tuple(inputs),
            tuple(outputs),
            {**types, **self.joined[part.processor].types},
            constants,
            aliases,
            prepares=self.how.prepares,
            carriable=self._carriable(outputs),
            kept=self._kept(index, part.processor),
            sparing=self.how.sparing,
            workspace=self.how.workspace,
            joined=self.joined[part.processor].parts,
        )

    def _carriable(self, outputs: Sequence[str]) -> frozenset[str]:
        """Outputs that nobody but later regions of the same processor reads."""
        if self.how.mode.by_operator:
            return frozenset()
        return frozenset(outputs) - self.exported - self.outputs

    def _kept(self, index: int, processor: str) -> dict[str, Kept]:
        """What waits in the arena of a processor for this region or a later one."""
        return {
            name: Kept(offset, self.types[name].nbytes, after=self.last_read[name] > index)
            for (name, place), offset in self.carried.items()
            if place == processor and self.last_read[name] >= index
        }
