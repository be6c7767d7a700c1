"""Optimizer steps on gradients as training in float16 leaves them: scaled, and in float16.

The step on one tensor takes in the conversion of its gradient and the multiplication by one number
that stand in front of it, so that a gradient is read once, in 16 bits. Operands are those of ONNX's
step with that number behind the count of updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.ops.opdef import TRAINING, OpDef, Work
from coexec.ops.optim import step_work
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.family import HALF, DeviceFacts
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.elementwise import name_of, provenance_of
from coexec.processors.opencl.fusion.groups import readers_of
from coexec.processors.opencl.kernels.optim import STATES, leading, tensor_count

SINGLE = np.dtype(np.float32)
FLOP = {"Momentum": 8, "Adam": 16, "Adagrad": 10}
"""Of each element: those of the step and a multiplication."""


def plain(call: OpCall) -> OpCall:
    """The step on gradients that are converted and multiplied already."""
    count, first = tensor_count(call), leading(call)
    tensors = call.inputs[first : first + count]
    inputs = (*call.inputs[:2], *tensors, *tensors, *call.inputs[first + 2 * count :])
    return replace(call, domain=TRAINING, inputs=inputs, constants={})


def infer(call: OpCall) -> Sequence[TensorType]:
    """The types of parameters and states."""
    own = plain(call)
    return OPERATORS[own.identifier].infer(own)


def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Convert, multiply, step."""
    own = plain(call)
    count, first = tensor_count(call), leading(call)
    factor = np.asarray(operands[2]).reshape(())
    tensors = operands[first : first + count]
    flows = operands[first + count : first + 2 * count]
    scaled = [np.asarray(flow).astype(factor.dtype) * factor for flow in flows]
    rest = operands[first + 2 * count :]
    return OPERATORS[own.identifier].reference(own, (*operands[:2], *tensors, *scaled, *rest))


def work(call: OpCall) -> Work:
    """A multiplication more than the step for each element."""
    return step_work(FLOP[call.op_type])(call)


UNSCALED = tuple(
    OpDef(
        name,
        infer,
        reference,
        domain=FUSED,
        not_differentiable="made after differentiation",
        work=work,
        in_place=tuple(
            (result, operand + 1) for result, operand in OPERATORS[f"{TRAINING}::{name}"].in_place
        ),
    )
    for name in STATES
)


def take_in_scales(region: Region, _facts: DeviceFacts) -> Region:
    """``region`` with conversions and factors of gradients inside of the steps behind them."""
    producers = _Producers(region)
    made: dict[int, RegionNode] = {}
    gone: set[int] = set()
    for index, node in enumerate(region.nodes):
        if not _is_step(node.call):
            continue
        product = producers.alone(node.inputs[3], "Mul", node)
        found = None if product is None else _factor_of(region.nodes[product])
        if product is None or found is None:
            continue
        flow, factor = found
        taken = [product]
        conversion = producers.alone(flow, "Cast", node)
        if conversion is not None and region.nodes[conversion].call.input(0).dtype == HALF:
            taken.insert(0, conversion)
            flow = region.nodes[conversion].inputs[0]
        made[index] = _unscaled(region, [region.nodes[i] for i in (*taken, index)], flow, factor)
        gone.update(taken)
    nodes = (made.get(i, node) for i, node in enumerate(region.nodes) if i not in gone)
    return replace(region, nodes=tuple(nodes)) if made else region


class _Producers:
    """Who makes the tensors of a region, if it is there for one reader."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.readers = readers_of(region)
        self.of = {name: i for i, node in enumerate(region.nodes) for name in node.outputs if name}

    def alone(self, name: str, op_type: str, reader: RegionNode) -> int | None:
        """The node of this operator whose result the reader alone reads, in its own phase."""
        index = self.of.get(name)
        if index is None or name in self.region.outputs or len(self.readers[name]) > 1:
            return None
        node = self.region.nodes[index]
        same = node.provenance.get("phase") == reader.provenance.get("phase")
        return index if same and node.call.identifier == op_type else None


def _is_step(call: OpCall) -> bool:
    known = call.domain == TRAINING and call.op_type in STATES
    return known and tensor_count(call) == 1 and call.input(2).dtype == SINGLE


def _factor_of(product: RegionNode) -> tuple[str, str] | None:
    """Of a tensor times one number the two operands, in this order."""
    call = product.call
    for one, other in ((0, 1), (1, 0)):
        if call.input(one) == call.output(0) and call.input(other).size == 1:
            return product.inputs[one], product.inputs[other]
    return None


def _unscaled(region: Region, nodes: list[RegionNode], flow: str, factor: str) -> RegionNode:
    """All of ``nodes``, the last of which is the step, as one."""
    step = nodes[-1]
    call, names = step.call, step.inputs
    inputs = (*names[:2], factor, names[2], flow, *names[4:])
    fused = replace(
        call,
        domain=FUSED,
        name=name_of(nodes),
        inputs=tuple(region.types[name] for name in inputs),
        constants={},
    )
    return RegionNode(fused, inputs, step.outputs, provenance_of(nodes))
