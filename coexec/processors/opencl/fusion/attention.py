"""Attention of few queries, written as products around a softmax, becomes one operator.

Exporters write a step of a decoder so: the keys of all positions are transposed, multiplied with
one query, scaled, perhaps masked, and their softmax is multiplied with the values. The kernel of
Attention reads keys and values once, where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coexec.core.types import OpCall, Region, RegionNode, TensorType
from coexec.ops.axes import normalize_axis
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.elementwise import name_of, number_of, provenance_of
from coexec.processors.opencl.fusion.groups import Groups, readers_of, replaced
from coexec.processors.opencl.kernels import attention

MOST_QUERIES = 8
"""Rows of queries; with more of them, products do as well."""
RANK, TURNED = 4, (0, 1, 3, 2)
"""Tensors are (samples, heads, positions, size); keys are turned to be multiplied."""
VERSION = 23
"""The opset that has Attention."""
ATTENTION = OPERATORS["Attention"]


def fuse_attention(region: Region, facts: DeviceFacts) -> Region:
    """``region`` with Attention in the places of what it consists of."""
    found, groups = _Patterns(region), Groups(region)
    made: dict[int, RegionNode] = {}
    for index in range(len(region.nodes)):
        pattern = found.around(index)
        node = None if pattern is None else found.node(pattern)
        if pattern is None or node is None or attention.applies(node.call, facts) is not None:
            continue
        if groups.merge(pattern.indices) is not None:
            made[min(pattern.indices)] = node
    return replaced(region, lambda indices: made[indices[0]], groups)


@dataclass(frozen=True)
class Pattern:
    """Nodes by their indices in order, and the operands by name."""

    indices: tuple[int, ...]
    query: str
    key: str
    value: str
    mask: str
    scale: float


class _Patterns:
    def __init__(self, region: Region) -> None:
        self.region, self.nodes = region, region.nodes
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.outputs}
        self.readers = readers_of(region)

    def around(self, softmax: int) -> Pattern | None:
        """The pattern whose softmax is that node, if there is one."""
        node = self.nodes[softmax]
        if node.call.identifier != "Softmax" or node.call.input(0).rank != RANK:
            return None
        if normalize_axis(int(node.call.attribute("axis", -1)), RANK) != RANK - 1:
            return None
        last = self._only_reader(softmax)
        if last is None or not self._is(last, "MatMul"):
            return None
        weights, value = self.nodes[last].inputs
        if weights != node.outputs[0]:
            return None
        masking, scores, mask = self._masked(node.inputs[0])
        scaling, scores, scale = self._scaled(scores)
        product = self._inner(scores)
        if product is None or not self._is(product, "MatMul"):
            return None
        query, turned = self.nodes[product].inputs
        turning = self._inner(turned)
        if turning is None or not self._turns(turning):
            return None
        key = self.nodes[turning].inputs[0]
        indices = (turning, product, *scaling, *masking, softmax, last)
        phases = {self.nodes[index].provenance.get("phase") for index in indices}
        if len(phases) != 1:
            return None
        return Pattern(tuple(sorted(indices)), query, key, value, mask, scale)

    def node(self, pattern: Pattern) -> RegionNode | None:
        """The pattern as one node; none where tensors do not fit Attention."""
        names = (pattern.query, pattern.key, pattern.value)
        kinds = [self.region.types[name] for name in names]
        if any(kind.rank != RANK for kind in kinds) or kinds[0].shape[2] > MOST_QUERIES:
            return None
        if len({kind.shape[:2] for kind in kinds}) != 1 or kinds[1].shape[2] != kinds[2].shape[2]:
            return None
        masks = (pattern.mask,) if pattern.mask else ()
        if masks and not _fits(self.region.types[masks[0]], kinds[0], kinds[1]):
            return None
        nodes = [self.nodes[index] for index in pattern.indices]
        bare = OpCall(
            ATTENTION.op_type,
            (*kinds, *(self.region.types[name] for name in masks)),
            {"scale": pattern.scale},
            version=VERSION,
            name=name_of(nodes),
            output_count=1,
        )
        call = ATTENTION.typed(bare)
        return RegionNode(call, (*names, *masks), nodes[-1].outputs, provenance_of(nodes))

    def _masked(self, scores: str) -> tuple[tuple[int, ...], str, str]:
        """What adds a mask, what it adds it to, and the mask; nothing where nobody does."""
        index = self._inner(scores)
        if index is None or not self._is(index, "Add"):
            return (), scores, ""
        first, second = self.nodes[index].inputs
        shape = self.region.types[scores].shape
        if self.region.types[first].shape != shape or self._inner(first) is None:
            first, second = second, first
        return (index,), first, second

    def _scaled(self, scores: str) -> tuple[tuple[int, ...], str, float]:
        """What multiplies with or divides by a number, by what, and what it does that to."""
        index = self._inner(scores)
        if index is None or self.nodes[index].call.identifier not in ("Mul", "Div"):
            return (), scores, 1.0
        node = self.nodes[index]
        divides = node.call.op_type == "Div"
        for position in (1,) if divides else (0, 1):
            number = number_of(node.call, position)
            if number:
                return (index,), node.inputs[1 - position], 1 / number if divides else number
        return (), scores, 1.0

    def _inner(self, name: str) -> int | None:
        """The node that makes a tensor which one other node reads, and nobody outside."""
        alone = len(self.readers.get(name, ())) == 1 and name not in self.region.outputs
        return self.producer.get(name) if alone else None

    def _only_reader(self, index: int) -> int | None:
        name = self.nodes[index].outputs[0]
        return self.readers[name][0] if self._inner(name) is not None else None

    def _is(self, index: int, identifier: str) -> bool:
        return self.nodes[index].call.identifier == identifier

    def _turns(self, index: int) -> bool:
        call = self.nodes[index].call
        return self._is(index, "Transpose") and tuple(call.attribute("perm", ())) == TURNED


def _fits(mask: TensorType, query: TensorType, key: TensorType) -> bool:
    """Whether a mask is added to scores as it is, to none of them by broadcasting scores.

    A number for all keys is none: masks of Attention that are short leave keys out.
    """
    scores = (*query.shape[:3], key.shape[2])
    alike = mask.dtype == query.dtype and mask.shape[-1:] == scores[-1:] and mask.rank <= RANK
    return alike and np.broadcast_shapes(mask.shape, scores) == scores
