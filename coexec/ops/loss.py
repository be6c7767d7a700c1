"""Losses on class labels: cross-entropy of softmax, negative log likelihood.

Scores are (N, C) or (N, C, d1, ...), labels (N) or (N, d1, ...); C is the axis of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float, widen
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work, streaming_work
from coexec.ops.softmax import log_softmax_of
from coexec.ops.term import Term, grad_term, input_term

REDUCTIONS = ("none", "sum", "mean")


def reduction_of(call: OpCall) -> str:
    """``none``, ``sum`` or ``mean``; ``ValueError`` for anything else."""
    found = str(call.attribute("reduction", "mean"))
    if found not in REDUCTIONS:
        raise ValueError(f"{call.identifier}: reduction must be one of {REDUCTIONS}, got {found!r}")
    return found


def ignored_label(call: OpCall) -> int | None:
    value = call.attribute("ignore_index")
    return None if value is None else int(value)


def check_operands(call: OpCall, scores: int) -> None:
    """Scores at input ``scores``, then labels and optional weights, fit together."""
    x, labels = call.input(scores), call.input(scores + 1)
    if not is_float(x.dtype) or labels.dtype.kind not in "iu":
        raise ValueError(f"{call.identifier}: needs float scores and integer labels")
    if x.rank < 2 or labels.shape != (x.shape[0], *x.shape[2:]):
        raise ValueError(f"{call.identifier}: labels {labels} do not fit scores {x}")
    if call.has_input(scores + 2) and call.input(scores + 2).shape != (x.shape[1],):
        weights = call.input(scores + 2)
        raise ValueError(f"{call.identifier}: weights {weights} for {x.shape[1]} classes")


def infer_loss(call: OpCall) -> Sequence[TensorType]:
    """The loss (a scalar, or like the labels) and the log probabilities."""
    check_operands(call, 0)
    x, labels = call.input(0), call.input(1)
    shape = labels.shape if reduction_of(call) == "none" else ()
    return (x.with_shape(shape), x)


def label_weights(call: OpCall, labels: Array, weights: Array | None, classes: int) -> Array:
    """Weight of each label: its class's, 1 without weights, 0 where ignored (float64)."""
    ignored = labels == ignored_label(call)
    outside = ~ignored & ((labels < 0) | (labels >= classes))
    if outside.any():
        raise ValueError(f"{call.identifier}: label {labels[outside][0]} is not in [0, {classes})")
    safe = np.where(ignored, 0, labels)
    own = np.ones(labels.shape) if weights is None else np.asarray(weights, np.float64)[safe]
    return np.where(ignored, 0.0, own)


def at_labels(values: Array, labels: Array) -> Array:
    """values[n, labels[n, d], d], any class where the label is out of range."""
    safe = np.clip(labels.astype(np.int64), 0, values.shape[1] - 1)
    return np.take_along_axis(values, np.expand_dims(safe, 1), 1).squeeze(1)


def reduced_loss(call: OpCall, log_prob: Array, labels: Array, weights: Array | None) -> Array:
    """The weighted negative log likelihood under the call's reduction."""
    own = label_weights(call, labels, weights, log_prob.shape[1]).astype(log_prob.dtype)
    losses = np.where(own == 0, 0, -at_labels(log_prob, labels) * own)
    how = reduction_of(call)
    if how == "none":
        return losses
    with np.errstate(all="ignore"):
        return np.asarray(losses.sum() / own.sum() if how == "mean" else losses.sum())


def cross_entropy(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x, labels = np.asarray(operands[0]), np.asarray(operands[1])
    weights = operands[2] if len(operands) > 2 else None
    log_prob = log_softmax_of(widen(x), 1)
    loss = reduced_loss(call, log_prob, labels, weights)
    return (loss.astype(x.dtype), log_prob.astype(x.dtype))


def likelihood_loss(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x, labels = np.asarray(operands[0]), np.asarray(operands[1])
    weights = operands[2] if len(operands) > 2 else None
    return (reduced_loss(call, widen(x), labels, weights).astype(x.dtype),)


def cross_entropy_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """dx = (softmax - onehot) * weight * dy, over the weights' sum where the loss is a mean."""
    dy, log_prob, labels = (widen(o) for o in operands[:3])
    weights = operands[3] if len(operands) > 3 else None
    own = label_weights(call, labels, weights, log_prob.shape[1]).astype(log_prob.dtype)
    scale = own * dy
    if reduction_of(call) == "mean":
        with np.errstate(all="ignore"):
            scale = scale / own.sum()
    classes = np.arange(log_prob.shape[1]).reshape(-1, *(1 for _ in log_prob.shape[2:]))
    hit = np.expand_dims(labels, 1) == classes
    dx = (np.exp(log_prob) - hit) * np.expand_dims(scale, 1)
    return (dx.astype(np.asarray(operands[1]).dtype),)


def infer_cross_entropy_grad(call: OpCall) -> Sequence[TensorType]:
    """Inputs dy, log_prob, labels[, weights]; the result is like log_prob."""
    check_operands(call, 1)
    log_prob, labels = call.input(1), call.input(2)
    expected = labels.shape if reduction_of(call) == "none" else ()
    if call.input(0).shape != expected or call.input(0).dtype != log_prob.dtype:
        raise ValueError(f"{call.identifier}: dy {call.input(0)} must be of shape {expected}")
    return (log_prob,)


def cross_entropy_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Through the loss by the fused kernel, through log_prob (if in use) by LogSoftmaxGrad."""
    rest: list[ir.Value | None] = [None for _ in g.inputs[1:]]
    if len(g.outputs) > 1:
        log_prob = Term(g, g.outputs[1])
    else:
        log_prob = input_term(g).op("LogSoftmax", axis=1)
    dx: Term | None = None
    if g.grads[0] is not None:
        operands = [g.grad(), log_prob.value, *g.inputs[1:]]
        fused = "SoftmaxCrossEntropyLossGrad"
        dx = Term(g, g.op(fused, operands, dict(g.call.attributes), domain=COEXEC))
    if len(g.grads) > 1 and g.grads[1] is not None:
        operands = [g.grads[1], log_prob.value]
        extra = Term(g, g.op("LogSoftmaxGrad", operands, {"axis": 1}, domain=COEXEC))
        dx = extra if dx is None else dx + extra
    return (None if dx is None else dx.value, *rest)


def likelihood_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """-weight * dy at the label's class, 0 elsewhere; over the weights' sum for a mean."""
    x, labels, dy = input_term(g), input_term(g, 1), grad_term(g)
    shape, dtype = x.type.shape, x.type.dtype
    ones = (1,) * (x.type.rank - 2)
    column = labels.reshape((shape[0], 1, *shape[2:]))
    classes = np.arange(shape[1], dtype=labels.type.dtype).reshape(1, shape[1], *ones)
    hit = column.equals(Term(g, g.constant(classes, classes.dtype)))
    ignored = ignored_label(g.call)
    if ignored is not None:
        hit = hit.op("And", column.equals(ignored).op("Not"))
    weighted = len(g.inputs) > 2 and g.inputs[2] is not None
    weight = input_term(g, 2).reshape((1, shape[1], *ones)) if weighted else x.like(1)
    how = reduction_of(g.call)
    if how == "none":
        dy = dy.reshape((shape[0], 1, *shape[2:]))
    scale = -(dy * weight)
    if how == "mean":
        total: Term | float = float(labels.type.size)
        if weighted or ignored is not None:
            total = hit.where(weight, x.like(0)).reduce_sum(tuple(range(x.type.rank)))
        scale = scale / total
    dx = hit.where(scale, Term(g, g.constant(np.zeros((), dtype), dtype)))
    return (dx.value, *(None for _ in g.inputs[1:]))


def cross_entropy_grad_body(call: OpCall) -> ir.Function:
    """The gradient in standard operators: a one-hot comparison instead of indexing."""
    log_prob, labels = call.input(1), call.input(2)
    weighted = call.has_input(3)
    b = FunctionBuilder(call)
    dtype, ones = log_prob.dtype, (1,) * (log_prob.rank - 2)
    axis1 = b.shape([1])
    column = b.op("Unsqueeze", [b.inputs[2], axis1])
    classes = np.arange(log_prob.shape[1]).reshape(1, -1, *ones)
    hit = b.op("Equal", [column, b.constant(classes, labels.dtype)])
    one, zero = b.constant(1, dtype), b.constant(0, dtype)
    weight = one
    if weighted:
        target = b.shape([1, log_prob.shape[1], *ones])
        weight = b.op("Reshape", [b.inputs[3], target])
    own = b.op("ReduceSum", [b.op("Where", [hit, weight, zero]), axis1], {"keepdims": 1})
    ignored = ignored_label(call)
    if ignored is not None:
        counts = b.op("Not", [b.op("Equal", [column, b.constant(ignored, labels.dtype)])])
        own = b.op("Where", [counts, own, zero])
    dy = b.inputs[0]
    how = reduction_of(call)
    if how == "none":
        dy = b.op("Unsqueeze", [dy, axis1])
    scale = b.op("Mul", [own, dy])
    if how == "mean":
        scale = b.op("Div", [scale, b.op("ReduceSum", [own], {"keepdims": 0})])
    onehot = b.op("Where", [hit, one, zero])
    distance = b.op("Sub", [b.op("Exp", [b.inputs[1]]), onehot])
    return b.function([b.op("Mul", [distance, scale])])


SCORES: tuple[tuple[int, ...], ...] = ((3, 5), (2, 7, 3), (2, 3, 4, 5), (5, 67))


def _weights(classes: int) -> Array:
    return np.linspace(0.5, 1.5, classes, dtype=np.float32)


def loss_examples(low: float, high: float, outputs: int) -> tuple[Example, ...]:
    """Every reduction; with and without weights and an ignored class."""
    found: list[Example] = []
    for index, shape in enumerate(SCORES):
        labels_shape = (shape[0], *shape[2:])
        kind = "int64" if index % 2 == 0 else "int32"
        labels = Sample(labels_shape, kind, 0, shape[1])
        scores = Sample(shape, low=low, high=high)
        found += [
            Example((scores, labels), {"reduction": how}, outputs=outputs) for how in REDUCTIONS
        ]
        attributes = {"reduction": REDUCTIONS[index % 3], "ignore_index": 1}
        found.append(Example((scores, labels, _weights(shape[1])), attributes))
        found.append(Example((scores, labels, _weights(shape[1])), {"reduction": "mean"}))
    masked = np.array([[-1, 0, 2], [1, -1, 4]], np.int64)
    found.append(Example((Sample((2, 5, 3), low=low, high=high), masked), {"ignore_index": -1}))
    found.append(
        Example(
            (Sample((2100, 3), low=low, high=high), Sample((2100,), "int64", 0, 3)), gradient=False
        )
    )
    return tuple(found)


def grad_examples() -> tuple[Example, ...]:
    """The loss's examples with a gradient in front and log probabilities for scores."""
    found = []
    for example in loss_examples(-4, -0.1, 1):
        scores, labels = example.inputs[:2]
        shape: tuple[int, ...] = ()
        if example.attributes.get("reduction", "mean") == "none":
            shape = labels.shape if labels is not None else ()
        operands = (Sample(shape), scores, labels, *example.inputs[2:])
        found.append(Example(operands, dict(example.attributes), gradient=False))
    return tuple(found)


def loss_work(call: OpCall) -> Work:
    """An exp and a few additions for every score."""
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(20 * call.input(0).size, moved)


OPS = (
    OpDef(
        "SoftmaxCrossEntropyLoss",
        infer_loss,
        cross_entropy,
        gradient=cross_entropy_gradient,
        work=loss_work,
        examples=(*loss_examples(-3, 3, 1), *loss_examples(-3, 3, 2)[:3]),
    ),
    OpDef(
        "NegativeLogLikelihoodLoss",
        lambda call: infer_loss(call)[:1],
        likelihood_loss,
        gradient=likelihood_gradient,
        examples=loss_examples(-4, -0.1, 1),
    ),
    OpDef(
        "SoftmaxCrossEntropyLossGrad",
        infer_cross_entropy_grad,
        cross_entropy_grad,
        domain=COEXEC,
        not_differentiable="second derivatives are not supported",
        work=streaming_work(18),
        examples=grad_examples(),
        body=cross_entropy_grad_body,
        in_place=((0, 1),),
    ),
)
