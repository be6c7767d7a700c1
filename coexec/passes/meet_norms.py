"""Normalisations over the shares of a batch as one operator on each processor.

Statistics of a share, their exchange and the normalisation by what all have in common are kernels
and waits of their own (:mod:`coexec.passes.synchronised_norm`). Where processors can wait for each
other within a kernel, they become one kernel, and so do the sums, their exchange and the gradient
(:mod:`coexec.ops.batch_norm_joint`). What is computed stays the same, but for rounding. That such
nodes need each other can no longer be seen in the graph: they stand in the same order on all of
their processors, and a region that others wait for ends in front of one
(:mod:`coexec.runtime.partition`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.ops.batch_norm import EPSILON, MOMENTUM
from coexec.ops.batch_norm_joint import words_of
from coexec.ops.batch_norm_shares import FLOW_FIRST, JOIN_FIRST
from coexec.ops.builder import MEETING, PHASE
from coexec.ops.node import call_of, type_of
from coexec.ops.opdef import COEXEC
from coexec.passes.insert import Inserter, New, replace_node

LEAST_ELEMENTS = 4
"""Of a plane: kernels that meet others work on vectors."""


@dataclass(frozen=True)
class _Group:
    """One normalisation or gradient: by processor who makes sums of its share, and who reads all.

    ``results`` are the normalisations by the statistics that readers of a forward pass join.
    """

    makers: Mapping[str, ir.Node]
    readers: Mapping[str, ir.Node]
    results: Mapping[str, ir.Node]

    @property
    def words(self) -> int:
        """Words that they need to meet."""
        first = next(iter(self.makers.values()))
        return words_of(len(self.makers), type_of(first.outputs[0]).size)


def meet_norms(graph: ir.Graph, plan: Plan, able: Collection[str]) -> Plan:
    """Let normalisations meet whose processors are all ``able`` to wait for others in a kernel.

    In place, in a graph in execution order; returns the plan of the new graph.
    """
    groups = [
        *_groups(graph, plan, "JoinStatistics", JOIN_FIRST),
        *_groups(graph, plan, "BatchNormalizationFlow", FLOW_FIRST),
    ]
    groups = [group for group in groups if group.makers.keys() <= set(able)]
    if not groups:
        return plan
    return _Meetings(graph, plan, sum(group.words for group in groups)).run(groups)


class _Meetings:
    def __init__(self, graph: ir.Graph, plan: Plan, words: int) -> None:
        self.graph, self.plan = graph, plan
        self.inserter = Inserter(graph)
        self.processors = dict(plan.processors)
        self.words = words
        self.taken = 0

    def run(self, groups: Sequence[_Group]) -> Plan:
        place = self._place(next(iter(groups[0].makers)))
        for group in groups:
            how = {"offset": self.taken, "counts": tuple(map(_samples, group.makers.values()))}
            self.taken += group.words
            for member, name in enumerate(group.makers):
                if group.results:
                    self._normalise(group, name, place, {**how, "member": member})
                else:
                    self._back(group, name, place, {**how, "member": member})
            self.graph.remove([*group.makers.values()], safe=True)
        order = tuple(str(node.name) for node in self.graph)
        return replace(
            self.plan, processors={name: self.processors[name] for name in order}, order=order
        )

    def _place(self, name: str) -> ir.Value:
        """Words where processors meet, 0 at the begin of each run; ``name`` sees to that."""
        shape = self.inserter.builder.constant([self.words], np.dtype(np.int64))
        zero = {"value": np.zeros(1, np.int32)}
        value = self._put(name, self.graph[0], New("ConstantOfShape", [shape], zero, domain=""))[0]
        value.metadata_props[MEETING] = "1"
        return value

    def _normalise(self, group: _Group, name: str, place: ir.Value, how: dict[str, Any]) -> None:
        join, node = group.readers[name], group.results[name]
        how["epsilon"] = float(call_of(node).attribute("epsilon", EPSILON))
        how["momentum"] = float(call_of(join).attribute("momentum", MOMENTUM))
        old = [value for value in join.inputs[:JOIN_FIRST] if value is not None]
        operands = [*node.inputs[:3], place, *old]
        results = 1 + len(join.outputs)
        made = self._put(name, node, New("JointNormalization", operands, how, results))
        replace_node(self.graph, node, made[:1])
        replace_node(self.graph, join, made[1:])

    def _back(self, group: _Group, name: str, place: ir.Value, how: dict[str, Any]) -> None:
        node = group.readers[name]
        call = call_of(node)
        how["count"] = int(call.attributes["count"])
        how["epsilon"] = float(call.attribute("epsilon", EPSILON))
        operands = [*node.inputs[:FLOW_FIRST], place]
        results = len(node.outputs)
        made = self._put(name, node, New("JointNormalizationGrad", operands, how, results))
        replace_node(self.graph, node, made)

    def _put(self, name: str, anchor: ir.Node, new: New) -> tuple[ir.Value, ...]:
        """Outputs of a new node in front of another one, on a processor."""
        made = self.inserter.before(anchor, new)
        node = made[0].producer()
        assert node is not None
        self.processors[str(node.name)] = name
        return made


def _groups(graph: ir.Graph, plan: Plan, op_type: str, first: int) -> Iterator[_Group]:
    """Those that can meet: each processor that makes sums reads those of all, and nobody else."""
    found: dict[tuple[ir.Value | None, ...], dict[str, ir.Node]] = {}
    for node in graph:
        if node.op_type == op_type and node.domain == COEXEC:
            readers = found.setdefault(tuple(node.inputs[first:]), {})
            readers[plan.processors[str(node.name)]] = node
    for sums, readers in found.items():
        makers = {plan.processors[str(node.name)]: node for node in _makers(sums)}
        read = {node for value in sums if value is not None for node in value.consumers()}
        whole = makers.keys() == readers.keys() and read == set(readers.values())
        if not whole or len(sums) != 2 * len(makers) or not all(map(_fits, makers.values())):
            continue
        results = {}
        if op_type == "JoinStatistics":
            results = {name: _result(makers[name], node) for name, node in readers.items()}
        normalised = {name: node for name, node in results.items() if node is not None}
        if len(normalised) == len(results):
            yield _Group(makers, readers, normalised)


def _makers(sums: Sequence[ir.Value | None]) -> Iterator[ir.Node]:
    """The nodes that make pairs of sums."""
    for value in sums[::2]:
        maker = None if value is None else value.producer()
        if maker is not None:
            yield maker


def _result(maker: ir.Node, join: ir.Node) -> ir.Node | None:
    """What normalises the tensor whose statistics ``maker`` takes by those of the batch.

    It may be normalised once more later, by the same statistics, where that is recomputed.
    """
    phase = join.metadata_props.get(PHASE)
    for node in join.outputs[0].consumers():
        same = node.inputs[0] is maker.inputs[0] and node.metadata_props.get(PHASE) == phase
        if node.op_type == "BatchNormalization" and same:
            return node
    return None


def _fits(maker: ir.Node) -> bool:
    kinds = [type_of(value) for value in (*maker.inputs, *maker.outputs) if value is not None]
    x = kinds[0]
    planes = x.shape[0] * x.shape[1]
    return x.size >= LEAST_ELEMENTS * planes > 0 and all(k.dtype == np.float32 for k in kinds)


def _samples(maker: ir.Node) -> int:
    x = maker.inputs[0]
    assert x is not None  # what sums are made of
    return type_of(x).shape[0]
