"""ONNX's recurrent layers: LSTM, GRU, RNN.

Their bodies are one product for the inputs of all steps and then ``coexec::LSTMSteps`` and its like
(:mod:`coexec.ops.recurrent_steps`), which a processor computes as a whole, or, where the cell is
not the usual one, the steps in standard operators. Weights keep their names: bodies read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample, Work
from coexec.ops.recurrent_geometry import (
    C0,
    H0,
    LENGTHS,
    Activation,
    B,
    P,
    R,
    Recurrence,
    W,
    X,
    activations,
    infer_recurrent,
    is_usual,
    limit,
)
from coexec.ops.recurrent_reference import recurrent
from coexec.ops.recurrent_unrolled import MAX_STEPS, Cell, Unroller

CELL_FLOP = 32
"""Operations of a gate's activation and of what is made of it, an element."""

STEPS = {"LSTM": "LSTMSteps", "GRU": "GRUSteps", "RNN": "RNNSteps"}


def recurrent_work(call: OpCall) -> Work:
    """Two products a step and the gates; every operand is read once, every result written once."""
    r = Recurrence.of(call)
    rows = r.steps * r.batch * r.directions * r.gates * r.hidden
    kinds = [kind for kind in (*call.inputs, *call.outputs) if kind is not None]
    flop = rows * (2 * (r.inputs + r.hidden) + CELL_FLOP)
    return Work(flop, sum(kind.nbytes for kind in kinds))


def recurrent_body(call: OpCall) -> ir.Function | None:
    """The layer as steps that processors compute as a whole, else in standard operators."""
    found = Recurrence.of(call)
    usual = is_usual(call, found.directions)
    if not usual and found.steps > MAX_STEPS:
        return None
    b = FunctionBuilder(call)
    layer = _Layer(b, call, found)
    y, *states = layer.whole() if usual else layer.unrolled()
    return b.function([layer.shown(y), *map(layer.turned, states)][: call.output_count])


class _Layer:
    """Writes a layer; its values are in ONNX's first layout: (T, D, N, H), states (D, N, H)."""

    def __init__(self, b: FunctionBuilder, call: OpCall, found: Recurrence) -> None:
        self.b, self.call, self.found = b, call, found
        self.steps = Unroller(b, call, found)
        self.rows = found.gates * found.hidden
        given = [b.inputs[i] if call.has_input(i) else None for i in range(8)]
        self.given = [self.turned(v) if v and i in (X, H0, C0) else v for i, v in enumerate(given)]

    def turned(self, value: ir.Value) -> ir.Value:
        """A value with time or direction in front, or the other way round (layout 1)."""
        if not self.found.batch_first:
            return value
        return self.b.op("Transpose", [value], {"perm": (1, 0, 2)})

    def shown(self, y: ir.Value) -> ir.Value:
        """Hidden states as the caller wants them: zero behind the ends, in his layout."""
        lengths = self.given[LENGTHS]
        if lengths is not None:
            wide = self.b.op("Cast", [lengths], {"to": int(ir.DataType.INT64)})
            ends = self.steps.reshape(wide, 1, 1, self.found.batch, 1)
            times = np.arange(self.found.steps).reshape(-1, 1, 1, 1)
            inside = self.b.op("Less", [self.b.constant(times, "int64"), ends])
            y = self.b.op("Where", [inside, y, self.steps.zero])
        if not self.found.batch_first:
            return y
        return self.b.op("Transpose", [y], {"perm": (2, 0, 1, 3)})

    def value(self, index: int) -> ir.Value:
        value = self.given[index]
        assert value is not None  # shape rules have seen to it
        return value

    def whole(self) -> tuple[ir.Value, ...]:
        """One product for the inputs of all steps, then all steps in one operator."""
        r, reshape = self.found, self.steps.reshape
        bias, shift = self._biases()
        flat = reshape(self.value(X), r.steps * r.batch, r.inputs)
        weights = reshape(self.value(W), r.directions * self.rows, r.inputs)
        operands = [flat, weights] if bias is None else [flat, weights, bias]
        fed = self.b.op("Gemm", operands, {"transB": 1})
        fed = reshape(fed, r.steps, r.batch, r.directions * self.rows)
        h, c, p, lengths = (self.given[i] for i in (H0, C0, P, LENGTHS))
        attributes: dict[str, Any] = {"direction": r.direction}
        kind = self.call.op_type
        if kind == "RNN":
            attributes["activation"] = activations(self.call, r.directions)[0][0].name
        inputs = {
            "LSTM": [fed, self.value(R), h, c, p, lengths],
            "GRU": [fed, self.value(R), h, shift, lengths],
            "RNN": [fed, self.value(R), h, lengths],
        }[kind]
        count = 3 if kind == "LSTM" else 2
        return self.b.ops(STEPS[kind], inputs, attributes, outputs=count, domain=COEXEC)

    def _biases(self) -> tuple[ir.Value | None, ir.Value | None]:
        """What is added to the inputs of all steps, and to a GRU's product that is reset."""
        if self.given[B] is None:
            return None, None
        r, h, reshape = self.found, self.found.hidden, self.steps.reshape
        both = reshape(self.value(B), r.directions, 2, self.rows)
        shift = None
        if self.call.op_type == "GRU":
            of_input, of_state = self.steps.split(both, 2, 1)
            rates, own = self.steps.cut(of_state, (2 * h, h), 2)
            shift = reshape(own, r.directions, h)
            none = self.b.constant(np.zeros((r.directions, 1, h)), self.steps.dtype)
            added = self.b.op("Concat", [rates, none], {"axis": 2})
            total = self.steps.add(of_input, added)
        else:
            total = self.b.op("ReduceSum", [both, self.b.shape([1])], {"keepdims": 0})
        return reshape(total, r.directions * self.rows), shift

    def unrolled(self) -> tuple[ir.Value, ...]:
        """Each direction on its own, step by step."""
        runs = [self._direction(d) for d in range(self.found.directions)]
        shape = (1, self.found.batch, self.found.hidden)
        y = self.b.op("Concat", [run[0] for run in runs], {"axis": 1})
        states = [
            self.b.op("Concat", [self.steps.reshape(run[i], *shape) for run in runs], {"axis": 0})
            for i in (1, 2)
        ]
        return (y, *states[: 2 if self.call.op_type == "LSTM" else 1])

    def _direction(self, number: int) -> tuple[ir.Value, ir.Value, ir.Value]:
        r, part, reshape = self.found, self.steps.part, self.steps.reshape
        weights = part(self.value(W), number, self.rows, r.inputs)
        flat = reshape(self.value(X), r.steps * r.batch, r.inputs)
        bias, shift = self._bias_of(number)
        operands = [flat, weights] if bias is None else [flat, weights, bias]
        fed = self.b.op("Gemm", operands, {"transB": 1})
        return self.steps.run(
            self._cell(number, shift), reshape(fed, r.steps, r.batch, self.rows), number
        )

    def _bias_of(self, number: int) -> tuple[ir.Value | None, ir.Value | None]:
        bias, shift = self._biases()
        if bias is None:
            return None, None
        r = self.found
        both = self.steps.reshape(bias, r.directions, self.rows)
        own = self.steps.part(both, number, self.rows)
        if shift is None:
            return own, None
        shift = self.steps.part(shift, number, r.hidden)
        if self.call.attribute("linear_before_reset", 0):
            return own, shift
        none = self.b.constant(np.zeros(2 * r.hidden), self.steps.dtype)
        return self.steps.add(own, self.b.op("Concat", [none, shift], {"axis": 0})), None

    def _cell(self, number: int, shift: ir.Value | None) -> Cell:
        r, part = self.found, self.steps.part
        peepholes: Sequence[ir.Value] = ()
        if self.given[P] is not None:
            peepholes = self.steps.split(part(self.value(P), number, 3 * r.hidden), 3, 0)
        functions: Sequence[Activation] = activations(self.call, r.directions)[number]
        return Cell(
            functions,
            part(self.value(R), number, self.rows, r.hidden),
            self.steps.state(self.given[H0], number),
            self.steps.state(self.given[C0], number),
            clip=limit(self.call),
            coupled=bool(self.call.attribute("input_forget", 0)),
            reset_product=bool(self.call.attribute("linear_before_reset", 0)),
            peepholes=peepholes,
            shift=shift,
            lengths=self.steps.column(self.given[LENGTHS]),
        )


def _examples(kind: str, gates: int, forms: Sequence[dict[str, Any]]) -> tuple[Example, ...]:
    """Each form (attributes; ``given`` names optional operands) on a layer of its own size."""
    found = []
    for number, form in enumerate(forms):
        attributes = {name: value for name, value in form.items() if name != "given"}
        given = str(form.get("given", ""))
        t, n, i, h = ((4, 3, 2, 5), (3, 2, 4, 6), (1, 1, 3, 17))[number % 3]
        d = 2 if attributes.get("direction") == "bidirectional" else 1
        first = bool(attributes.get("layout"))
        state = Sample((n, d, h) if first else (d, n, h))
        lengths = np.asarray([max(1, t - k) for k in range(n)], np.int32)
        operands: list[Any] = [
            Sample((n, t, i) if first else (t, n, i)),
            Sample((d, gates * h, i)),
            Sample((d, gates * h, h), low=-0.5, high=0.5),
            Sample((d, 2 * gates * h)) if "b" in given else None,
            lengths if "n" in given else None,
            state if "h" in given else None,
            state if "c" in given else None,
            Sample((d, 3 * h)) if "p" in given else None,
        ]
        operands = operands[: 8 if kind == "LSTM" else 6]
        attributes["hidden_size"] = h
        outputs = 3 if kind == "LSTM" else 2
        found.append(Example(tuple(operands), attributes, outputs, gradient=False))
    return tuple(found)


COMMON_FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"given": "bh", "direction": "reverse"},
    {"given": "bhn", "direction": "bidirectional"},
    {"given": "bn", "layout": 1},
    {"given": "bhn", "direction": "reverse", "clip": 0.5},
)
LSTM_FORMS: tuple[dict[str, Any], ...] = (
    *COMMON_FORMS,
    {"given": "bhcp"},
    {"given": "bhcpn", "direction": "bidirectional", "layout": 1},
    {"given": "bp", "input_forget": 1},
    {"given": "b", "activations": ["HardSigmoid", "ScaledTanh", "Softsign"]},
)
GRU_FORMS: tuple[dict[str, Any], ...] = (
    *COMMON_FORMS,
    *({**form, "linear_before_reset": 1} for form in COMMON_FORMS[:4]),
    {"given": "b", "activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.3]},
)
RNN_FORMS: tuple[dict[str, Any], ...] = (
    *COMMON_FORMS,
    {"given": "bh", "activations": ["Relu"]},
    {"given": "b", "activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]},
)
THROUGH_STEPS = (
    "training puts its steps in its place, which have a gradient (cells that are not the usual "
    f"ones: of up to {MAX_STEPS} steps)"
)


def _layer(kind: str, gates: int, forms: Sequence[dict[str, Any]]) -> OpDef:
    return OpDef(
        kind,
        infer_recurrent,
        recurrent,
        not_differentiable=THROUGH_STEPS,
        work=recurrent_work,
        examples=_examples(kind, gates, forms),
        body=recurrent_body,
    )


LSTM = _layer("LSTM", 4, LSTM_FORMS)
GRU = _layer("GRU", 3, GRU_FORMS)
RNN = _layer("RNN", 1, RNN_FORMS)

OPS = (LSTM, GRU, RNN)
