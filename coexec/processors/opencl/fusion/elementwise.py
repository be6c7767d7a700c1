"""Neighbouring elementwise operators of one shape become chains, each one kernel.

An operator joins the groups of its producers where that leaves no group waiting for itself (the
gradient of a residual block does not join its forward pass), within the limits of one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain as joined

import numpy as np

from coexec.core.types import OpCall, Region, RegionNode, TensorType
from coexec.processors.opencl.broadcast import broadcast_loops
from coexec.processors.opencl.family import DeviceFacts, refuse_types
from coexec.processors.opencl.fusion.chain import (
    CHAIN,
    FUSED,
    MAX_OPERANDS,
    MAX_RESULTS,
    Chain,
    ChainStep,
    Source,
)
from coexec.processors.opencl.fusion.expressions import can_stand_in_chain, number_type_of
from coexec.processors.opencl.fusion.groups import Groups, readers_of, replaced
from coexec.processors.opencl.kernels.binary import LINE_RANK

MAX_STEPS, MAX_NUMBERS = 32, 8
SHORTEST_LINE = 8
"""Elements of a line below which broadcasting costs more than a pass through memory saves."""
LITTLE = 1 << 16
"""Bytes that may wait for a chain to be complete, whatever that saves."""
NAMED = 3
"""Nodes that a chain's name lists; of more it gives the number."""


def fuse_elementwise(region: Region, facts: DeviceFacts) -> Region:
    """``region`` with chains in the places of the operators that they consist of."""
    fusion = _Fusion(region, facts)
    for index in range(len(region.nodes)):
        fusion.join_producers(index)
    return replaced(region, fusion.node, fusion.groups)


def chain_node(region: Region, index: int, facts: DeviceFacts) -> RegionNode:
    """The chain of one node, which can stand in one."""
    alone = replace(region, nodes=(region.nodes[index],))
    return _Fusion(alone, facts).node([0])


class _Fusion:
    def __init__(self, region: Region, facts: DeviceFacts) -> None:
        self.region = region
        self.nodes = region.nodes
        self.groups = Groups(region)
        self.readers = readers_of(region)
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.outputs}
        self.outputs = frozenset(region.outputs)
        self.fit = [self._can(node.call, facts) for node in self.nodes]

    def _can(self, call: OpCall, facts: DeviceFacts) -> bool:
        return can_stand_in_chain(call) and not refuse_types((*call.inputs, *call.outputs), facts)

    def join_producers(self, index: int) -> None:
        """Unite the group of a node with those of the producers that it may share a kernel with."""
        if not self.fit[index]:
            return
        for name in self.nodes[index].inputs:
            other = self.producer.get(name)
            if other is None or not self.fit[other]:
                continue
            pair = {self.groups.of[index], self.groups.of[other]}
            if (
                len(pair) == 2
                and self._alike(index, other)
                and self._within_limits(pair)
                and not self._terms_wait(other, index)
            ):
                self.groups.merge(pair)

    def _terms_wait(self, other: int, index: int) -> bool:
        """Whether the terms of one sum would wait for another, in more memory than their sum.

        So do sums of gradients over the parts of a batch: their first term is made long before the
        last.
        """
        first = self.groups.indices(self.groups.of[other])
        own = {*first, *self.groups.indices(self.groups.of[index])}
        sums = all(self.nodes[i].call.identifier == "Add" for i in own)
        if not sums or own.issuperset(range(first[-1], index)):
            return False
        types, readers = self.region.types, self.readers
        dying = (
            name
            for name in self.operands(first)[0]
            if name in self.producer and own.issuperset(readers[name])
        )
        results = (self.nodes[i].outputs[0] for i in first)
        inside = (name for name in results if own.issuperset(readers.get(name, (-1,))))
        held = sum(types[name].nbytes for name in dying)
        return held > sum(types[name].nbytes for name in inside) + LITTLE

    def _alike(self, index: int, other: int) -> bool:
        """One shape and one phase: events tell of a phase each."""
        a, b = self.nodes[index], self.nodes[other]
        return a.call.output(0).shape == b.call.output(0).shape and (
            a.provenance.get("phase") == b.provenance.get("phase")
        )

    def _within_limits(self, pair: set[int]) -> bool:
        indices = sorted(joined.from_iterable(map(self.groups.indices, pair)))
        kinds = {number_type_of(self.nodes[i].call) for i in indices} - {None}
        operands, numbers = self.operands(indices)
        return (
            len(kinds) == 1
            and len(indices) <= MAX_STEPS
            and len(operands) <= MAX_OPERANDS
            and len(numbers) <= MAX_NUMBERS
            and len(self.results(indices)) <= MAX_RESULTS
            and self._broadcasts_well(self.nodes[indices[0]].call.output(0), operands)
        )

    def _broadcasts_well(self, result: TensorType, operands: Mapping[str, int]) -> bool:
        shapes = [self.region.types[name].shape for name in operands]
        loops = broadcast_loops(result.shape, shapes)
        if all(self.region.types[name].size in (1, result.size) for name in operands):
            return True
        return len(loops.dims) <= LINE_RANK and loops.dims[-1] >= SHORTEST_LINE

    def operands(self, indices: list[int]) -> tuple[dict[str, int], dict[float, int]]:
        """Tensors and numbers that a group reads, each with its position."""
        inside = {self.nodes[i].outputs[0] for i in indices}
        tensors: dict[str, int] = {}
        numbers: dict[float, int] = {}
        for index in indices:
            node = self.nodes[index]
            for position, name in enumerate(node.inputs):
                value = number_of(node.call, position)
                if value is not None:
                    numbers.setdefault(value, len(numbers))
                elif name and name not in inside:
                    tensors.setdefault(name, len(tensors))
        return tensors, numbers

    def results(self, indices: list[int]) -> list[int]:
        """Positions in a group of the nodes whose results are read elsewhere, or else its last."""
        own = set(indices)
        found = []
        for position, index in enumerate(indices):
            name = self.nodes[index].outputs[0]
            if name in self.outputs or not own.issuperset(self.readers.get(name, ())):
                found.append(position)
        return found or [len(indices) - 1]

    def node(self, indices: list[int]) -> RegionNode:
        """The chain of a group."""
        nodes = [self.nodes[index] for index in indices]
        tensors, numbers = self.operands(indices)
        results = self.results(indices)
        places = {node.outputs[0]: i for i, node in enumerate(nodes)}

        def source(node: RegionNode, position: int) -> Source | None:
            name = node.inputs[position]
            value = number_of(node.call, position)
            if value is not None:
                return Source("number", numbers[value])
            if not name:
                return None
            if name in places:
                return Source("step", places[name])
            return Source("operand", tensors[name])

        steps = tuple(
            ChainStep(
                replace(node.call, name=""),
                tuple(source(node, position) for position in range(len(node.inputs))),
            )
            for node in nodes
        )
        outputs = tuple(nodes[i].outputs[0] for i in results)
        call = OpCall(
            CHAIN.op_type,
            tuple(self.region.types[name] for name in tensors),
            {"chain": Chain(steps, tuple(results), tuple(numbers))},
            tuple(self.region.types[name] for name in outputs),
            domain=FUSED,
            name=name_of(nodes),
            output_count=len(outputs),
        )
        return RegionNode(call, tuple(tensors), outputs, provenance_of(nodes))


def number_of(call: OpCall, position: int) -> float | None:
    """A floating-point operand of one element whose value is known: it travels as an argument.

    Not one that is no number or a negative zero: neither is told from others by its value.
    """
    value = call.constant(position)
    if value is None or value.size != 1 or value.dtype.kind != "f":
        return None
    number = float(np.asarray(value).reshape(()))
    return None if np.isnan(number) or (number == 0 and np.signbit(number)) else number


def name_of(nodes: list[RegionNode]) -> str:
    """``Relu_3+Add_7``; of many nodes the first and the last, and how many there are."""
    names = [node.call.name or node.call.op_type for node in nodes]
    if len(names) <= NAMED:
        return "+".join(names)
    return f"{names[0]}+..+{names[-1]} ({len(names)} nodes)"


def provenance_of(nodes: list[RegionNode]) -> dict[str, str]:
    """The last node's, and all nodes' names."""
    names = ",".join(node.call.name or node.call.op_type for node in nodes)
    return {**nodes[-1].provenance, "nodes": names}
