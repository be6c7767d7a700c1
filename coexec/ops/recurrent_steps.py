"""All steps of a usual recurrent layer as one operator: what follows the product with its inputs.

``fed`` (T, N, D G H) is what the inputs of each step come to, biases included; ``recurrent``
(D, G H, H) multiplies the state before. Gates stand in ONNX's order. Where a sequence has ended,
its state stays as it is. Asked for them, the steps also give what their gradient needs: the gates'
values, in the place of ``fed`` if that is no longer read, and an LSTM's cells or a GRU's products.
The gradient of the recurrent weights is one product over all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import Example, Sample, Work
from coexec.ops.recurrent_geometry import DIRECTIONS, USUAL, Activation, Recurrence
from coexec.ops.recurrent_reference import sigmoid
from coexec.ops.recurrent_unrolled import MAX_STEPS, Cell, Unroller

FED, RECURRENT, H0 = range(3)
OPERANDS = {
    "LSTM": ("fed", "recurrent", "h0", "c0", "peepholes", "lengths"),
    "GRU": ("fed", "recurrent", "h0", "shift", "lengths"),
    "RNN": ("fed", "recurrent", "h0", "lengths"),
}
"""Operands of the steps by position; those after ``recurrent`` may be absent.

``peepholes`` (D, 3 H) are for i, o, f; ``shift`` (D, H) is added to a GRU's product that its reset
gate multiplies; ``lengths`` (N) are integers.
"""
GRADIENT_OPERANDS = {
    "LSTM": ("gates", "recurrent", "c0", "peepholes", "lengths", "kept", "dy", "dh", "dc"),
    "GRU": ("gates", "recurrent", "h0", "lengths", "kept", "y", "dy", "dh"),
    "RNN": ("gates", "recurrent", "lengths", "dy", "dh"),
}
"""Operands of the gradients by position: what the steps saved, and what flows back.

``kept`` are an LSTM's cells or a GRU's products, ``y`` all states; ``dy``, ``dh``, ``dc`` are the
gradients of all states, of the last one and of the last cell. Optional ones may be absent.
"""
SAVED = {"LSTM": 2, "GRU": 2, "RNN": 1}
"""Outputs behind the states that the gradient needs: gates, then cells or products (T, D, N, H)."""
STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
CELL_FLOP = 32


@dataclass(frozen=True)
class StepsCall:
    """A call of steps or of their gradient: its cell, geometry and operands by name."""

    call: OpCall
    cell: str
    geometry: Recurrence

    @classmethod
    def of(cls, call: OpCall) -> StepsCall:
        """``ValueError`` says which operand does not fit."""
        cell = call.op_type.removesuffix("Grad").removesuffix("Steps")
        fed, recurrent = call.input(FED), call.input(RECURRENT)
        direction = str(call.attribute("direction", "forward"))
        if fed.rank != 3 or recurrent.rank != 3 or direction not in DIRECTIONS:
            raise ValueError(f"{direction} steps of {fed} and {recurrent}")
        directions, rows, hidden = recurrent.shape
        steps, batch, width = fed.shape
        gates = rows // hidden if hidden else 0
        found = cls(call, cell, Recurrence(steps, batch, 0, hidden, gates, direction, False))
        if width != directions * rows or gates != len(GATE_NAMES[cell]):
            raise ValueError(f"{fed} does not fit recurrent weights {recurrent}")
        if directions != found.geometry.directions:
            raise ValueError(f"{direction} steps have no recurrent weights {recurrent}")
        found._check()
        return found

    @property
    def activation(self) -> str:
        return str(self.call.attribute("activation", USUAL[self.cell][-1]))

    @property
    def is_gradient(self) -> bool:
        return self.call.op_type.endswith("Grad")

    def index(self, name: str) -> int | None:
        """Position of an operand that is there."""
        names = (GRADIENT_OPERANDS if self.is_gradient else OPERANDS)[self.cell]
        at = names.index(name) if name in names else -1
        return at if at >= 0 and self.call.has_input(at) else None

    @property
    def states(self) -> TensorType:
        """All hidden states."""
        return self.call.input(FED).with_shape(self.geometry.sequence())

    @property
    def state(self) -> TensorType:
        """The states of one time."""
        return self.call.input(FED).with_shape(self.geometry.state())

    def _check(self) -> None:
        r = self.geometry
        wanted = {
            "h0": r.state(),
            "c0": r.state(),
            "peepholes": (r.directions, 3 * r.hidden),
            "shift": (r.directions, r.hidden),
            "lengths": (r.batch,),
            "kept": r.sequence(),
            "y": r.sequence(),
            "dy": r.sequence(),
            "dh": r.state(),
            "dc": r.state(),
        }
        for name, shape in wanted.items():
            at = self.index(name)
            if at is not None and self.call.input(at).shape != shape:
                raise ValueError(f"{name} is {self.call.input(at)}, expected shape {shape}")


GATE_NAMES = {"LSTM": "iofc", "GRU": "zrh", "RNN": "h"}


def infer_steps(call: OpCall) -> Sequence[TensorType]:
    """Hidden states (T, D, N, H), last states (D, N, H), then what the gradient needs."""
    s = StepsCall.of(call)
    saved = [call.input(FED), s.states][: SAVED[s.cell]]
    return (s.states, *[s.state] * STATES[s.cell], *saved)


def steps_work(call: OpCall) -> Work:
    """A product and the gates' arithmetic a step."""
    r = StepsCall.of(call).geometry
    rows = r.steps * r.batch * r.directions * r.gates * r.hidden
    kinds = [kind for kind in (*call.inputs, *call.outputs) if kind is not None]
    return Work(rows * (2 * r.hidden + CELL_FLOP), sum(kind.nbytes for kind in kinds))


class _Direction:
    """One direction of the steps in NumPy; what they save stands in arrays of the whole layer."""

    def __init__(self, s: StepsCall, operands: Sequence[Any], number: int) -> None:
        self.s, self.r, self.number = s, s.geometry, number
        rows = self.r.gates * self.r.hidden
        self.columns = slice(number * rows, (number + 1) * rows)
        self.fed = operands[FED][..., self.columns]
        self.weights = operands[RECURRENT][number]

        def operand(name: str) -> Any:
            at = s.index(name)
            return None if at is None else operands[at]

        def of_direction(name: str, *shape: int) -> Array:
            value = operand(name)
            return np.zeros(shape, self.fed.dtype) if value is None else value[number]

        n, h = self.r.batch, self.r.hidden
        self.lengths = operand("lengths")
        self.h, self.c = of_direction("h0", n, h), of_direction("c0", n, h)
        self.shift = of_direction("shift", h)
        self.peepholes = np.split(of_direction("peepholes", 3 * h), 3)

    def step(self, fed: Array) -> tuple[Array, Array, list[Array], Array]:
        """New state and cell, the gates' values, and the cell or product that is kept."""
        if self.s.cell == "RNN":
            total = fed + self.h @ self.weights.T
            new = np.maximum(total, 0) if self.s.activation == "relu" else np.tanh(total)
            return new, self.c, [new], self.c
        if self.s.cell == "GRU":
            sums = self.h @ self.weights.T
            rates, product = sums[:, : -self.r.hidden], sums[:, -self.r.hidden :] + self.shift
            z, r = np.split(sigmoid(fed[:, : -self.r.hidden] + rates), 2, axis=1)
            new = np.tanh(fed[:, -self.r.hidden :] + r * product)
            return new + z * (self.h - new), self.c, [z, r, new], product
        i, o, f, c = np.split(fed + self.h @ self.weights.T, 4, axis=1)
        p_i, p_o, p_f = self.peepholes
        i, f, c = sigmoid(i + p_i * self.c), sigmoid(f + p_f * self.c), np.tanh(c)
        cell = f * self.c + i * c
        o = sigmoid(o + p_o * cell)
        return o * np.tanh(cell), cell, [i, o, f, c], cell

    def run(self, y: Array, gates: Array, kept: Array) -> tuple[Array, Array]:
        """Fill in what belongs to this direction; its last state and cell."""
        for t in self.r.order(self.number):
            h, c, values, keep = self.step(self.fed[t])
            if self.lengths is not None:
                inside = (t < self.lengths)[:, None]
                h, c = np.where(inside, h, self.h), np.where(inside, c, self.c)
                keep = c if self.s.cell == "LSTM" else keep
            self.h, self.c = h, c
            y[t, self.number], kept[t, self.number] = h, keep
            gates[t][:, self.columns] = np.concatenate(values, axis=1)
        return self.h, self.c


def steps(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """The steps in NumPy."""
    s = StepsCall.of(call)
    y, kept = np.zeros((2, *s.states.shape), operands[FED].dtype)
    gates = np.zeros_like(operands[FED])
    ends = [_Direction(s, operands, d).run(y, gates, kept) for d in range(s.geometry.directions)]
    last = [np.stack(each) for each in zip(*ends, strict=True)]
    return (y, *last[: STATES[s.cell]], *[gates, kept][: SAVED[s.cell]])


def steps_body(call: OpCall) -> ir.Function | None:
    """The steps one after the other in standard operators; none if they are too many."""
    s = StepsCall.of(call)
    r, states = s.geometry, STATES[s.cell]
    if r.steps > MAX_STEPS:
        return None
    b = FunctionBuilder(call)
    u = Unroller(b, call, r)

    def given(name: str) -> ir.Value | None:
        at = s.index(name)
        return None if at is None else b.inputs[at]

    cells: list[Cell] = []

    def run(number: int, fed: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        peepholes, shift = given("peepholes"), given("shift")
        whole = None if peepholes is None else u.part(peepholes, number, 3 * r.hidden)
        names = USUAL[s.cell] if s.cell != "RNN" else (s.activation,)
        cell = Cell(
            [Activation(name) for name in names],
            u.part(b.inputs[RECURRENT], number, r.gates * r.hidden, r.hidden),
            u.state(given("h0"), number),
            u.state(given("c0"), number),
            reset_product=True,
            peepholes=() if whole is None else u.split(whole, 3, 0),
            shift=None if shift is None else u.part(shift, number, r.hidden),
            lengths=u.column(given("lengths")),
        )
        cells.append(cell)
        return u.run(cell, fed, number)

    runs = [run(d, fed) for d, fed in enumerate(u.split(b.inputs[FED], r.directions, 2))]
    y = b.op("Concat", [each[0] for each in runs], {"axis": 1})
    last = [
        b.op("Concat", [u.reshape(each[i], 1, r.batch, r.hidden) for each in runs], {"axis": 0})
        for i in range(1, 1 + states)
    ]
    outputs = [y, *last]
    if call.output_count > len(outputs):
        outputs.append(b.op("Concat", [u.gates_of(cell) for cell in cells], {"axis": 2}))
    if call.output_count > len(outputs):
        outputs.append(b.op("Concat", [u.kept_of(cell) for cell in cells], {"axis": 1}))
    return b.function(outputs[: call.output_count])


def steps_examples(cell: str, forms: Sequence[dict[str, Any]], saved: bool) -> tuple[Example, ...]:
    """Each form (``given``: optional operands by first letters) on steps of a size of its own."""
    found = []
    for number, form in enumerate(forms):
        t, n, h = ((4, 3, 5), (3, 2, 3), (2, 7, 2), (1, 2, 4), (6, 17, 33))[number % 5]
        direction = str(form.get("direction", "forward"))
        d, gates = 1 + (direction == "bidirectional"), len(GATE_NAMES[cell])
        shapes: dict[str, Any] = {
            "h0": Sample((d, n, h)),
            "c0": Sample((d, n, h)),
            "peepholes": Sample((d, 3 * h)),
            "shift": Sample((d, h)),
            "lengths": np.asarray([max(1, t - k) for k in range(n)], np.int32),
        }
        given = form.get("given", ())
        operands = (
            Sample((t, n, d * gates * h)),
            Sample((d, gates * h, h), low=-0.5, high=0.5),
            *(shapes[name] if name in given else None for name in OPERANDS[cell][2:]),
        )
        attributes = {k: v for k, v in form.items() if k != "given"}
        small = t * n * d * gates * h < 500
        outputs = 1 + STATES[cell] + (SAVED[cell] if saved else 0)
        found.append(Example(operands, attributes, outputs, gradient=small and not saved))
    return tuple(found)
