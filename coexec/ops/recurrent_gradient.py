"""The operators ``coexec::LSTMSteps``, ``GRUSteps``, ``RNNSteps``, and their gradients.

Back-propagation through time (Werbos, "Backpropagation through time: what it does and how to do
it", 1990): a walk backwards gives the gradients of what each gate was computed from; those of the
recurrent weights are one product of these with the states before, over all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.recurrent_gradient_body import gradient_body
from coexec.ops.recurrent_steps import (
    CELL_FLOP,
    FED,
    GATE_NAMES,
    GRADIENT_OPERANDS,
    OPERANDS,
    RECURRENT,
    SAVED,
    STATES,
    StepsCall,
    infer_steps,
    steps,
    steps_body,
    steps_examples,
    steps_work,
)

Forms = tuple[dict[str, Any], ...]


def infer_gradient(call: OpCall) -> Sequence[TensorType]:
    """Gradients of ``fed``, of a GRU's products as those of ``fed``, of first states."""
    s = StepsCall.of(call)
    fed = call.input(FED)
    return (*[fed] * (2 if s.cell == "GRU" else 1), *[s.state] * STATES[s.cell])


def gradient_work(call: OpCall) -> Work:
    """A product and the gates' arithmetic a step."""
    r = StepsCall.of(call).geometry
    rows = r.steps * r.batch * r.directions * r.gates * r.hidden
    kinds = [kind for kind in (*call.inputs, *call.outputs) if kind is not None]
    return Work(rows * (2 * r.hidden + CELL_FLOP), sum(kind.nbytes for kind in kinds))


class _Walk:
    """One direction of the gradient in NumPy."""

    def __init__(self, s: StepsCall, operands: Sequence[Any], number: int) -> None:
        self.s, self.r, self.number = s, s.geometry, number
        rows = self.r.gates * self.r.hidden
        self.columns = slice(number * rows, (number + 1) * rows)
        self.gates = operands[FED][..., self.columns]
        self.weights = operands[RECURRENT][number]
        self.operands = operands
        n, h = self.r.batch, self.r.hidden
        self.lengths = self._operand("lengths")
        self.dh, self.dc = self._own("dh", n, h), self._own("dc", n, h)
        self.peepholes = np.split(self._own("peepholes", 3 * h), 3)

    def _operand(self, name: str) -> Any:
        at = self.s.index(name)
        return None if at is None else self.operands[at]

    def _own(self, name: str, *shape: int) -> Array:
        value = self._operand(name)
        return np.zeros(shape, self.gates.dtype) if value is None else value[self.number]

    def _before(self, name: str, first: str, place: int, order: Sequence[int]) -> Array:
        """The state or cell that step ``place`` of the walk started from."""
        if place == 0:
            return self._own(first, self.r.batch, self.r.hidden)
        return np.asarray(self._operand(name)[order[place - 1], self.number])

    def run(self, dfed: Array, dproducts: Array) -> tuple[Array, Array]:
        """Fill in the gradients of all steps; those of the first state and cell."""
        order, dy = list(self.r.order(self.number)), self._operand("dy")
        rule = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.s.cell]
        for place in range(len(order) - 1, -1, -1):
            t = order[place]
            dh = self.dh if dy is None else self.dh + dy[t, self.number]
            fed, product, before, dc = rule(t, place, order, dh)
            if self.lengths is not None:
                inside = (t < self.lengths)[:, None]
                fed, product = np.where(inside, fed, 0), np.where(inside, product, 0)
                before, dc = np.where(inside, before, 0), np.where(inside, dc, self.dc)
                before = before + np.where(inside, 0, dh)
            dfed[t][:, self.columns], dproducts[t][:, self.columns] = fed, product
            self.dh, self.dc = before + product @ self.weights, dc
        return self.dh, self.dc

    def _lstm(self, t: int, place: int, order: list[int], dh: Array) -> tuple[Array, ...]:
        i, o, f, g = np.split(self.gates[t], 4, axis=1)
        p_i, p_o, p_f = self.peepholes
        before = self._before("kept", "c0", place, order)
        shown = np.tanh(self._operand("kept")[t, self.number])
        do = dh * shown * o * (1 - o)
        dc = self.dc + dh * o * (1 - shown * shown) + do * p_o
        di, df, dg = dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g)
        fed = np.concatenate([di, do, df, dg], axis=1)
        return fed, fed, np.zeros_like(dh), dc * f + di * p_i + df * p_f

    def _gru(self, t: int, place: int, order: list[int], dh: Array) -> tuple[Array, ...]:
        z, r, new = np.split(self.gates[t], 3, axis=1)
        product = self._operand("kept")[t, self.number]
        dz = dh * (self._before("y", "h0", place, order) - new) * z * (1 - z)
        dnew = dh * (1 - z) * (1 - new * new)
        dr = dnew * product * r * (1 - r)
        fed = np.concatenate([dz, dr, dnew], axis=1)
        return fed, np.concatenate([dz, dr, dnew * r], axis=1), dh * z, self.dc

    def _rnn(self, t: int, _place: int, _order: list[int], dh: Array) -> tuple[Array, ...]:
        y = self.gates[t]
        fed = dh * (y > 0) if self.s.activation == "relu" else dh * (1 - y * y)
        return fed, fed, np.zeros_like(dh), self.dc


def gradient(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """The gradient in NumPy."""
    s = StepsCall.of(call)
    dfed, dproducts = np.zeros_like(operands[FED]), np.zeros_like(operands[FED])
    ends = [_Walk(s, operands, d).run(dfed, dproducts) for d in range(s.geometry.directions)]
    first = [np.stack(each) for each in zip(*ends, strict=True)][: STATES[s.cell]]
    return (dfed, *([dproducts] if s.cell == "GRU" else []), *first)


def steps_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """The walk, then one product for the recurrent weights; sums for what a step adds or peeps."""
    s = StepsCall.of(g.call)
    outputs = g.outputs if g.call.output_count > 1 + STATES[s.cell] else _with_saved(g, s)
    gates = outputs[1 + STATES[s.cell]]
    known: dict[str, ir.Value | None] = {"gates": gates, "y": outputs[0], "kept": outputs[-1]}
    known |= dict(zip(OPERANDS[s.cell], g.inputs, strict=False)) | {"gates": gates}
    known |= dict(zip(("dy", "dh", "dc"), g.grads, strict=False))
    operands = [known.get(name) for name in GRADIENT_OPERANDS[s.cell]]
    attributes = {name: g.call.attributes[name] for name in g.call.attributes}
    count = STATES[s.cell] + (2 if s.cell == "GRU" else 1)
    found = g.ops(f"{s.cell}StepsGrad", operands, attributes, outputs=count, domain=COEXEC)
    products = found[1] if s.cell == "GRU" else found[0]
    writer = _Sums(g, s, products)
    results: dict[str, ir.Value | None] = {"fed": found[0], "h0": found[-STATES[s.cell]]}
    if g.wanted[RECURRENT]:
        results["recurrent"] = writer.weights(outputs[0], known.get("h0"))
    if s.cell == "LSTM":
        results["c0"] = found[-1]
        results["peepholes"] = writer.peepholes(outputs[-1], known.get("c0"))
    if s.cell == "GRU":
        results["shift"] = writer.shift()
    return [results.get(name) if value else None for name, value in _named(s, g)]


def _named(s: StepsCall, g: GradientScope) -> list[tuple[str, bool]]:
    """Operands by name, and whether a gradient of them is asked for."""
    return list(zip(OPERANDS[s.cell], g.wanted, strict=False))


def _with_saved(g: GradientScope, s: StepsCall) -> tuple[ir.Value, ...]:
    """The steps once more, with what their gradient needs."""
    count = 1 + STATES[s.cell] + SAVED[s.cell]
    attributes = dict(g.call.attributes)
    return g.ops(g.call.op_type, list(g.inputs), attributes, outputs=count, domain=COEXEC)


class _Sums:
    """Sums over all steps: of ``products`` (T, N, D G H), what flows to the recurrent products."""

    def __init__(self, g: GradientScope, s: StepsCall, products: ir.Value) -> None:
        self.g, self.s, self.r, self.products = g, s, s.geometry, products
        self.dtype = s.call.input(FED).dtype

    def _ints(self, *values: int) -> ir.Value:
        return self.g.constant(np.asarray(values, np.int64), "int64")

    def _reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        return self.g.op("Reshape", [value, self._ints(*shape)])

    def _slice(self, value: ir.Value, begin: int, end: int, axis: int) -> ir.Value:
        return self.g.op("Slice", [value, *map(self._ints, (begin, end, axis))])

    def _direction(self, value: ir.Value, number: int, axis: int, size: int) -> ir.Value:
        if self.r.directions == 1:
            return value
        return self._slice(value, number * size, (number + 1) * size, axis)

    def _before(self, y: ir.Value, first: ir.Value | None, number: int) -> ir.Value:
        """States (T N, H) that the steps of a direction started from."""
        r = self.r
        own = self._direction(y, number, 1, 1)
        start = self.g.constant(np.zeros((1, 1, r.batch, r.hidden)), self.dtype)
        if first is not None:
            start = self._reshape(self._direction(first, number, 0, 1), 1, 1, r.batch, r.hidden)
        parts = [start, self._slice(own, 0, r.steps - 1, 0)]
        if r.backwards(number):
            parts = [self._slice(own, 1, r.steps, 0), start]
        if r.steps == 1:
            parts = [start]
        return self._reshape(self.g.op("Concat", parts, {"axis": 0}), r.steps * r.batch, r.hidden)

    def _flat(self, number: int) -> ir.Value:
        """What flows to the products of a direction, (T N, G H)."""
        rows = self.r.gates * self.r.hidden
        own = self._direction(self.products, number, 2, rows)
        return self._reshape(own, self.r.steps * self.r.batch, rows)

    def weights(self, y: ir.Value, first: ir.Value | None) -> ir.Value:
        """The gradient of the recurrent weights (D, G H, H)."""
        rows = self.r.gates * self.r.hidden
        each = []
        for d in range(self.r.directions):
            operands = [self._flat(d), self._before(y, first, d)]
            product = self.g.op("Gemm", operands, {"transA": 1})
            each.append(self._reshape(product, 1, rows, self.r.hidden))
        return each[0] if len(each) == 1 else self.g.op("Concat", each, {"axis": 0})

    def _gate(self, number: int, gate: int) -> ir.Value:
        """What flows to one gate, (T N, H)."""
        h = self.r.hidden
        return self._slice(self._flat(number), gate * h, (gate + 1) * h, 1)

    def _summed(self, value: ir.Value) -> ir.Value:
        return self.g.op("ReduceSum", [value, self._ints(0)], {"keepdims": 1})

    def peepholes(self, cells: ir.Value, first: ir.Value | None) -> ir.Value | None:
        """The gradient of the peepholes (D, 3 H), if there are any."""
        if self.s.index("peepholes") is None:
            return None
        r, each = self.r, []
        for d in range(r.directions):
            before = self._before(cells, first, d)
            own = self._direction(cells, d, 1, 1)
            after = self._reshape(own, r.steps * r.batch, r.hidden)
            seen = zip((0, 1, 2), (before, after, before), strict=True)
            products = [self.g.op("Mul", [self._gate(d, gate), c]) for gate, c in seen]
            sums = [self._summed(product) for product in products]
            each.append(self.g.op("Concat", sums, {"axis": 1}))
        return each[0] if len(each) == 1 else self.g.op("Concat", each, {"axis": 0})

    def shift(self) -> ir.Value | None:
        """The gradient of what a GRU adds to its products (D, H), if it adds anything."""
        if self.s.index("shift") is None:
            return None
        sums = [self._summed(self._gate(d, 2)) for d in range(self.r.directions)]
        return sums[0] if len(sums) == 1 else self.g.op("Concat", sums, {"axis": 0})


def _gradient_examples(cell: str, forms: Forms) -> tuple[Example, ...]:
    """Saved values are any of their range: the walk asks for no more."""
    found = []
    for number, form in enumerate(forms):
        t, n, h = ((4, 3, 5), (3, 2, 3), (2, 7, 2), (1, 2, 4), (6, 17, 33))[number % 5]
        d, gates = 1 + (form.get("direction") == "bidirectional"), len(GATE_NAMES[cell])
        states, state = Sample((t, d, n, h)), Sample((d, n, h))
        lengths = np.asarray([max(1, t - k) for k in range(n)], np.int32)
        all_operands: dict[str, Any] = {
            "gates": Sample((t, n, d * gates * h), low=0.1, high=0.9),
            "recurrent": Sample((d, gates * h, h), low=-0.5, high=0.5),
            "peepholes": Sample((d, 3 * h)),
            "lengths": lengths,
        }
        all_operands |= dict.fromkeys(("kept", "y", "dy"), states)
        all_operands |= dict.fromkeys(("h0", "c0", "dh", "dc"), state)
        always = ("gates", "recurrent", "kept", "y", "dy")
        given = (*always, *form.get("given", ()))
        names = GRADIENT_OPERANDS[cell]
        operands = tuple(all_operands[name] if name in given else None for name in names)
        if "dy" in form.get("without", ()):
            operands = tuple(o if x != "dy" else None for x, o in zip(names, operands, strict=True))
        attributes = {k: v for k, v in form.items() if k not in ("given", "without")}
        outputs = STATES[cell] + (2 if cell == "GRU" else 1)
        found.append(Example(operands, attributes, outputs, gradient=False))
    return tuple(found)


EVERYTHING = ("h0", "c0", "peepholes", "shift", "lengths", "dh", "dc")
FORMS: Forms = (
    {"given": ("h0", "c0", "shift", "dh")},
    {"given": EVERYTHING, "direction": "bidirectional"},
    {"given": ("lengths", "h0"), "direction": "reverse"},
    {},
    {"given": EVERYTHING, "direction": "bidirectional"},
    {"given": ("h0", "c0", "dh", "dc"), "direction": "reverse"},
)
LATE: Forms = ({"given": ("dh", "h0"), "without": ("dy",)},)
RELU: Forms = ({"activation": "relu", "given": ("h0",)},)


def _pair(cell: str, forms: Forms) -> tuple[OpDef, OpDef]:
    walk = OpDef(
        f"{cell}StepsGrad",
        infer_gradient,
        gradient,
        domain=COEXEC,
        not_differentiable="second derivatives are not supported",
        work=gradient_work,
        examples=_gradient_examples(cell, (*forms, *LATE)),
        body=gradient_body,
        in_place=((0, 0),),
    )
    examples = (*steps_examples(cell, forms, False), *steps_examples(cell, forms, True))
    forward = OpDef(
        f"{cell}Steps",
        infer_steps,
        steps,
        domain=COEXEC,
        gradient=steps_gradient,
        work=steps_work,
        examples=examples,
        body=steps_body,
        in_place=((1 + STATES[cell], FED),),
    )
    return forward, walk


OPS = (*_pair("LSTM", FORMS), *_pair("GRU", FORMS), *_pair("RNN", (*FORMS, *RELU)))
