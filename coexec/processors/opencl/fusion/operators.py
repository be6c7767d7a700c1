"""Declarations of the operators that may stand in a region: ONNX's, coexec's, and fused ones."""

from __future__ import annotations

from coexec.core.types import OpCall
from coexec.ops.opdef import TRAINING, OpDef
from coexec.ops.table import opdef
from coexec.processors.opencl.fusion.activated import (
    ACTIVATED,
    ACTIVATED_GRAD,
    ACTIVATED_JOINT,
    ACTIVATED_JOINT_GRAD,
    ACTIVATED_SUMS,
    activated_of,
)
from coexec.processors.opencl.fusion.biased import BIASED
from coexec.processors.opencl.fusion.casts import CASTS
from coexec.processors.opencl.fusion.chain import CHAIN, FUSED, chain_of
from coexec.processors.opencl.fusion.coded import (
    EXPANDING,
    EXPANDING_WEIGHT,
    KEEPING,
    KEEPING_TAPS,
    coded_of,
)
from coexec.processors.opencl.fusion.finished import FINISHED, finished_of
from coexec.processors.opencl.fusion.integer_matmul import INTEGER_MATMUL, kinds_of
from coexec.processors.opencl.fusion.integer_operators import INTEGERS, layer_of
from coexec.processors.opencl.fusion.unscaled import UNSCALED
from coexec.processors.opencl.kernels.optim import leading

FUSED_OPERATORS = {
    op.identifier: op
    for op in (
        *(CHAIN, ACTIVATED, ACTIVATED_GRAD, ACTIVATED_SUMS, BIASED, FINISHED),
        *(ACTIVATED_JOINT, ACTIVATED_JOINT_GRAD),
        *(KEEPING, KEEPING_TAPS, EXPANDING, EXPANDING_WEIGHT),
        *UNSCALED,
        CASTS,
        *INTEGERS,
        INTEGER_MATMUL,
    )
}

LAYERS = frozenset(op.identifier for op in INTEGERS)
ON_BYTES = LAYERS | {INTEGER_MATMUL.identifier}
UNSCALED_STEPS = frozenset(op.identifier for op in UNSCALED)


def definition(call: OpCall) -> OpDef:
    """The declaration of a call's operator."""
    return FUSED_OPERATORS.get(call.identifier) or opdef(call)


def in_place_pairs(call: OpCall) -> tuple[tuple[int, int], ...]:
    """Pairs (output, input) that may share storage, in the form in which the call is made.

    Optimizer steps declare them for one tensor; of several, each tensor has its own pairs.
    """
    pairs = definition(call).in_place
    if call.domain != TRAINING and call.identifier not in UNSCALED_STEPS:
        return pairs
    first = leading(call)
    groups = 1 + max(output for output, _ in pairs)
    count = len(call.outputs) // groups
    return tuple(
        (output * count + i, first + (operand - first) * count + i)
        for output, operand in pairs
        for i in range(count)
    )


def title(call: OpCall) -> str:
    """How events name a call's operator: a fused one by the operators that it is made of."""
    if call.domain != FUSED:
        return call.identifier
    if call.identifier == FINISHED.identifier:
        own = finished_of(call)
        return f"{title(own.core)}+{title(own.chain)}"
    if call.identifier == BIASED.identifier:
        return "MatMul+Add"
    if call.identifier in (KEEPING.identifier, KEEPING_TAPS.identifier):
        return f"{title(coded_of(call).call)}+CompressBlocks"
    if call.identifier in (EXPANDING.identifier, EXPANDING_WEIGHT.identifier):
        return f"DecompressBlocks+{title(coded_of(call).call)}"
    if call.identifier in LAYERS:
        return "+".join(layer_of(call).kinds)
    if call.identifier == INTEGER_MATMUL.identifier:
        return "+".join(kinds_of(call))
    if call.identifier == CASTS.identifier:
        return "Cast"
    if call.identifier in UNSCALED_STEPS:
        return f"Mul+{TRAINING}::{call.op_type}"
    if call.identifier != CHAIN.identifier:
        return "+".join(dict.fromkeys(activated_of(call).kinds))
    return "+".join(dict.fromkeys(step.call.identifier for step in chain_of(call).steps))
