"""Concatenations of what several regions of a processor make, so that nothing is copied.

A region ends where another processor waits for a value, maybe amid a chain of Concat, as in densely
connected networks that are divided by rows. Memory for the last result of such a chain is taken
when the first operand is made, and all operands are made where they lie in it. Not where that takes
more memory, as a result does that waits long for its last operand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from coexec.core.arena import Lifetime, live_bytes
from coexec.core.types import Part, TensorType
from coexec.ops.node import call_of, type_of
from coexec.ops.pieces import runs_of_concat
from coexec.ops.table import opdef

MOST_GROWTH = 1.1
"""Bytes live at once with operands made in their result, in terms of those with copies."""


class _Link(NamedTuple):
    """An operand lies in ``whole``, ``offset`` bytes behind its start."""

    whole: ir.Value
    offset: int


@dataclass
class JoinedParts:
    """Where tensors are best made, by name: ``parts`` of memory whose ``types`` are bytes."""

    parts: dict[str, Part] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)

    def reads_of(self, last: Mapping[str, int]) -> dict[str, int]:
        """The last read of each piece of memory, from those of the tensors that lie there."""
        found: dict[str, int] = {}
        for name, part in self.parts.items():
            found[part.whole] = max(found.get(part.whole, -1), last.get(name, -1))
        return found


def joined_parts(regions: Sequence[Sequence[ir.Node]], fixed: Collection[str]) -> JoinedParts:
    """Tensors that ``regions`` of one processor, in order, join by Concat across their borders.

    ``fixed`` are names of tensors that have another place: others than these regions see them.
    """
    found = JoinedParts()
    home = {node: number for number, nodes in enumerate(regions) for node in nodes}
    links = _links(home, fixed)
    if not links:
        return found
    lives = _lives(home, fixed)
    most = MOST_GROWTH * _peak(lives)
    for whole, offsets in _members(links).items():
        if len({home[node] for value in offsets if (node := value.producer())}) == 1:
            continue
        memory = TensorType((type_of(whole).nbytes,), np.dtype(np.uint8))
        joined = {value: life for value, life in lives.items() if value not in offsets}
        joined[whole] = _together(memory.nbytes, [lives[value] for value in offsets])
        if _peak(joined) <= most:
            lives, name = joined, f"{whole.name}#joined"
            found.types[name] = memory
            found.parts.update((str(v.name), Part(name, at)) for v, at in offsets.items())
    return found


def _links(home: Mapping[ir.Node, int], fixed: Collection[str]) -> dict[ir.Value, _Link]:
    """Operands that may lie in results of Concat: all operands of a node, or none."""
    links: dict[ir.Value, _Link] = {}
    for node in home:
        if node.op_type != "Concat" or not _is_free(node.outputs[0], home, fixed):
            continue
        operands = [value for value in node.inputs if value is not None]
        offsets = runs_of_concat(call_of(node))
        once = len(set(operands)) == len(offsets) and links.keys().isdisjoint(operands)
        if once and all(_is_free(value, home, fixed) for value in operands):
            pairs = zip(operands, offsets, strict=True)
            links.update((value, _Link(node.outputs[0], offset)) for value, offset in pairs)
    return links


def _is_free(value: ir.Value, home: Mapping[ir.Node, int], fixed: Collection[str]) -> bool:
    """Whether these regions alone make and read a value, and never by a view."""
    touching = [value.producer(), *value.consumers()]
    return value.name not in fixed and all(
        node is not None and node in home and not opdef(call_of(node)).view for node in touching
    )


def _members(links: Mapping[ir.Value, _Link]) -> dict[ir.Value, dict[ir.Value, int]]:
    """Results that lie in no other one, each with all that lies there and where, itself first."""
    found: dict[ir.Value, dict[ir.Value, int]] = {}
    for value in links:
        whole, offset = value, 0
        while whole in links:
            whole, offset = links[whole].whole, offset + links[whole].offset
        found.setdefault(whole, {whole: 0})[value] = offset
    return found


def _lives(home: Mapping[ir.Node, int], fixed: Collection[str]) -> dict[ir.Value, Lifetime]:
    """From the node that makes a value to the last one that reads it, by their numbers."""
    number = {node: index for index, node in enumerate(home)}
    return {
        value: Lifetime(
            type_of(value).nbytes,
            number[node],
            max(number.get(reader, number[node]) for reader in (node, *value.consumers())),
        )
        for node in home
        for value in node.outputs
        if value.name and value.name not in fixed
    }


def _together(nbytes: int, lives: Sequence[Lifetime]) -> Lifetime:
    return Lifetime(nbytes, min(life.first for life in lives), max(life.last for life in lives))


def _peak(lives: Mapping[ir.Value, Lifetime]) -> int:
    """The most bytes that are live at once."""
    end = max((life.last for life in lives.values()), default=0)
    return max(live_bytes([*lives.values()], end + 1), default=0)
