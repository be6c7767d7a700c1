"""Channels of a network that can only be removed together, and what is cut when they go."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from coexec.core.types import Array


@dataclass(frozen=True)
class Layout:
    """Channels of a value along axis 1: groups in order; ``rank`` is that of the value.

    ``flattened``: each channel is several entries, as many for each.
    """

    groups: tuple[int, ...]
    rank: int
    flattened: bool = False


@dataclass(frozen=True)
class Cut:
    """An initializer whose ``axis`` has the channels of a layout, each maybe several entries."""

    value: ir.Value
    axis: int
    layout: Layout


@dataclass(frozen=True)
class Writer:
    """A node whose weights make the channels of a group: (channels, entries of each)."""

    node: ir.Node
    group: int
    rows: Array


@dataclass
class ChannelGroups:
    """What follows from removing channels; groups are numbers, to be looked up by :meth:`find`.

    ``kept_whole`` says of a group why none of its channels can go. ``depthwise`` are convolutions
    whose ``group`` is the number of channels, ``flattenings`` reshapes that may name a number of
    entries.
    """

    sizes: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    kept_whole: dict[int, str] = field(default_factory=dict)
    layouts: dict[ir.Value, Layout] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)
    depthwise: list[ir.Node] = field(default_factory=list)
    flattenings: list[ir.Node] = field(default_factory=list)

    def find(self, group: int) -> int:
        """The group that stands for all that are one with this one."""
        while self.parents[group] != group:
            group = self.parents[group]
        return group

    def total(self, layout: Layout) -> int:
        """Channels of all groups of a layout."""
        return sum(self.sizes[group] for group in layout.groups)

    def new(self, channels: int) -> int:
        """A group of its own."""
        self.sizes.append(channels)
        self.parents.append(len(self.parents))
        return len(self.parents) - 1

    def unite(self, one: int, other: int) -> None:
        """Channels that can only go together from now on."""
        first, second = self.find(one), self.find(other)
        if first != second:
            self.parents[second] = first
            if second in self.kept_whole:
                self.kept_whole.setdefault(first, self.kept_whole[second])

    def keep(self, layout: Layout | None, reason: str) -> None:
        """No channel of these groups can go."""
        for group in layout.groups if layout is not None else ():
            self.kept_whole.setdefault(self.find(group), reason)
