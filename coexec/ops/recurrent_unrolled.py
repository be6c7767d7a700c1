"""Steps of recurrent cells written one after the other in standard operators.

What a processor without whole-sequence kernels runs, and what stands for cells that are not the
usual ones (other activations, clipping, coupled gates): their gradients follow by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.recurrent_geometry import Activation, Recurrence

MAX_STEPS = 512
"""Longer sequences are not unrolled: each step is some ten operators, and planning 1,000 takes a
minute."""

NAMES = {
    "elu": "Elu",
    "hardsigmoid": "HardSigmoid",
    "leakyrelu": "LeakyRelu",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
}
"""Activations that are ONNX operators of their own."""


@dataclass
class Cell:
    """Operands of one direction: ``recurrent`` (G H, H), states (N, H), ``lengths`` (N, 1).

    ``functions`` are the cell's activations, ``peepholes`` three vectors (H), ``shift`` what is
    added to the product that the reset gate of a GRU multiplies. By time, ``gates`` are their
    values and ``kept`` an LSTM's cells or a GRU's products, once the steps are written.
    """

    functions: Sequence[Activation]
    recurrent: ir.Value
    h: ir.Value
    c: ir.Value
    clip: float = 0.0
    coupled: bool = False
    reset_product: bool = False
    peepholes: Sequence[ir.Value] = ()
    shift: ir.Value | None = None
    lengths: ir.Value | None = None
    gates: dict[int, Sequence[ir.Value]] = field(default_factory=dict)
    kept: dict[int, ir.Value] = field(default_factory=dict)


class Unroller:
    """Writes the steps of cells into the body of ``call``."""

    def __init__(self, b: FunctionBuilder, call: OpCall, found: Recurrence) -> None:
        self.b, self.call, self.found = b, call, found
        self.dtype = call.input(0).dtype
        self.zero = b.constant(0, self.dtype)

    def run(self, cell: Cell, fed: ir.Value, number: int) -> tuple[ir.Value, ir.Value, ir.Value]:
        """All hidden states (T, 1, N, H) of direction ``number`` and its last states (N, H).

        ``fed`` (T, N, G H) is what each step's input comes to. Behind the end of a sequence its
        state stays as it is.
        """
        step = {4: self._lstm, 3: self._gru, 1: self._rnn}[self.found.gates]
        n, h = self.found.batch, self.found.hidden
        parts = self.split(fed, self.found.steps, 0)
        rows: list[ir.Value | None] = [None] * self.found.steps
        for t in self.found.order(number):
            state, memory = step(cell, self.reshape(parts[t], n, self.found.gates * h), t)
            if cell.lengths is not None:
                inside = self.b.op("Less", [self._time(t), cell.lengths])
                state = self.b.op("Where", [inside, state, cell.h])
                if memory is not cell.c:
                    memory = self.b.op("Where", [inside, memory, cell.c])
            cell.h, cell.c = state, memory
            if self.found.gates == 4:
                cell.kept[t] = memory
            rows[t] = self.reshape(state, 1, 1, n, h)
        return self.b.op("Concat", rows, {"axis": 0}), cell.h, cell.c

    def _time(self, t: int) -> ir.Value:
        return self.b.constant(np.array(t), "int64")

    def _lstm(self, cell: Cell, fed: ir.Value, t: int) -> tuple[ir.Value, ir.Value]:
        gate, squash, shown = cell.functions
        sums = self._product(cell.h, cell.recurrent, fed)
        i, o, f, c = self.split(sums, 4, 1)
        into = self.apply(cell, gate, self._peep(cell, i, 0, cell.c))
        if cell.coupled:
            forget = self.b.op("Sub", [self.b.constant(1, self.dtype), into])
        else:
            forget = self.apply(cell, gate, self._peep(cell, f, 2, cell.c))
        new = self.apply(cell, squash, c)
        memory = self.add(self.mul(forget, cell.c), self.mul(into, new))
        out = self.apply(cell, gate, self._peep(cell, o, 1, memory))
        cell.gates[t] = (into, out, forget, new)
        return self.mul(out, self.activate(shown, memory)), memory

    def _gru(self, cell: Cell, fed: ir.Value, t: int) -> tuple[ir.Value, ir.Value]:
        gate, squash = cell.functions
        h = self.found.hidden
        rates, own = self.cut(fed, (2 * h, h), 1)
        by_rates, by_own = self.cut(cell.recurrent, (2 * h, h), 0)
        z, r = self.split(self.apply(cell, gate, self._product(cell.h, by_rates, rates)), 2, 1)
        if cell.reset_product:
            cell.kept[t] = self._product(cell.h, by_own, cell.shift)
            fresh = self.add(own, self.mul(r, cell.kept[t]))
        else:
            fresh = self._product(self.mul(r, cell.h), by_own, own)
        new = self.apply(cell, squash, fresh)
        cell.gates[t] = (z, r, new)
        return self.add(new, self.mul(z, self.b.op("Sub", [cell.h, new]))), cell.c

    def _rnn(self, cell: Cell, fed: ir.Value, t: int) -> tuple[ir.Value, ir.Value]:
        sums = self._product(cell.h, cell.recurrent, fed)
        new = self.apply(cell, cell.functions[0], sums)
        cell.gates[t] = (new,)
        return new, cell.c

    def gates_of(self, cell: Cell) -> ir.Value:
        """All values of the gates (T, N, G H) of written steps."""
        return self.times([self.join(cell.gates[t], 1) for t in range(self.found.steps)])

    def kept_of(self, cell: Cell) -> ir.Value:
        """All cells or products (T, 1, N, H) of written steps."""
        shape = (1, 1, self.found.batch, self.found.hidden)
        rows = [self.reshape(cell.kept[t], *shape) for t in range(self.found.steps)]
        return self.join(rows, 0)

    def times(self, rows: Sequence[ir.Value]) -> ir.Value:
        """(N, G H) of each time as (T, N, G H)."""
        shape = (1, self.found.batch, self.found.gates * self.found.hidden)
        return self.join([self.reshape(row, *shape) for row in rows], 0)

    def join(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        """Parts behind each other along an axis."""
        return parts[0] if len(parts) == 1 else self.b.op("Concat", parts, {"axis": axis})

    def _product(self, state: ir.Value, matrix: ir.Value, start: ir.Value | None) -> ir.Value:
        operands = [state, matrix] if start is None else [state, matrix, start]
        return self.b.op("Gemm", operands, {"transB": 1})

    def _peep(self, cell: Cell, gate: ir.Value, index: int, memory: ir.Value) -> ir.Value:
        if not cell.peepholes:
            return gate
        return self.add(gate, self.mul(cell.peepholes[index], memory))

    def apply(self, cell: Cell, function: Activation, x: ir.Value) -> ir.Value:
        """An activation of the values of ``x``, clipped where the cell clips."""
        if cell.clip:
            bounds = [self.b.constant(sign * cell.clip, self.dtype) for sign in (-1, 1)]
            x = self.b.op("Clip", [x, *bounds])
        return self.activate(function, x)

    def activate(self, function: Activation, x: ir.Value) -> ir.Value:
        """An activation of the values of ``x``."""
        alpha, beta = (self.b.constant(v, self.dtype) for v in (function.alpha, function.beta))
        if function.name == "affine":
            return self.add(self.mul(x, alpha), beta)
        if function.name == "scaledtanh":
            return self.mul(self.b.op("Tanh", [self.mul(x, beta)]), alpha)
        if function.name == "thresholdedrelu":
            reached = self.b.op("GreaterOrEqual", [x, alpha])
            return self.b.op("Where", [reached, x, self.zero])
        attributes = {"alpha": function.alpha} if function.name in ("elu", "leakyrelu") else {}
        if function.name == "hardsigmoid":
            attributes = {"alpha": function.alpha, "beta": function.beta}
        return self.b.op(NAMES[function.name], [x], attributes)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.op("Add", [a, b])

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.op("Mul", [a, b])

    def reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        return self.b.op("Reshape", [value, self.b.shape(shape)])

    def split(self, value: ir.Value, count: int, axis: int) -> tuple[ir.Value, ...]:
        """``count`` equal parts."""
        if count == 1:
            return (value,)
        attributes: dict[str, Any] = {"axis": axis, "num_outputs": count}
        return self.b.ops("Split", [value], attributes, outputs=count)

    def cut(self, value: ir.Value, sizes: Sequence[int], axis: int) -> tuple[ir.Value, ...]:
        """Parts of these sizes."""
        operands = [value, self.b.shape(sizes)]
        return self.b.ops("Split", operands, {"axis": axis}, outputs=len(sizes))

    def state(self, value: ir.Value | None, number: int) -> ir.Value:
        """State (N, H) of a direction out of (D, N, H); zeros where it is not given."""
        shape = (self.found.batch, self.found.hidden)
        if value is None:
            return self.b.constant(np.zeros(shape), self.dtype)
        return self.part(value, number, *shape)

    def part(self, value: ir.Value, number: int, *shape: int) -> ir.Value:
        """What belongs to a direction of a value that has one entry for each in front."""
        return self.reshape(self.split(value, self.found.directions, 0)[number], *shape)

    def column(self, lengths: ir.Value | None) -> ir.Value | None:
        """Lengths (N, 1) as 64-bit integers."""
        if lengths is None:
            return None
        wide = self.b.op("Cast", [lengths], {"to": int(ir.DataType.INT64)})
        return self.reshape(wide, self.found.batch, 1)
