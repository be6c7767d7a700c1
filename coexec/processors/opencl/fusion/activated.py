"""Batch normalisation with the activation behind it, and its gradient with the one in front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.batch_norm_joint import OLD
from coexec.ops.opdef import OpDef, Work
from coexec.ops.table import OPERATORS, opdef
from coexec.processors.opencl.fusion.chain import FUSED


@dataclass(frozen=True)
class Bounds:
    """The activation y = min(max(x, low), high); an absent bound is infinite. Relu: low = 0."""

    low: float | None = None
    high: float | None = None

    def apply(self, x: Array) -> Array:
        """The activation in NumPy."""
        return np.asarray(np.clip(x, self.low, self.high)).astype(x.dtype)

    def passes(self, y: Array) -> Array:
        """Where the gradient passes, by the activation's result."""
        above = True if self.low is None else y > self.low
        below = True if self.high is None else y < self.high
        return np.asarray(np.logical_and(above, below))


@dataclass(frozen=True)
class Activated:
    """The normalisation (or its gradient), the activation, and the work of the nodes beside it.

    ``residual``: forward, the last operand is added before the activation. ``kinds`` are the
    operators that were fused.
    """

    call: OpCall
    bounds: Bounds
    kinds: tuple[str, ...]
    flop: int
    residual: bool = False


def activated_of(call: OpCall) -> Activated:
    """What a fused call consists of."""
    found = call.attributes["activated"]
    assert isinstance(found, Activated)
    return found


def infer(call: OpCall) -> Sequence[TensorType]:
    """The results of the normalisation."""
    own = activated_of(call).call
    return [own.output(i) for i in range(len(own.outputs))]


def infer_grad(call: OpCall) -> Sequence[TensorType]:
    """The results of the gradient, then the gradient behind the activation."""
    return [*infer(call), call.input(2)]


def normalise(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Operands of the normalisation, then the residual if there is one."""
    own = activated_of(call)
    count = len(own.call.inputs)
    y, *statistics = OPERATORS[own.call.identifier].reference(own.call, operands[:count])
    if own.residual:
        y = y + operands[count]
    return (own.bounds.apply(y), *statistics)


def gradient(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Operands x, scale, dy, y; results dx, dscale, dbias, dy behind the activation.

    Of sums over a share the second operand is the mean, and the results are the two sums and dy.
    A gradient that meets others has its own operands between dy and y.
    """
    own = activated_of(call)
    x, vector, dy, *more, y = operands
    masked = np.where(own.bounds.passes(np.asarray(y)), dy, 0).astype(dy.dtype)
    results = OPERATORS[own.call.identifier].reference(own.call, (x, vector, masked, *more))
    return (*results, masked)


def work(call: OpCall) -> Work:
    """Arithmetic of all parts; operands are read once, results written once."""
    own = activated_of(call)
    kinds = (*call.inputs, *call.outputs)
    moved = sum(kind.nbytes for kind in kinds if kind is not None)
    return Work(opdef(own.call).work(own.call).flop + own.flop, moved)


MADE_LATE = "made after differentiation"

ACTIVATED = OpDef(
    "BatchNormalization",
    infer,
    normalise,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
    in_place=((0, 5), (0, 0), (1, 3), (2, 4)),
)
ACTIVATED_GRAD = OpDef(
    "BatchNormalizationGrad",
    infer_grad,
    gradient,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
    # The kernels fetch an element of every operand before they store a result in its place.
    in_place=((0, 2), (0, 0), (0, 3), (3, 2), (3, 0), (3, 3)),
)
ACTIVATED_SUMS = OpDef(
    "BatchNormalizationSums",
    infer_grad,
    gradient,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
    # What two vectors share is masked twice, which changes nothing as long as y is there.
    in_place=((2, 2),),
)
ACTIVATED_JOINT = OpDef(
    "JointNormalization",
    infer,
    normalise,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
    in_place=((0, 0), (3, OLD), (4, OLD + 1)),
)
ACTIVATED_JOINT_GRAD = OpDef(
    "JointNormalizationGrad",
    infer_grad,
    gradient,
    domain=FUSED,
    not_differentiable=MADE_LATE,
    work=work,
    in_place=((0, 2), (0, 0), (0, 6), (3, 2), (3, 0), (3, 6)),
)
