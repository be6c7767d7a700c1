"""Optimizer steps written in standard operators, for engines without ONNX's training domain.

What depends on the count of updates alone is computed in float64 on scalars: 1 - beta^T loses its
digits in float32. Tensors below float32 are computed in float32, as the reference does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.optim_hyper import hyper_of

Rule = Callable[[Sequence[ir.Value]], Sequence[ir.Value]]
"""From X, G and the states of one tensor to the new X and states."""


class StepBuilder(FunctionBuilder):
    """A function builder with arithmetic on tensors of one type; numbers become constants."""

    def __init__(self, call: OpCall) -> None:
        super().__init__(call)
        self.own = call.input(2).dtype
        self.wide = np.dtype(np.float32) if self.own.itemsize < 4 else self.own
        scalar = self.shape([])
        self.rate = self.cast(self.op("Reshape", [self.inputs[0], scalar]), np.dtype(np.float64))
        self.count = self.cast(self.op("Reshape", [self.inputs[1], scalar]), np.dtype(np.float64))

    def cast(self, value: ir.Value, dtype: np.dtype[np.generic]) -> ir.Value:
        """``value`` in another element type."""
        return self.op("Cast", [value], {"to": int(ir.DataType.from_numpy(dtype))})

    def times(self, value: ir.Value, factor: float) -> ir.Value:
        """A tensor times a number."""
        return self.op("Mul", [value, self.constant(factor, self.wide)])

    def number(self, value: float) -> ir.Value:
        """A float64 scalar."""
        return self.constant(value, "float64")

    def later(self, then: ir.Value, first: ir.Value) -> ir.Value:
        """``then`` after the first update, ``first`` at it."""
        return self.op("Where", [self.op("Greater", [self.count, self.number(0)]), then, first])

    def bias(self, base: float) -> ir.Value:
        """1 - base^T."""
        power = self.op("Pow", [self.number(base), self.count])
        return self.op("Sub", [self.number(1), power])

    def regularized(self, norm: float, x: ir.Value, gradient: ir.Value) -> ir.Value:
        """Gradient plus weight decay."""
        return self.op("Add", [self.times(x, norm), gradient]) if norm else gradient

    def moved(self, x: ir.Value, rate: ir.Value, direction: ir.Value) -> ir.Value:
        """One step down: x - rate direction."""
        return self.op("Sub", [x, self.op("Mul", [self.cast(rate, self.wide), direction])])

    def damped(self, numerator: ir.Value, square: ir.Value, epsilon: float) -> ir.Value:
        """Numerator / (sqrt(square) + epsilon)."""
        root = self.op("Add", [self.op("Sqrt", [square]), self.constant(epsilon, self.wide)])
        return self.op("Div", [numerator, root])

    def each(self, states: int, rule: Rule) -> ir.Function:
        """The function that applies ``rule`` to every tensor of the call, with its states."""
        count = (len(self.call.inputs) - 2) // (2 + states)
        groups: list[list[ir.Value]] = [[] for _ in range(1 + states)]
        for i in range(count):
            operands = self.inputs[2 + i :: count]
            results = rule([self._widened(value) for value in operands])
            for group, value in zip(groups, results, strict=True):
                group.append(self.cast(value, self.own) if self.own != self.wide else value)
        return self.function([value for group in groups for value in group])

    def _widened(self, value: ir.Value) -> ir.Value:
        return self.cast(value, self.wide) if self.own != self.wide else value


def momentum_body(call: OpCall) -> ir.Function:
    """V' = alpha V + (beta after the first update, else 1) G; X' = X - R V' or Nesterov's form."""
    f, h = StepBuilder(call), hyper_of(call)
    weight = f.cast(f.later(f.number(h.beta), f.number(1)), f.wide)

    def rule(operands: Sequence[ir.Value]) -> Sequence[ir.Value]:
        x, g, v = operands
        gradient = f.regularized(h.norm, x, g)
        v = f.op("Add", [f.times(v, h.alpha), f.op("Mul", [weight, gradient])])
        direction = f.op("Add", [gradient, f.times(v, h.alpha)]) if h.nesterov else v
        return f.moved(x, f.rate, direction), v

    return f.each(1, rule)


def adam_body(call: OpCall) -> ir.Function:
    """V' and S' are the moments; the rate is corrected for their bias when T > 0."""
    f, h = StepBuilder(call), hyper_of(call)
    correction = f.op("Div", [f.op("Sqrt", [f.bias(h.beta)]), f.bias(h.alpha)])
    rate = f.later(f.op("Mul", [f.rate, correction]), f.rate)

    def rule(operands: Sequence[ir.Value]) -> Sequence[ir.Value]:
        x, g, v, s = operands
        gradient = f.regularized(h.norm, x, g)
        v = f.op("Add", [f.times(v, h.alpha), f.times(gradient, 1 - h.alpha)])
        square = f.op("Mul", [gradient, gradient])
        s = f.op("Add", [f.times(s, h.beta), f.times(square, 1 - h.beta)])
        moved = f.moved(x, rate, f.damped(v, s, h.epsilon))
        return (f.times(moved, 1 - h.norm_post) if h.norm_post else moved), v, s

    return f.each(2, rule)


def adagrad_body(call: OpCall) -> ir.Function:
    """S' adds up squares; the rate decays with T."""
    f, h = StepBuilder(call), hyper_of(call)
    decayed = f.op("Add", [f.op("Mul", [f.count, f.number(h.decay)]), f.number(1)])
    rate = f.op("Div", [f.rate, decayed])

    def rule(operands: Sequence[ir.Value]) -> Sequence[ir.Value]:
        x, g, s = operands
        gradient = f.regularized(h.norm, x, g)
        s = f.op("Add", [s, f.op("Mul", [gradient, gradient])])
        return f.moved(x, rate, f.damped(gradient, s, h.epsilon)), s

    return f.each(1, rule)
