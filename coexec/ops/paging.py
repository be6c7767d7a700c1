"""Tensors that leave the device for a while: their way out, back, and the waits for both.

All values are those of operand 0: where nobody moves tensors beside computing, nothing moves. A
page is made by ``PageOut``, read by ``PageIn`` and lies outside of the device's memory. Transfers
take their time: behind ``PageWait(page, tensor)`` the tensor may go, behind ``PageWait(copy)`` the
copy is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from coexec.core.types import OpCall, TensorType
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample
from coexec.ops.views import no_work, view_reference

OUT, IN, WAIT = "PageOut", "PageIn", "PageWait"
PREDICTED = "us"
"""Attribute of a wait: microseconds that a step is predicted to lose to it."""
NO_GRADIENT = "made after differentiation"


def infer_same(call: OpCall) -> Sequence[TensorType]:
    """The type of operand 0."""
    return (call.input(0),)


def is_paging(call: OpCall) -> bool:
    """Whether a call moves a tensor or waits for one that moves."""
    return call.domain == COEXEC and call.op_type in (OUT, IN, WAIT)


def moves(call: OpCall) -> bool:
    """Whether a call's result lies elsewhere than its operand, where tensors are paged."""
    return is_paging(call) and call.op_type != WAIT


def _op(op_type: str, *examples: Example) -> OpDef:
    return OpDef(
        op_type,
        infer_same,
        view_reference,
        domain=COEXEC,
        not_differentiable=NO_GRADIENT,
        work=no_work,
        examples=examples,
        view=True,
    )


OPS = (
    _op(OUT, Example((Sample((3, 5)),), gradient=False)),
    _op(IN, Example((Sample((3, 5)),), gradient=False)),
    _op(
        WAIT,
        Example((Sample((3, 5)),), gradient=False),
        Example((Sample((2, 7)), Sample((2, 7))), {PREDICTED: 1.5}, gradient=False),
    ),
)
