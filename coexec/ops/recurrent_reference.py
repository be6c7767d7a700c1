"""LSTM, GRU and RNN in NumPy, step by step, as ONNX defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall
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
    limit,
)

Operands = Sequence[Any]
Function = Callable[[Array], Array]


def recurrent(call: OpCall, operands: Operands) -> Sequence[Array]:
    """Y, Y_h and, of an LSTM, Y_c."""
    found = Recurrence.of(call)
    given: list[Array | None] = [*operands, *[None] * (8 - len(operands))]
    if found.batch_first:
        given = [_turned(a) if i in (X, H0, C0) else a for i, a in enumerate(given)]
    runs = [_Direction(call, found, given, d).run() for d in range(found.directions)]
    y = np.stack([run[0] for run in runs], axis=1)
    states = [np.stack(each) for each in zip(*(run[1:] for run in runs), strict=True)]
    if found.batch_first:
        return np.moveaxis(y, 2, 0), *(_turned(state) for state in states)
    return y, *states


def _turned(array: Any) -> Any:
    """The first two axes changed for each other."""
    return None if array is None else np.swapaxes(array, 0, 1)


class _Direction:
    """One direction of a layer: operands (T, N, I), (G H, I), (G H, H), states (N, H)."""

    def __init__(self, call: OpCall, found: Recurrence, given: Sequence[Any], number: int) -> None:
        self.call, self.found, self.number = call, found, number
        self.x, self.w, self.r = given[X], given[W][number], given[R][number]
        rows, hidden = found.gates * found.hidden, found.hidden
        zeros = np.zeros((found.batch, hidden), self.x.dtype)
        bias = np.zeros(2 * rows, self.x.dtype) if given[B] is None else given[B][number]
        self.input_bias, self.bias = bias[:rows], bias[rows:]
        self.h = zeros if given[H0] is None else given[H0][number]
        self.c = zeros if given[C0] is None else given[C0][number]
        peepholes = np.zeros(3 * hidden, self.x.dtype) if given[P] is None else given[P][number]
        self.peepholes = np.split(peepholes, 3)
        self.lengths = given[LENGTHS]
        self.clip = limit(call)
        self.activations = activations(call, found.directions)[number]
        self.functions = [self._function(each) for each in self.activations]

    def run(self) -> tuple[Array, ...]:
        """All hidden states (T, N, H), zero behind the end of a sequence, and the last states."""
        step = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.call.op_type]
        y = np.zeros((self.found.steps, *self.h.shape), self.x.dtype)
        for t in self.found.order(self.number):
            h, c = step(self.x[t] @ self.w.T + self.input_bias)
            if self.lengths is None:
                y[t], self.h, self.c = h, h, c
                continue
            inside = (t < self.lengths)[:, None]
            y[t] = np.where(inside, h, 0)
            self.h, self.c = np.where(inside, h, self.h), np.where(inside, c, self.c)
        return (y, self.h, self.c) if self.call.op_type == "LSTM" else (y, self.h)

    def _function(self, activation: Activation) -> Function:
        def apply(x: Array) -> Array:
            return activate(activation, np.clip(x, -self.clip, self.clip) if self.clip else x)

        return apply

    def unclipped(self, cell: Array) -> Array:
        """The last activation, which clipping leaves alone."""
        return activate(self.activations[-1], cell)

    def _lstm(self, fed: Array) -> tuple[Array, Array]:
        i, o, f, c = np.split(fed + self.h @ self.r.T + self.bias, 4, axis=1)
        gate, squash, _ = self.functions
        p_i, p_o, p_f = self.peepholes
        into = gate(i + p_i * self.c)
        coupled = bool(self.call.attribute("input_forget", 0))
        forget = 1 - into if coupled else gate(f + p_f * self.c)
        cell = forget * self.c + into * squash(c)
        return gate(o + p_o * cell) * self.unclipped(cell), cell

    def _gru(self, fed: Array) -> tuple[Array, Array]:
        hidden, gate, squash = self.found.hidden, *self.functions
        own = 2 * hidden
        rates = fed[:, :own] + self.h @ self.r[:own].T + self.bias[:own]
        z, r = np.split(gate(rates), 2, axis=1)
        if self.call.attribute("linear_before_reset", 0):
            fresh = r * (self.h @ self.r[own:].T + self.bias[own:])
        else:
            fresh = (r * self.h) @ self.r[own:].T + self.bias[own:]
        return (1 - z) * squash(fed[:, own:] + fresh) + z * self.h, self.c

    def _rnn(self, fed: Array) -> tuple[Array, Array]:
        return self.functions[0](fed + self.h @ self.r.T + self.bias), self.c


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), which no argument makes overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def activate(activation: Activation, x: Array) -> Array:
    """An activation of ONNX's recurrent operators, in the type of ``x``."""
    alpha, beta = (x.dtype.type(v) for v in (activation.alpha, activation.beta))
    table: dict[str, Callable[[], Any]] = {
        "affine": lambda: alpha * x + beta,
        "elu": lambda: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))),
        "hardsigmoid": lambda: np.clip(alpha * x + beta, 0, 1),
        "leakyrelu": lambda: np.where(x >= 0, x, alpha * x),
        "relu": lambda: np.maximum(x, 0),
        "scaledtanh": lambda: alpha * np.tanh(beta * x),
        "sigmoid": lambda: sigmoid(x),
        "softplus": lambda: np.logaddexp(x, 0),
        "softsign": lambda: x / (1 + np.abs(x)),
        "tanh": lambda: np.tanh(x),
        "thresholdedrelu": lambda: np.where(x >= alpha, x, 0),
    }
    return np.asarray(table[activation.name](), x.dtype)
