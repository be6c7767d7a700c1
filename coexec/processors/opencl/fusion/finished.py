"""A product or a convolution with the elementwise operators behind it, which finish its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import OpDef, Work
from coexec.ops.table import opdef
from coexec.processors.opencl.fusion import chain
from coexec.processors.opencl.fusion.biased import BIASED
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.integer_matmul import INTEGER_MATMUL


@dataclass(frozen=True)
class Finished:
    """``chain`` is applied to the result of ``core``, which is its operand ``place``.

    Operands of the fused call: those of ``core``, then those of ``chain`` without that one.
    """

    core: OpCall
    chain: OpCall
    place: int


def finished_of(call: OpCall) -> Finished:
    """What a fused call consists of."""
    found = call.attributes["finished"]
    assert isinstance(found, Finished)
    return found


OWN = {op.identifier: op for op in (BIASED, INTEGER_MATMUL)}
"""Products that are no operators of a model."""


def core_definition(core: OpCall) -> OpDef:
    """The declaration of a product or a convolution."""
    return OWN.get(core.identifier) or opdef(core)


def infer(call: OpCall) -> Sequence[TensorType]:
    """The type of the finished result."""
    return chain.infer(finished_of(call).chain)


def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """One after the other in NumPy."""
    own = finished_of(call)
    count = len(own.core.inputs)
    (result,) = core_definition(own.core).reference(own.core, operands[:count])
    rest = list(operands[count:])
    return chain.reference(own.chain, [*rest[: own.place], result, *rest[own.place :]])


def work(call: OpCall) -> Work:
    """Arithmetic of both; operands are read once, the result is written once."""
    own = finished_of(call)
    kinds = (*call.inputs, *call.outputs)
    flop = core_definition(own.core).work(own.core).flop + chain.work(own.chain).flop
    return Work(flop, sum(kind.nbytes for kind in kinds if kind is not None))


FINISHED = OpDef(
    "Finished",
    infer,
    reference,
    domain=FUSED,
    not_differentiable="made after differentiation",
    work=work,
)
