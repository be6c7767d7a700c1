"""Activations: pointwise non-linearities of neural networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import (
    TRANSCENDENTAL,
    broadcast_shape,
    computed,
    erf_of,
    infer_float,
    infer_same,
    numpy_reference,
    require_one_type,
    unary_examples,
)
from coexec.ops.gelu import GELU, GELU_GRAD
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample
from coexec.ops.term import Term, grad_term, input_term, output_term

__all__ = ["OPS", "infer_same"]

SELU_ALPHA = 1.67326319217681884765625
SELU_GAMMA = 1.05070102214813232421875


def sigmoid_of(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow for large negative x."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def softplus_of(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def relu(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.asarray(np.maximum(operands[0], np.zeros((), np.asarray(operands[0]).dtype))),)


def leaky_relu(call: OpCall, x: Array) -> Array:
    return np.where(x < 0, x * call.attribute("alpha", 0.01), x)


def elu(call: OpCall, x: Array) -> Array:
    return np.where(x > 0, x, call.attribute("alpha", 1.0) * np.expm1(np.minimum(x, 0)))


def selu(call: OpCall, x: Array) -> Array:
    alpha, gamma = call.attribute("alpha", SELU_ALPHA), call.attribute("gamma", SELU_GAMMA)
    negative = gamma * alpha * np.expm1(np.minimum(x, 0))
    return np.asarray(np.where(x > 0, gamma * x, negative))


def celu(call: OpCall, x: Array) -> Array:
    alpha = call.attribute("alpha", 1.0)
    negative = np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha))
    return np.asarray(np.maximum(x, 0) + negative)


def thresholded_relu(call: OpCall, x: Array) -> Array:
    return np.where(x > call.attribute("alpha", 1.0), x, 0)


def clip(call: OpCall, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    floor = x if low is None else np.maximum(x, low)
    return floor if high is None else np.minimum(floor, high)


def hard_sigmoid(call: OpCall, x: Array) -> Array:
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    return np.asarray(np.clip(alpha * x + beta, 0, 1))


def swish(call: OpCall, x: Array) -> Array:
    return x * sigmoid_of(call.attribute("alpha", 1.0) * x)


def infer_prelu(call: OpCall) -> Sequence[TensorType]:
    """The slope broadcasts to x, never the other way round."""
    require_one_type(call, (0, 1))
    if broadcast_shape(call) != call.input(0).shape:
        raise ValueError(f"PRelu: slope {call.input(1)} does not broadcast to {call.input(0)}")
    return (call.input(0),)


def infer_clip(call: OpCall) -> Sequence[TensorType]:
    for i in (1, 2):
        if call.has_input(i) and call.input(i).size != 1:
            raise ValueError(f"Clip: {('min', 'max')[i - 1]} must be a scalar, got {call.input(i)}")
    require_one_type(call, [i for i in range(3) if call.has_input(i)])
    return (call.input(0),)


def relu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return ((output_term(g) > 0).where(grad_term(g), 0).value,)


def leaky_relu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    dy = grad_term(g)
    return ((input_term(g) < 0).where(dy * g.call.attribute("alpha", 0.01), dy).value,)


def prelu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    x, slope, dy = input_term(g), input_term(g, 1), grad_term(g)
    negative = x < 0
    dx = negative.where(dy * slope, dy).value if g.wanted[0] else None
    dslope = negative.where(dy * x, 0).value if g.wanted[1] else None
    return dx, dslope


def elu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    dy, y = grad_term(g), output_term(g)
    return ((input_term(g) > 0).where(dy, dy * (y + g.call.attribute("alpha", 1.0))).value,)


def selu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    alpha, gamma = g.call.attribute("alpha", SELU_ALPHA), g.call.attribute("gamma", SELU_GAMMA)
    slope = (input_term(g) > 0).where(gamma, output_term(g) + alpha * gamma)
    return ((grad_term(g) * slope).value,)


def celu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    dy, y = grad_term(g), output_term(g)
    return ((input_term(g) > 0).where(dy, dy * (y / g.call.attribute("alpha", 1.0) + 1)).value,)


def thresholded_relu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return ((input_term(g) > g.call.attribute("alpha", 1.0)).where(grad_term(g), 0).value,)


def _inside(g: GradientScope, y: Term) -> Term | None:
    """Where a clipped value lies between the bounds; ``None`` if it has none."""
    tests = []
    for index in (1, 2):
        if index < len(g.inputs) and g.inputs[index] is not None:
            bound = input_term(g, index).reshape(())
            tests.append(y > bound if index == 1 else y < bound)
    return reduce(lambda a, b: a.op("And", b), tests) if tests else None


def clip_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Where the result lies between the bounds; a bound gets what it replaced.

    Told by the result, so that the operand need not be kept. On a bound nothing passes, as with
    Relu.
    """
    y, dy = output_term(g), grad_term(g)
    inside = _inside(g, y)
    if inside is None:
        return (dy.value, *[None] * (len(g.inputs) - 1))
    gradients: list[ir.Value | None] = [inside.where(dy, 0).value if g.wanted[0] else None]
    for index in range(1, len(g.inputs)):
        if not g.wanted[index]:
            gradients.append(None)
            continue
        bound = input_term(g, index)
        replaced = y.equals(bound).op("And", inside.op("Not"))
        shape = bound.type.shape
        total = replaced.where(dy, 0).reduce_sum(tuple(range(y.type.rank)))
        gradients.append(total.reshape(shape).value)
    return tuple(gradients)


def sigmoid_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    y = output_term(g)
    return ((grad_term(g) * (y * (1 - y))).value,)


def hard_sigmoid_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    y = output_term(g)
    inside = (y > 0).op("And", y < 1)
    return (inside.where(grad_term(g) * g.call.attribute("alpha", 0.2), 0).value,)


def hard_swish_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    x, dy = input_term(g), grad_term(g)
    outside = (x > 0).where(dy, 0)
    return ((x.op("Abs") < 3).where(dy * (x * (1 / 3) + 0.5), outside).value,)


def swish_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    x, y, alpha = input_term(g), output_term(g), g.call.attribute("alpha", 1.0)
    s = (x if alpha == 1 else x * alpha).op("Sigmoid")
    return ((grad_term(g) * (s + (y if alpha == 1 else y * alpha) * (1 - s))).value,)


def tanh_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    y = output_term(g)
    return ((grad_term(g) * (1 - y * y)).value,)


def erf_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    x = input_term(g)
    return ((grad_term(g) * (-(x * x)).op("Exp") * (2 / math.sqrt(math.pi))).value,)


def softplus_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return ((grad_term(g) * input_term(g).op("Sigmoid")).value,)


def softsign_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    scale = 1 + input_term(g).op("Abs")
    return ((grad_term(g) / (scale * scale)).value,)


def mish_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    x = input_term(g)
    t = x.op("Softplus").op("Tanh")
    return ((grad_term(g) * (t + x * x.op("Sigmoid") * (1 - t * t))).value,)


PRELU_EXAMPLES = (
    Example((Sample((3, 5)), Sample((3, 5)))),
    Example((Sample((2, 3, 4, 5)), Sample((3, 1, 1)))),
    Example((Sample((7, 19)), Sample((19,)))),
    Example((Sample((11,)), Sample((1,)))),
)
CLIP_EXAMPLES = (
    Example((Sample((3, 5)), np.array(-0.5, np.float32), np.array(0.25, np.float32))),
    Example((Sample((2, 3, 19)), np.array(0.0, np.float32), None)),
    Example((Sample((67,)), None, np.array(0.3, np.float32))),
    Example((Sample((3, 7)), Sample((), low=-0.6, high=-0.4), Sample((), low=0.2, high=0.5))),
    Example((Sample((5,)),)),
    Example(
        (Sample((3, 5), "int32", -9, 9), np.array(-4, np.int32), np.array(4, np.int32)),
        gradient=False,
    ),
)
INT_EXAMPLE = Example((Sample((3, 5), "int32", -9, 9),), gradient=False)

OPS = (
    OpDef(
        "Relu",
        infer_same,
        relu,
        gradient=relu_gradient,
        examples=(*unary_examples(), INT_EXAMPLE),
        in_place=((0, 0),),
    ),
    OpDef(
        "LeakyRelu",
        infer_float,
        computed(leaky_relu),
        gradient=leaky_relu_gradient,
        examples=(*unary_examples(), *unary_examples(alpha=0.3)),
        in_place=((0, 0),),
    ),
    OpDef(
        "PRelu",
        infer_prelu,
        computed(lambda call, x, slope: np.where(x < 0, x * slope, x)),
        gradient=prelu_gradient,
        examples=PRELU_EXAMPLES,
        in_place=((0, 0),),
    ),
    OpDef(
        "Elu",
        infer_float,
        computed(elu),
        gradient=elu_gradient,
        work=TRANSCENDENTAL,
        examples=(*unary_examples(), *unary_examples(alpha=0.7)),
        in_place=((0, 0),),
    ),
    OpDef(
        "Selu",
        infer_float,
        computed(selu),
        gradient=selu_gradient,
        work=TRANSCENDENTAL,
        examples=(*unary_examples(), *unary_examples(alpha=2.0, gamma=3.0)),
        in_place=((0, 0),),
    ),
    OpDef(
        "Celu",
        infer_float,
        computed(celu),
        gradient=celu_gradient,
        work=TRANSCENDENTAL,
        examples=(*unary_examples(), *unary_examples(alpha=2.0)),
        in_place=((0, 0),),
    ),
    OpDef(
        "ThresholdedRelu",
        infer_float,
        computed(thresholded_relu),
        gradient=thresholded_relu_gradient,
        examples=(*unary_examples(), *unary_examples(alpha=0.3)),
        in_place=((0, 0),),
    ),
    OpDef(
        "Clip",
        infer_clip,
        computed(clip),
        gradient=clip_gradient,
        examples=CLIP_EXAMPLES,
        in_place=((0, 0),),
    ),
    OpDef(
        "Sigmoid",
        infer_float,
        numpy_reference(sigmoid_of),
        gradient=sigmoid_gradient,
        work=TRANSCENDENTAL,
        examples=(*unary_examples(-6, 6), *unary_examples(-120, 120)[:1]),
        in_place=((0, 0),),
    ),
    OpDef(
        "HardSigmoid",
        infer_float,
        computed(hard_sigmoid),
        gradient=hard_sigmoid_gradient,
        examples=(*unary_examples(-4, 4), *unary_examples(alpha=0.6, beta=0.4)),
        in_place=((0, 0),),
    ),
    OpDef(
        "HardSwish",
        infer_float,
        numpy_reference(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
        gradient=hard_swish_gradient,
        examples=unary_examples(-5, 5),
        in_place=((0, 0),),
    ),
    OpDef(
        "Swish",
        infer_float,
        computed(swish),
        gradient=swish_gradient,
        work=TRANSCENDENTAL,
        examples=(*unary_examples(-5, 5), *unary_examples(-5, 5, alpha=1.7)),
        in_place=((0, 0),),
    ),
    OpDef(
        "Tanh",
        infer_float,
        numpy_reference(np.tanh),
        gradient=tanh_gradient,
        work=TRANSCENDENTAL,
        examples=unary_examples(-3, 3),
        in_place=((0, 0),),
    ),
    GELU,
    GELU_GRAD,
    OpDef(
        "Erf",
        infer_same,
        numpy_reference(erf_of),
        gradient=erf_gradient,
        work=TRANSCENDENTAL,
        examples=unary_examples(),
        in_place=((0, 0),),
    ),
    OpDef(
        "Softplus",
        infer_float,
        numpy_reference(softplus_of),
        gradient=softplus_gradient,
        work=TRANSCENDENTAL,
        examples=(*unary_examples(-5, 5), *unary_examples(-120, 120)[:1]),
        in_place=((0, 0),),
    ),
    OpDef(
        "Softsign",
        infer_float,
        numpy_reference(lambda x: x / (1 + np.abs(x))),
        gradient=softsign_gradient,
        examples=unary_examples(),
        in_place=((0, 0),),
    ),
    OpDef(
        "Mish",
        infer_float,
        numpy_reference(lambda x: x * np.tanh(softplus_of(x))),
        gradient=mish_gradient,
        work=TRANSCENDENTAL,
        examples=unary_examples(-5, 5),
        in_place=((0, 0),),
    ),
)
