"""Conversions of many small tensors to one type become one kernel.

Training in float16 converts every bias and every scale in each step: a launch for each would take
longer than what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.ops.opdef import OpDef, Work
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.elementwise import name_of, provenance_of

MOST_BYTES = 64 << 10
"""Results larger than this wait for their reader: converted early they would take memory."""
MOST_TENSORS = 32
"""In one launch, whose arguments take at most 1024 bytes on every device."""
FLOATS = frozenset(map(np.dtype, (np.float16, np.float32)))


def infer(call: OpCall) -> Sequence[TensorType]:
    """The operands' shapes in the type that all results have."""
    target: np.dtype[Any] = call.attributes["dtype"]
    return tuple(replace(call.input(i), dtype=target) for i in range(len(call.inputs)))


def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Each operand, rounded to nearest."""
    return tuple(np.asarray(each).astype(call.attributes["dtype"]) for each in operands)


def work(call: OpCall) -> Work:
    """Operands are read once, results written once."""
    kinds = (*call.inputs, *call.outputs)
    return Work(0, sum(kind.nbytes for kind in kinds if kind is not None))


CASTS = OpDef(
    "Casts",
    infer,
    reference,
    domain=FUSED,
    not_differentiable="made after differentiation",
    work=work,
)


def batch_casts(region: Region, _facts: DeviceFacts) -> Region:
    """``region`` with conversions of small tensors that it is given in batches.

    A batch stands where its first conversion stood: what a region is given is there from its start.
    """
    given = frozenset(region.inputs)
    batches: list[list[int]] = []
    latest: dict[Any, list[int]] = {}
    for index, node in enumerate(region.nodes):
        if not _is_small(node, given):
            continue
        key = (node.call.input(0).dtype, node.provenance.get("phase"))
        if len(latest.get(key, range(MOST_TENSORS))) >= MOST_TENSORS:
            latest[key] = []
            batches.append(latest[key])
        latest[key].append(index)
    several = [batch for batch in batches if len(batch) > 1]
    if not several:
        return region
    made = {batch[0]: _batch([region.nodes[i] for i in batch]) for batch in several}
    gone = {index for batch in several for index in batch[1:]}
    nodes = (made.get(i, node) for i, node in enumerate(region.nodes) if i not in gone)
    return replace(region, nodes=tuple(nodes))


def _is_small(node: RegionNode, given: frozenset[str]) -> bool:
    call = node.call
    if call.identifier != "Cast" or node.inputs[0] not in given:
        return False
    kinds = {call.input(0).dtype, call.output(0).dtype}
    return kinds == FLOATS and 0 < call.output(0).nbytes <= MOST_BYTES


def _batch(nodes: list[RegionNode]) -> RegionNode:
    """All conversions as one node."""
    names = tuple(node.outputs[0] for node in nodes)
    call = OpCall(
        CASTS.op_type,
        tuple(node.call.input(0) for node in nodes),
        {"dtype": nodes[0].call.output(0).dtype},
        tuple(node.call.output(0) for node in nodes),
        domain=FUSED,
        name=name_of(nodes),
        output_count=len(nodes),
    )
    return RegionNode(call, tuple(n.inputs[0] for n in nodes), names, provenance_of(nodes))
