"""Where the tensors of a region live: arguments, constants, and places in one arena."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from coexec.core.arena import Lifetime, plan_arena
from coexec.core.types import Region, RegionNode
from coexec.processors.opencl.executable import ARENA, ARGUMENT, CONSTANT, Slot
from coexec.processors.opencl.family import Lowering
from coexec.processors.opencl.fusion.operators import definition, in_place_pairs


@dataclass
class Storage:
    """Where every tensor of a region lives.

    Tensors that share storage (views, updates in place) have one *root*. A root that is an
    argument or a constant stays there; all others get a place in the arena for their lifetime.
    """

    region: Region
    roots: dict[str, str] = field(default_factory=dict)
    places: dict[str, Slot] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)
    scratch: dict[tuple[int, int], Slot] = field(default_factory=dict)
    live: list[int] = field(default_factory=list)
    arena_bytes: int = 0
    naive_bytes: int = 0

    @classmethod
    def plan(cls, region: Region, lowerings: list[Lowering | None], alignment: int) -> Storage:
        storage = cls(region)
        storage._place_arguments()
        storage._find_roots(lowerings)
        storage._place_outputs()
        storage._plan_arena(lowerings, alignment)
        return storage

    def slot(self, name: str) -> Slot:
        return self.places[self.roots[name]]

    def _place_arguments(self) -> None:
        for index, name in enumerate(self.region.inputs):
            self.roots[name] = name
            self.places[name] = Slot(ARGUMENT, index)
        for name in self.region.constants:
            if name not in self.roots:
                self.roots[name] = name
                self.places[name] = Slot(CONSTANT, name=name)

    def _find_roots(self, lowerings: list[Lowering | None]) -> None:
        """Views share the storage of what they view; legal updates share that of their input."""
        last_use = self._last_uses()
        for index, node in enumerate(self.region.nodes):
            if lowerings[index] is None:
                self.roots[node.outputs[0]] = self.roots[node.inputs[0]]
                continue
            for position, name in enumerate(node.outputs):
                if name:
                    self.roots[name] = self._shared_root(node, index, position, last_use) or name

    def _shared_root(
        self, node: RegionNode, index: int, position: int, last_use: Mapping[str, int]
    ) -> str | None:
        """Root that output ``position`` may overwrite, or ``None``."""
        name = node.outputs[position]
        state = self.region.aliases.get(name)
        for output, operand in in_place_pairs(node.call):
            if output != position or operand >= len(node.inputs) or not node.inputs[operand]:
                continue
            source = node.inputs[operand]
            if self.region.types[source] != self.region.types[name]:
                continue
            root = self.roots[source]
            if state is not None:
                # A state tensor is updated where it lives: readers of the old value came before.
                if root == state:
                    return root
                continue
            dies_here = last_use[root] == index and root not in self.places
            if (
                dies_here
                and not self._is_output_root(root)
                and not self._read_twice(node, root)
                and not self._taken(node, position, root)
            ):
                return root
        return None

    def _taken(self, node: RegionNode, position: int, root: str) -> bool:
        """Whether an earlier output of the node has taken over a root."""
        return any(name and self.roots[name] == root for name in node.outputs[:position])

    def _read_twice(self, node: RegionNode, root: str) -> bool:
        """Whether a node reads a root through two operands (one may be broadcast: not in place)."""
        return sum(bool(n) and self.roots[n] == root for n in node.inputs) > 1

    def _is_output_root(self, root: str) -> bool:
        return any(self.roots.get(name) == root for name in self.region.outputs)

    def _last_uses(self) -> dict[str, int]:
        """Index of the last node that reads each root, by the roots that views alone imply."""
        view_roots: dict[str, str] = {}
        last: dict[str, int] = {}
        for index, node in enumerate(self.region.nodes):
            for name in filter(None, node.inputs):
                last[view_roots.get(name, name)] = index
            if definition(node.call).view:
                source = node.inputs[0]
                view_roots[node.outputs[0]] = view_roots.get(source, source)
        for name in self.region.outputs:
            last[view_roots.get(name, name)] = len(self.region.nodes)
        return _Default(last, len(self.region.nodes))

    def _place_outputs(self) -> None:
        """An output lives in its argument; one whose root lives elsewhere is copied at the end."""
        base = len(self.region.inputs)
        for index, name in enumerate(self.region.outputs):
            root = self.roots[name]
            state = self.region.aliases.get(name)
            if state is not None and self.roots[state] == root:
                continue
            if root in self.places or state is not None:
                self.copied[name] = root
            else:
                self.places[root] = Slot(ARGUMENT, base + index)

    def _plan_arena(self, lowerings: list[Lowering | None], alignment: int) -> None:
        lifetimes: dict[str, Lifetime] = {}
        end = len(self.region.nodes)
        for index, node in enumerate(self.region.nodes):
            for name in filter(None, (*node.inputs, *node.outputs)):
                self._extend(lifetimes, name, index)
        for name in self.copied:
            self._extend(lifetimes, name, end)
        blocks: dict[str, Lifetime] = dict(lifetimes)
        for index, lowering in enumerate(lowerings):
            for number, nbytes in enumerate(lowering.scratch if lowering else ()):
                blocks[_scratch_name(index, number)] = Lifetime(nbytes, index, index)
        plan = plan_arena(blocks, alignment)
        self.arena_bytes, self.naive_bytes = plan.nbytes, plan.naive_bytes
        self.live = _live_bytes(blocks.values(), end)
        for name, block in blocks.items():
            slot = Slot(ARENA, offset=plan.offsets[name], nbytes=block.nbytes)
            if name.startswith("#") and name not in lifetimes:
                self.scratch[_scratch_key(name)] = slot
            else:
                self.places[name] = slot

    def _extend(self, lifetimes: dict[str, Lifetime], name: str, index: int) -> None:
        root = self.roots[name]
        if root in self.places:
            return
        nbytes = self.region.types[name].nbytes
        old = lifetimes.get(root)
        lifetimes[root] = (
            Lifetime(max(old.nbytes, nbytes), old.first, index)
            if old
            else Lifetime(nbytes, index, index)
        )


def _live_bytes(blocks: Iterable[Lifetime], nodes: int) -> list[int]:
    """Bytes in use while each node runs."""
    changes = [0] * (nodes + 2)
    for block in blocks:
        changes[block.first] += block.nbytes
        changes[block.last + 1] -= block.nbytes
    return list(accumulate(changes[:nodes]))


def _scratch_name(node: int, number: int) -> str:
    return f"#{node}.{number}"


def _scratch_key(name: str) -> tuple[int, int]:
    node, number = name[1:].split(".")
    return int(node), int(number)


class _Default(dict[str, int]):
    """A mapping with a default for names that nothing reads."""

    def __init__(self, known: Mapping[str, int], default: int) -> None:
        super().__init__(known)
        self._default = default

    def __missing__(self, key: str) -> int:
        return self._default
