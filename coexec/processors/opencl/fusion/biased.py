"""A product of matrices with a vector added to each of its rows: a linear layer of any rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coexec.core.types import Array, OpCall
from coexec.ops.matmul import infer_matmul, matmul, matmul_work
from coexec.ops.opdef import OpDef, Work
from coexec.processors.opencl.fusion.chain import FUSED


def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Operands A and B of MatMul, then the vector."""
    a, b, bias = operands
    (product,) = matmul(call, (a, b))
    return ((product + bias).astype(product.dtype),)


def work(call: OpCall) -> Work:
    """The product's, and an addition for each element of the result."""
    own = matmul_work(call)
    return Work(own.flop + call.output(0).size, own.bytes)


BIASED = OpDef(
    "BiasedMatMul",
    infer_matmul,
    reference,
    domain=FUSED,
    not_differentiable="made after differentiation",
    work=work,
)
