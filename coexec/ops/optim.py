"""Optimizer steps of ONNX's training domain: Momentum, Adam, Adagrad.

Operands are the learning rate R, the count of updates before this one T, then for n tensors all
X, all gradients, and all of each state; results are all new X, then the new states in that order.
In place pairs hold for the one-tensor form, which is how coexec builds and runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float, widen
from coexec.ops.opdef import TRAINING, Example, OpDef, Sample, Work
from coexec.ops.optim_body import adagrad_body, adam_body, momentum_body
from coexec.ops.optim_hyper import Hyper, hyper_of

Rule = Callable[..., tuple[Array, ...]]
NOT_DIFFERENTIABLE = "an optimizer step ends the graph"


def momentum(h: Hyper, rate: Any, step: int, x: Array, g: Array, v: Array) -> tuple[Array, ...]:
    regularized = h.norm * x + g
    v = h.alpha * v + (h.beta if step > 0 else 1.0) * regularized
    return x - rate * (regularized + h.alpha * v if h.nesterov else v), v


def adam(
    h: Hyper, rate: Any, step: int, x: Array, g: Array, v: Array, s: Array
) -> tuple[Array, ...]:
    """v is the first, s the second moment; T > 0 turns the bias correction on, as ONNX has it."""
    regularized = h.norm * x + g
    v = h.alpha * v + (1 - h.alpha) * regularized
    s = h.beta * s + (1 - h.beta) * regularized * regularized
    if step > 0:
        rate = rate * ((1 - h.beta**step) ** 0.5 / (1 - h.alpha**step))
    x = x - rate * v / (np.sqrt(s) + h.epsilon)
    return (1 - h.norm_post) * x, v, s


def adagrad(h: Hyper, rate: Any, step: int, x: Array, g: Array, s: Array) -> tuple[Array, ...]:
    regularized = h.norm * x + g
    s = s + regularized * regularized
    return x - rate / (1 + step * h.decay) * regularized / (np.sqrt(s) + h.epsilon), s


def tensor_count(call: OpCall, states: int) -> int:
    """How many tensors a call updates."""
    return (len(call.inputs) - 2) // (2 + states)


def inferring(states: int) -> Callable[[OpCall], Sequence[TensorType]]:
    """Shape rule of a step with so many state tensors for each X."""

    def infer(call: OpCall) -> Sequence[TensorType]:
        hyper_of(call)
        count, rest = divmod(len(call.inputs) - 2, 2 + states)
        if count < 1 or rest:
            raise ValueError(f"{call.op_type}: {len(call.inputs)} operands do not form groups")
        if call.input(0).size != 1 or call.input(1).size != 1:
            raise ValueError(f"{call.op_type}: R and T must be scalars")
        xs = [call.input(2 + i) for i in range(count)]
        for group in range(1, 2 + states):
            for i, x in enumerate(xs):
                other = call.input(2 + group * count + i)
                if other != x or not is_float(x.dtype):
                    raise ValueError(f"{call.op_type}: {other} does not belong to {x}")
        return tuple(x for _ in range(1 + states) for x in xs)

    return infer


def stepping(rule: Rule, states: int) -> Callable[[OpCall, Sequence[Any]], Sequence[Array]]:
    """Reference that applies ``rule`` to each tensor."""

    def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
        count = tensor_count(call, states)
        hyper = hyper_of(call)
        step = int(np.asarray(operands[1]).reshape(()))
        results: list[list[Array]] = [[] for _ in range(1 + states)]
        for i in range(count):
            own = [np.asarray(operands[2 + group * count + i]) for group in range(2 + states)]
            rate = widen(operands[0]).reshape(()).astype(widen(own[0]).dtype)
            for group, value in enumerate(rule(hyper, rate, step, *map(widen, own))):
                results[group].append(np.asarray(value).astype(own[0].dtype))
        return tuple(value for group in results for value in group)

    return reference


def step_work(flop: int) -> Callable[[OpCall], Work]:
    """``flop`` operations per element."""

    def work(call: OpCall) -> Work:
        outputs = [t for t in call.outputs if t is not None]
        moved = sum(t.nbytes for t in (*call.inputs, *outputs) if t is not None)
        states = {"Adam": 2}.get(call.op_type, 1)
        return Work(flop * sum(t.size for t in outputs) // (1 + states), moved)

    return work


def examples(states: int, *attributes: dict[str, Any]) -> tuple[Example, ...]:
    """One tensor of several shapes before and after the first step, then two tensors at once."""
    rate, first, later = (np.array(v) for v in (np.float32(0.1), np.int64(0), np.int64(3)))
    shapes: tuple[tuple[int, ...], ...] = ((3, 5), (1037,), (), (2, 3, 4, 5))
    found = []
    for index, shape in enumerate(shapes):
        operands = [Sample(shape), Sample(shape), *(Sample(shape, low=0.1) for _ in range(states))]
        for chosen in attributes:
            step = first if index == 0 else later
            found.append(Example((rate, step, *operands), chosen, outputs=1 + states))
    pair = [Sample(s, low=0.1) for _ in range(2 + states) for s in ((3, 5), (7,))]
    found.append(Example((rate, later, *pair), attributes[0], outputs=2 * (1 + states)))
    return tuple(found)


MOMENTUM: tuple[dict[str, Any], ...] = (
    {"alpha": 0.9, "beta": 0.8, "norm_coefficient": 0.01, "mode": "standard"},
    {"alpha": 0.9, "beta": 0.8, "norm_coefficient": 0.01, "mode": "nesterov"},
)
ADAM: tuple[dict[str, Any], ...] = (
    {},
    {"norm_coefficient": 0.01, "norm_coefficient_post": 0.02, "epsilon": 1e-3},
)
ADAGRAD: tuple[dict[str, Any], ...] = (
    {},
    {"norm_coefficient": 0.01, "decay_factor": 0.1, "epsilon": 1e-3},
)

OPS = (
    OpDef(
        "Momentum",
        inferring(1),
        stepping(momentum, 1),
        domain=TRAINING,
        not_differentiable=NOT_DIFFERENTIABLE,
        work=step_work(7),
        examples=examples(1, *MOMENTUM),
        body=momentum_body,
        in_place=((0, 2), (1, 4)),
    ),
    OpDef(
        "Adam",
        inferring(2),
        stepping(adam, 2),
        domain=TRAINING,
        not_differentiable=NOT_DIFFERENTIABLE,
        work=step_work(15),
        examples=examples(2, *ADAM),
        body=adam_body,
        in_place=((0, 2), (1, 4), (2, 5)),
    ),
    OpDef(
        "Adagrad",
        inferring(1),
        stepping(adagrad, 1),
        domain=TRAINING,
        not_differentiable=NOT_DIFFERENTIABLE,
        work=step_work(9),
        examples=examples(1, *ADAGRAD),
        body=adagrad_body,
        in_place=((0, 2), (1, 4)),
    ),
)
