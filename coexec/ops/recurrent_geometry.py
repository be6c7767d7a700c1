"""Shapes and attributes of ONNX's LSTM, GRU and RNN, read and checked once for all who ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coexec.core.types import OpCall, TensorType

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
"""Gates of a cell, in ONNX's order: (h), (z, r, h), (i, o, f, c)."""

DIRECTIONS = ("forward", "reverse", "bidirectional")

X, W, R, B, LENGTHS, H0, C0, P = range(8)
"""Operands by position; GRU and RNN end with the initial hidden state."""

FUNCTIONS = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "relu": (None, None),
    "scaledtanh": (1.0, 1.0),
    "sigmoid": (None, None),
    "softplus": (None, None),
    "softsign": (None, None),
    "tanh": (None, None),
    "thresholdedrelu": (1.0, None),
}
"""Activations that ONNX names for recurrent cells: defaults of alpha and beta, where they have one.

They are those of ONNX's operators; affine and scaledtanh, which are none, do nothing by default
(ONNX Runtime: all zero).
"""

USUAL = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}


@dataclass(frozen=True)
class Activation:
    """A function of a cell: ``alpha`` and ``beta`` are 0 where it has none."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer: ``steps`` of ``batch`` vectors of ``inputs`` elements.

    ``gates`` vectors of ``hidden`` elements are computed in each step and direction.
    """

    steps: int
    batch: int
    inputs: int
    hidden: int
    gates: int
    direction: str
    batch_first: bool

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def backwards(self, number: int) -> bool:
        """Whether direction ``number`` starts at the end."""
        return self.direction == "reverse" or number == 1

    def order(self, number: int) -> range:
        """Times in the order in which direction ``number`` meets them."""
        return range(self.steps - 1, -1, -1) if self.backwards(number) else range(self.steps)

    @classmethod
    def of(cls, call: OpCall) -> Recurrence:
        """Of a call of LSTM, GRU or RNN; ``ValueError`` says which operand does not fit."""
        x, recurrent = call.input(X), call.input(R)
        if x.rank != 3 or recurrent.rank != 3:
            raise ValueError(f"X and R have three axes, not {x} and {recurrent}")
        direction = str(call.attribute("direction", "forward"))
        if direction not in DIRECTIONS:
            raise ValueError(f"direction {direction!r} is none of {', '.join(DIRECTIONS)}")
        batch_first = bool(call.attribute("layout", 0))
        steps, batch = (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
        hidden = int(call.attribute("hidden_size", recurrent.shape[2]))
        found = cls(steps, batch, x.shape[2], hidden, GATES[call.op_type], direction, batch_first)
        found._check(call)
        return found

    def state(self) -> tuple[int, ...]:
        """Shape of a state in the layout of the call."""
        if self.batch_first:
            return (self.batch, self.directions, self.hidden)
        return (self.directions, self.batch, self.hidden)

    def sequence(self) -> tuple[int, ...]:
        """Shape of all hidden states in the layout of the call."""
        if self.batch_first:
            return (self.batch, self.steps, self.directions, self.hidden)
        return (self.steps, self.directions, self.batch, self.hidden)

    def _check(self, call: OpCall) -> None:
        d, rows, h = self.directions, self.gates * self.hidden, self.hidden
        wanted = {
            W: ("W", (d, rows, self.inputs)),
            R: ("R", (d, rows, h)),
            B: ("B", (d, 2 * rows)),
            LENGTHS: ("sequence_lens", (self.batch,)),
            H0: ("initial_h", self.state()),
            C0: ("initial_c", self.state()),
            P: ("P", (d, 3 * h)),
        }
        for index, (name, shape) in wanted.items():
            if call.has_input(index) and call.input(index).shape != shape:
                raise ValueError(f"{name} is {call.input(index)}, expected shape {shape}")


def infer_recurrent(call: OpCall) -> Sequence[TensorType]:
    """Types of Y, Y_h and, of an LSTM, Y_c."""
    found, kind = Recurrence.of(call), call.input(X)
    activations(call, found.directions)
    limit(call)
    states = 2 if call.op_type == "LSTM" else 1
    return (kind.with_shape(found.sequence()), *[kind.with_shape(found.state())] * states)


def limit(call: OpCall) -> float:
    """What arguments of gates are clipped to on both sides; 0 where they are not.

    An LSTM's cell itself is not clipped where its output is made of it: as in ONNX Runtime.
    """
    clip = float(call.attribute("clip", 0.0))
    if clip < 0:
        raise ValueError(f"clip is {clip}, a threshold is positive")
    return clip


def activations(call: OpCall, directions: int) -> tuple[tuple[Activation, ...], ...]:
    """The activations of each direction; ``ValueError`` names one that ONNX does not have.

    ``activation_alpha`` and ``activation_beta`` are used up in order by those that have them.
    """
    usual = USUAL[call.op_type]
    names = [str(name).lower() for name in call.attribute("activations", usual * directions)]
    if len(names) != len(usual) * directions:
        raise ValueError(f"{len(names)} activations, expected {len(usual) * directions}")
    alphas = list(call.attribute("activation_alpha", ()))
    betas = list(call.attribute("activation_beta", ()))
    found = [_activation(name, alphas, betas) for name in names]
    return tuple(tuple(found[i : i + len(usual)]) for i in range(0, len(found), len(usual)))


def _activation(name: str, alphas: list[Any], betas: list[Any]) -> Activation:
    if name not in FUNCTIONS:
        raise ValueError(f"activation {name!r} is none of {', '.join(FUNCTIONS)}")
    alpha, beta = FUNCTIONS[name]
    return Activation(name, _next(alphas, alpha), _next(betas, beta))


def _next(given: list[Any], default: float | None) -> float:
    if default is None:
        return 0.0
    return float(given.pop(0)) if given else default


def is_usual(call: OpCall, directions: int) -> bool:
    """Whether a cell is the plain one: usual activations, no clipping, gates of their own.

    A GRU is plain where the reset gate acts on the product, as PyTorch's does; an RNN also with
    Relu.
    """
    plain = {USUAL[call.op_type]} | ({("relu",)} if call.op_type == "RNN" else set())
    names = {tuple(a.name for a in each) for each in activations(call, directions)}
    if call.op_type == "GRU" and not call.attribute("linear_before_reset", 0):
        return False
    return (
        len(names) == 1
        and names <= plain
        and limit(call) == 0
        and not call.attribute("input_forget", 0)
    )
