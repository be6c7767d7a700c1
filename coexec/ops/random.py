"""Dropout and the random masks it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import BOOL, infer_float, widen
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.philox import bernoulli, keep_threshold
from coexec.ops.term import Term, grad_term


def seed_of(call: OpCall) -> int:
    """The seed; 0 where none is given, so that every run is reproducible."""
    return int(call.attribute("seed", 0))


def ratio_of(call: OpCall) -> float:
    """Share of elements that a Dropout zeroes (operand 1, known before running; default 0.5)."""
    if not call.has_input(1):
        return 0.5
    value = call.constant(1)
    if value is None:
        raise ValueError("Dropout needs the value of its ratio before running")
    ratio = float(np.asarray(value).reshape(()))
    if not 0.0 <= ratio < 1.0:
        raise ValueError(f"Dropout: ratio must be in [0, 1), got {ratio}")
    return ratio


def in_training(call: OpCall) -> bool:
    """Whether a Dropout drops anything (operand 2, known before running; default no)."""
    if not call.has_input(2):
        return False
    value = call.constant(2)
    if value is None:
        raise ValueError("Dropout needs the value of its training_mode before running")
    return bool(np.asarray(value).reshape(()))


def infer_dropout(call: OpCall) -> Sequence[TensorType]:
    ratio_of(call)
    in_training(call)
    (kind,) = infer_float(call)
    return (kind, TensorType(kind.shape, BOOL))


def dropout(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """mask * x / (1 - ratio); the identity outside training."""
    x = np.asarray(operands[0])
    ratio = ratio_of(call)
    if not in_training(call) or ratio == 0:
        return (x, np.ones(x.shape, np.bool_))
    mask = bernoulli(x.size, ratio, 0, seed_of(call)).reshape(x.shape)
    kept = np.where(mask, widen(x) * (1 / (1 - ratio)), 0)
    return (np.asarray(kept).astype(x.dtype), mask)


def dropout_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Through the kept elements; a mask that is not an output of the node is drawn again."""
    rest = (None,) * (len(g.inputs) - 1)
    ratio = ratio_of(g.call)
    if not in_training(g.call) or ratio == 0:
        return (g.grad(), *rest)
    if g.call.has_output(1):
        mask = Term(g, g.outputs[1])
    else:
        attributes = {"shape": g.call.input(0).shape, "ratio": ratio, "seed": seed_of(g.call)}
        counter = g.constant(np.array(0, np.int64), "int64")
        mask = Term(g, g.op("BernoulliMask", [counter], attributes, domain=COEXEC))
    return (mask.where(grad_term(g) * (1 / (1 - ratio)), 0).value, *rest)


def mask_shape(call: OpCall) -> tuple[int, ...]:
    shape = call.attribute("shape")
    if shape is None:
        raise ValueError("BernoulliMask: attribute shape is missing")
    return tuple(int(d) for d in shape)


def mask_ratio(call: OpCall) -> float:
    return float(call.attribute("ratio", 0.5))


def infer_mask(call: OpCall) -> Sequence[TensorType]:
    keep_threshold(mask_ratio(call))
    counter = call.input(0)
    if counter.size != 1 or counter.dtype != np.int64:
        raise ValueError(f"BernoulliMask: the counter must be one int64, got {counter}")
    return (TensorType(mask_shape(call), BOOL),)


def bernoulli_mask(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    shape = mask_shape(call)
    counter = int(np.asarray(operands[0]).reshape(()))
    size = int(np.prod(shape, dtype=np.int64))
    return (bernoulli(size, mask_ratio(call), counter, seed_of(call)).reshape(shape),)


def mask_work(call: OpCall) -> Work:
    """About 25 integer operations per word."""
    return Work(25 * call.output(0).size, call.output(0).nbytes)


def dropout_examples() -> tuple[Example, ...]:
    on, off = np.array(True), np.array(False)
    found = []
    for index, shape in enumerate(((3, 5), (67,), (2, 3, 7))):
        ratio = np.array((0.25, 0.5, 0.8)[index], np.float32)
        found.append(Example((Sample(shape), ratio, on), {"seed": 7 + index}, outputs=2))
        found.append(Example((Sample(shape), ratio, on), {"seed": 7 + index}))
        found.append(Example((Sample(shape), ratio, off), outputs=2))
    found.append(Example((Sample((3, 5)),)))
    found.append(Example((Sample((3, 5)), np.array(0.0, np.float32), on), outputs=2))
    return tuple(found)


OPS = (
    OpDef(
        "Dropout",
        infer_dropout,
        dropout,
        gradient=dropout_gradient,
        examples=dropout_examples(),
        value_inputs=(1, 2),
        in_place=((0, 0),),
        random=True,
    ),
    OpDef(
        "BernoulliMask",
        infer_mask,
        bernoulli_mask,
        domain=COEXEC,
        not_differentiable="the result is random and boolean",
        work=mask_work,
        examples=tuple(
            Example(
                (Sample(counter_shape, "int64", 0, 2**40),),
                {"shape": shape, "ratio": ratio, "seed": seed},
                gradient=False,
            )
            for counter_shape, shape, ratio, seed in (
                ((), (3, 5), 0.5, 0),
                ((1,), (1037,), 0.1, 1234567890123),
                ((), (2, 3, 4, 5), 0.9, -1),
                ((), (8,), 0.0, 5),
                ((), (8,), 1.0, 5),
            )
        ),
        random=True,
    ),
)
