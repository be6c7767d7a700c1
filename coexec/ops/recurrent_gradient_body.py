"""Gradients of the steps of recurrent layers in standard operators, one step after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.recurrent_steps import FED, RECURRENT, STATES, StepsCall
from coexec.ops.recurrent_unrolled import MAX_STEPS, Unroller

Values = Sequence[ir.Value]


def gradient_body(call: OpCall) -> ir.Function | None:
    """The walk backwards; none if there are too many steps."""
    s = StepsCall.of(call)
    r = s.geometry
    if r.steps > MAX_STEPS:
        return None
    b = FunctionBuilder(call)
    walks = [_Walk(b, s, number) for number in range(r.directions)]
    ends = [walk.run() for walk in walks]
    u = walks[0].u
    outputs = [u.join([u.times(walk.fed) for walk in walks], 2)]
    if s.cell == "GRU":
        outputs.append(u.join([u.times(walk.products) for walk in walks], 2))
    for state in range(STATES[s.cell]):
        rows = [u.reshape(end[state], 1, r.batch, r.hidden) for end in ends]
        outputs.append(b.op("Concat", rows, {"axis": 0}))
    # An output that is an operand, or is there twice, needs a node of its own.
    return b.function([b.op("Identity", [value]) for value in outputs[: call.output_count]])


class _Walk:
    """One direction; ``fed`` and ``products`` are gradients (N, G H) by time."""

    def __init__(self, b: FunctionBuilder, s: StepsCall, number: int) -> None:
        self.b, self.s, self.r, self.number = b, s, s.geometry, number
        self.u = Unroller(b, s.call, s.geometry)
        self.one = b.constant(1, self.u.dtype)
        rows = self.r.gates * self.r.hidden
        own = self.u.split(b.inputs[FED], self.r.directions, 2)[number]
        parts = self.u.split(own, self.r.steps, 0)
        self.gates = [self.u.reshape(part, self.r.batch, rows) for part in parts]
        self.weights = self.u.part(b.inputs[RECURRENT], number, rows, self.r.hidden)
        self.lengths = self.u.column(self._operand("lengths"))
        self.kept, self.y, self.dy = (self._times(name) for name in ("kept", "y", "dy"))
        self.peepholes = self._peepholes()
        self.fed: list[ir.Value] = list(self.gates)
        self.products: list[ir.Value] = list(self.gates)

    def _operand(self, name: str) -> ir.Value | None:
        at = self.s.index(name)
        return None if at is None else self.b.inputs[at]

    def _times(self, name: str) -> list[ir.Value]:
        """An operand (T, D, N, H) as (N, H) by time; empty where it is not given."""
        value = self._operand(name)
        if value is None:
            return []
        own = self.u.split(value, self.r.directions, 1)[self.number]
        parts = self.u.split(own, self.r.steps, 0)
        return [self.u.reshape(part, self.r.batch, self.r.hidden) for part in parts]

    def _peepholes(self) -> Values:
        value = self._operand("peepholes")
        if value is None:
            return ()
        return self.u.split(self.u.part(value, self.number, 3 * self.r.hidden), 3, 0)

    def _mul(self, *values: ir.Value) -> ir.Value:
        total = values[0]
        for value in values[1:]:
            total = self.u.mul(total, value)
        return total

    def _sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.op("Sub", [a, b])

    def _rest(self, value: ir.Value) -> ir.Value:
        return self._sub(self.one, value)

    def _steep(self, value: ir.Value) -> ir.Value:
        """The slope of tanh where it is ``value``."""
        return self._rest(self.u.mul(value, value))

    def _slope(self, value: ir.Value) -> ir.Value:
        """The slope of the sigmoid where it is ``value``."""
        return self.u.mul(value, self._rest(value))

    def run(self) -> Values:
        """Gradients of the first state and cell."""
        order = list(self.r.order(self.number))
        dh = self.u.state(self._operand("dh"), self.number)
        dc = self.u.state(self._operand("dc"), self.number)
        rule = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.s.cell]
        for place in range(len(order) - 1, -1, -1):
            t = order[place]
            flow = self.u.add(dh, self.dy[t]) if self.dy else dh
            before = order[place - 1] if place else None
            fed, product, past, memory = rule(t, before, flow, dc)
            if self.lengths is not None:
                inside = self.b.op("Less", [self.b.constant(np.array(t), "int64"), self.lengths])
                fed = self.b.op("Where", [inside, fed, self.u.zero])
                product = self.b.op("Where", [inside, product, self.u.zero])
                past = self.b.op("Where", [inside, past, flow])
                memory = self.b.op("Where", [inside, memory, dc])
            self.fed[t], self.products[t] = fed, product
            dh, dc = self.b.op("Gemm", [product, self.weights, past]), memory
        return dh, dc

    def _before(self, rows: Values, first: str, time: int | None) -> ir.Value:
        return self.u.state(self._operand(first), self.number) if time is None else rows[time]

    def _zeros(self) -> ir.Value:
        return self.u.state(None, self.number)

    def _lstm(self, t: int, before: int | None, flow: ir.Value, dc: ir.Value) -> Values:
        i, o, f, g = self.u.split(self.gates[t], 4, 1)
        shown = self.b.op("Tanh", [self.kept[t]])
        do = self._mul(flow, shown, self._slope(o))
        cell = self.u.add(dc, self._mul(flow, o, self._steep(shown)))
        if self.peepholes:
            cell = self.u.add(cell, self.u.mul(do, self.peepholes[1]))
        di = self._mul(cell, g, self._slope(i))
        df = self._mul(cell, self._before(self.kept, "c0", before), self._slope(f))
        memory = self.u.mul(cell, f)
        for gate, peephole in ((di, 0), (df, 2)) if self.peepholes else ():
            memory = self.u.add(memory, self.u.mul(gate, self.peepholes[peephole]))
        fed = self.u.join([di, do, df, self._mul(cell, i, self._steep(g))], 1)
        return fed, fed, self._zeros(), memory

    def _gru(self, t: int, before: int | None, flow: ir.Value, dc: ir.Value) -> Values:
        z, r, new = self.u.split(self.gates[t], 3, 1)
        old = self._before(self.y, "h0", before)
        dz = self._mul(flow, self._sub(old, new), self._slope(z))
        dnew = self._mul(flow, self._rest(z), self._steep(new))
        dr = self._mul(dnew, self.kept[t], self._slope(r))
        fed = self.u.join([dz, dr, dnew], 1)
        return fed, self.u.join([dz, dr, self.u.mul(dnew, r)], 1), self.u.mul(flow, z), dc

    def _rnn(self, t: int, _before: int | None, flow: ir.Value, dc: ir.Value) -> Values:
        y = self.gates[t]
        if self.s.activation == "relu":
            reached = self.b.op("Greater", [y, self.u.zero])
            fed = self.b.op("Where", [reached, flow, self.u.zero])
        else:
            fed = self.u.mul(flow, self._steep(y))
        return fed, fed, self._zeros(), dc
