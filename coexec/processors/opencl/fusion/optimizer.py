"""Optimizer steps on one tensor each become steps on as many as one kernel takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coexec.core.types import OpCall, Region, RegionNode
from coexec.ops.opdef import TRAINING
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.elementwise import name_of, provenance_of
from coexec.processors.opencl.fusion.groups import Groups, replaced
from coexec.processors.opencl.kernels.optim import (
    STATES,
    leading,
    tensor_count,
    tensors_per_launch,
)

BACKWARD = "backward"


def batch_optimizer(region: Region, _facts: DeviceFacts) -> Region:
    """``region`` with optimizer steps of equal attributes, types and operands in batches.

    Steps that stand between gradients stay alone: they are there to let gradients go early.
    """
    groups = Groups(region)
    open_batches: dict[Any, int] = {}
    for index, node in enumerate(region.nodes):
        if node.provenance.get("phase") == BACKWARD:
            open_batches.clear()
        if not _is_single(node.call):
            continue
        key = _key(node)
        batch = open_batches.get(key)
        full = batch is not None and len(groups.indices(batch)) >= tensors_per_launch(
            node.call.op_type
        )
        merged = None if batch is None or full else groups.merge((batch, index))
        open_batches[key] = index if merged is None else merged
    return replaced(region, lambda indices: _batch([region.nodes[i] for i in indices]), groups)


def _is_single(call: OpCall) -> bool:
    known = call.domain in (TRAINING, FUSED) and call.op_type in STATES
    return known and tensor_count(call) == 1 and call.input(leading(call)).size > 0


def _key(node: RegionNode) -> tuple[Any, ...]:
    """What steps of one batch have in common: rate and count (and factor) are the same tensors."""
    call, first = node.call, leading(node.call)
    present = tuple(bool(name) for name in node.outputs)
    types = (call.input(first).dtype, call.input(first + 1).dtype)
    kinds = (call.identifier, *types, present, node.inputs[:first])
    return (*kinds, *sorted(call.attributes.items()))


def _batch(nodes: list[RegionNode]) -> RegionNode:
    """The step on all tensors: operands and results by role, the tensors of each role in order."""
    first = nodes[0]
    begin = leading(first.call)
    roles, results = range(begin, len(first.inputs)), range(len(first.outputs))
    outputs = tuple(node.outputs[role] for role in results for node in nodes)
    call = replace(
        first.call,
        name=name_of(nodes),
        inputs=(
            *first.call.inputs[:begin],
            *(node.call.inputs[role] for role in roles for node in nodes),
        ),
        outputs=tuple(node.call.outputs[role] for role in results for node in nodes),
        constants={},
        output_count=len(outputs),
    )
    names = (*first.inputs[:begin], *(node.inputs[role] for role in roles for node in nodes))
    return RegionNode(call, names, outputs, provenance_of(nodes))
