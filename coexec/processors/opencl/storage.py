"""Where the tensors of a region live: arguments, constants, and places in one arena."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from coexec.core.arena import ArenaBlock, Lifetime, live_bytes, padded, plan_arena
from coexec.core.types import Part, Region, RegionNode
from coexec.processors.opencl.concatenation import place_of
from coexec.processors.opencl.executable import ARENA, ARGUMENT, CONSTANT, PAGE, Slot
from coexec.processors.opencl.family import Lowering
from coexec.processors.opencl.fusion.operators import definition, in_place_pairs
from coexec.processors.opencl.paging import Paged, paged_tensors

BACKWARD = ("backward", "optimizer")
"""Phases whose tensors are gradients."""


@dataclass(frozen=True)
class ArenaUse:
    """Bytes of the arena in use while a node runs; ``live`` has the other two in it.

    ``gradients`` are tensors that the backward pass made, ``workspace`` the scratch of kernels.
    """

    live: int = 0
    gradients: int = 0
    workspace: int = 0


@dataclass
class Storage:
    """Where every tensor of a region lives.

    Tensors that share storage (views, updates in place, ``parts`` of joined ones) have one *root*.
    A root that is an argument or a constant stays there; all others get a place in the arena for
    their lifetime. ``within`` are offsets of those that do not begin where their root does.
    ``inputs`` and ``outputs`` are the region's that are arguments; ``carried`` are offsets of those
    outputs that stay in the arena for later regions, and of what regions join; ``blocks`` all that
    lies there.
    """

    region: Region
    parts: Mapping[str, Part] = field(default_factory=dict)
    paged: Paged = field(default_factory=Paged)
    within: dict[str, int] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    places: dict[str, Slot] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)
    scratch: dict[tuple[int, int], Slot] = field(default_factory=dict)
    uses: list[ArenaUse] = field(default_factory=list)
    arena_bytes: int = 0
    naive_bytes: int = 0
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    carried: dict[str, int] = field(default_factory=dict)
    blocks: tuple[ArenaBlock, ...] = ()

    @classmethod
    def plan(
        cls,
        region: Region,
        lowerings: list[Lowering | None],
        alignment: int,
        parts: Mapping[str, Part] | None = None,
    ) -> Storage:
        storage = cls(region, parts or {}, paged_tensors(region, alignment))
        storage._place_arguments()
        storage._find_roots()
        storage._place_outputs()
        storage._plan_arena(lowerings, alignment)
        return storage

    def slot(self, name: str) -> Slot:
        place = self.places[self.roots[name]]
        if name not in self.within:
            return place
        start, nbytes = place.offset + self.within[name], self.region.types[name].nbytes
        return replace(place, offset=start, nbytes=nbytes)

    @cached_property
    def _wholes(self) -> frozenset[str]:
        """Tensors that others are parts of."""
        return frozenset(part.whole for part in self.parts.values())

    @cached_property
    def _joined_by_several(self) -> frozenset[str]:
        """Memory in which several regions make their parts."""
        return frozenset(part.whole for part in self.region.joined.values())

    def _place_arguments(self) -> None:
        kept = self.region.kept
        self.inputs = tuple(name for name in self.region.inputs if name not in kept)
        for index, name in enumerate(self.inputs):
            self.roots[name] = name
            self.places[name] = Slot(ARGUMENT, index)
        for name, place in kept.items():
            if name in self.parts:
                self._place_part(name)
                continue
            self.roots[name] = name
            slot = Slot(ARENA, offset=place.offset, nbytes=place.nbytes, block=name)
            self.places[name] = slot
        for name in self.region.constants:
            if name not in self.roots:
                self.roots[name] = name
                self.places[name] = Slot(CONSTANT, name=name)

    def _place_part(self, name: str) -> None:
        place = place_of(name, self.parts)
        self.roots[name], self.within[name] = place.whole, place.offset

    def _find_roots(self) -> None:
        """Views share the storage of what they view; legal updates share that of their input."""
        last_use = self._last_uses()
        for index, node in enumerate(self.region.nodes):
            if self.paged.moves(node.outputs[0]):
                self._place_moved(node.outputs[0])
                continue
            if definition(node.call).view:
                view, source = node.outputs[0], node.inputs[0]
                self.roots[view] = self.roots[source]
                if source in self.within:
                    self.within[view] = self.within[source]
                continue
            for position, name in enumerate(node.outputs):
                if name in self.parts:
                    self._place_part(name)
                elif name in self._wholes:
                    self.roots[name] = name
                elif name:
                    self.roots[name] = self._shared_root(node, index, position, last_use) or name

    def _place_moved(self, name: str) -> None:
        """A page lies outside of the device; a copy that comes back has a place in the arena."""
        self.roots[name] = name
        if name in self.paged.out:
            nbytes = self.region.types[name].nbytes
            self.places[name] = Slot(PAGE, offset=self.paged.out[name], nbytes=nbytes)

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
            if root in self._wholes:
                continue  # more than this tensor lies there
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
            if definition(node.call).view and not self.paged.moves(node.outputs[0]):
                source = node.inputs[0]
                view_roots[node.outputs[0]] = view_roots.get(source, source)
        for name in self.region.outputs:
            last[view_roots.get(name, name)] = len(self.region.nodes)
        return _Default(last, len(self.region.nodes))

    def _place_outputs(self) -> None:
        """An output lives in its argument; one whose root lives elsewhere is copied at the end.

        One that may stay in the arena does, unless it shares its root with one that may not.
        """
        carriable = self.region.carriable
        others = {self.roots[name] for name in self.region.outputs if name not in carriable}
        fixed = (self.places.keys() - self._joined_by_several) | others
        self.outputs = tuple(
            name
            for name in self.region.outputs
            if name not in carriable or self.roots[name] in fixed
        )
        base = len(self.inputs)
        for index, name in enumerate(self.outputs):
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
        staying = [name for name in self.region.outputs if name not in self.outputs]
        for name in (*self.copied, *staying):
            self._extend(lifetimes, name, end)
        blocks: dict[str, Lifetime] = dict(lifetimes)
        for index, lowering in enumerate(lowerings):
            for number, nbytes in enumerate(lowering.scratch if lowering else ()):
                blocks[_scratch_name(index, number)] = Lifetime(nbytes, index, index)
        kept = self._kept_blocks(end)
        offsets = {name: offset for name, (offset, _) in kept.items()}
        plan = plan_arena(
            {**blocks, **{name: life for name, (_, life) in kept.items()}},
            alignment,
            offsets,
            frozenset() if self._is_whole_step else {self.roots[name] for name in staying},
        )
        self.arena_bytes = plan.nbytes
        # What was kept is counted by the region that made it.
        self.naive_bytes = sum(padded(block.nbytes, alignment) for block in blocks.values())
        self.uses = self._uses(lifetimes, blocks, kept)
        for name, block in blocks.items():
            slot = Slot(ARENA, offset=plan.offsets[name], nbytes=block.nbytes, block=name)
            if name.startswith("#") and name not in lifetimes:
                self.scratch[_scratch_key(name)] = slot
            else:
                self.places[name] = slot
        several = self._joined_by_several.intersection(self.roots[name] for name in staying)
        self.carried = {name: self.places[name].offset for name in sorted(several)}
        self.carried.update((name, self.slot(name).offset) for name in staying)
        self.blocks = (
            *(
                ArenaBlock(n, plan.offsets[n], padded(b.nbytes, alignment), b.first, b.last)
                for n, b in blocks.items()
            ),
            *self._kept_by_name(end, alignment),
        )

    @cached_property
    def _is_whole_step(self) -> bool:
        """Whether forward and backward pass are here: no later region of the arena is as large."""
        phases = {node.provenance.get("phase", "") for node in self.region.nodes}
        return "forward" in phases and not phases.isdisjoint(BACKWARD)

    def _uses(
        self,
        tensors: Mapping[str, Lifetime],
        blocks: Mapping[str, Lifetime],
        kept: Mapping[str, tuple[int, Lifetime]],
    ) -> list[ArenaUse]:
        """What the arena holds while each node runs."""
        phases = [node.provenance.get("phase", "") for node in self.region.nodes]
        waiting = [life for _, life in kept.values()]
        gradients = [life for life in tensors.values() if phases[life.first] in BACKWARD]
        if "optimizer" in phases:
            gradients += waiting
        workspace = [life for name, life in blocks.items() if name not in tensors]
        end = len(phases)
        lists = ([*blocks.values(), *waiting], gradients, workspace)
        return [
            ArenaUse(*use) for use in zip(*(live_bytes(one, end) for one in lists), strict=True)
        ]

    def _kept_blocks(self, end: int) -> dict[str, tuple[int, Lifetime]]:
        """Offset and lifetime of what earlier regions left, until nobody reads it any more.

        Tensors that share storage there are one block.
        """
        blocks: dict[str, tuple[int, Lifetime]] = {}
        for each in self._kept_by_name(end, 1):
            key = f"@{each.offset}"
            _, old = blocks.get(key, (0, Lifetime(0, 0, 0)))
            life = Lifetime(max(each.nbytes, old.nbytes), 0, max(each.last, old.last))
            blocks[key] = (each.offset, life)
        return blocks

    def _kept_by_name(self, end: int, alignment: int) -> list[ArenaBlock]:
        """What earlier regions left, until nobody reads it any more."""
        last = dict.fromkeys(self.region.kept, 0)
        for index, node in enumerate(self.region.nodes):
            last.update((root, index) for root in self._kept_roots(node.inputs))
        last.update((root, end) for root in self._kept_roots(self.copied))
        return [
            ArenaBlock(
                name, at.offset, padded(at.nbytes, alignment), 0, end if at.after else last[name]
            )
            for name, at in self.region.kept.items()
            if name not in self.parts
        ]

    def _kept_roots(self, names: Iterable[str]) -> set[str]:
        return {self.roots[name] for name in names if name} & self.region.kept.keys()

    def _extend(self, lifetimes: dict[str, Lifetime], name: str, index: int) -> None:
        root = self.roots[name]
        if root in self.places:
            return
        nbytes = self.region.types[root].nbytes
        old = lifetimes.get(root)
        lifetimes[root] = replace(old, last=index) if old else Lifetime(nbytes, index, index)


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
