"""Optimizers: each appends the update of one parameter, in ONNX's training operators.

Every optimizer reads two scalars that change from step to step and are therefore graph inputs:
``learning_rate`` (float32) and ``step`` (int64, 0 for the first update).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.autodiff.schedules import Constant, Schedule
from coexec.core.types import TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of
from coexec.ops.opdef import TRAINING

Slot = Callable[[str], ir.Value]
"""``slot("momentum")`` is the graph input that holds this parameter's optimizer state."""


@dataclass(frozen=True)
class Update:
    """New value of a parameter and of its slots, by slot name."""

    parameter: ir.Value
    slots: dict[str, ir.Value]


class Optimizer(ABC):
    """A rule that turns gradients into parameter updates. ``learning_rate`` may be a schedule."""

    learning_rate: float | Schedule

    @property
    def schedule(self) -> Schedule:
        rate = self.learning_rate
        return rate if isinstance(rate, Schedule) else Constant(rate)

    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Names of the state tensors per parameter; all start as zeros of its shape."""

    @abstractmethod
    def update(
        self,
        g: GraphBuilder,
        parameter: ir.Value,
        gradient: ir.Value,
        slot: Slot,
        rate: ir.Value,
        step: ir.Value,
    ) -> Update:
        """Append the update of one parameter."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as in PyTorch (dampening 0).

    ``weight_decay`` adds ``weight_decay * parameter`` to the gradient.
    """

    learning_rate: float | Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    def slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def update(
        self,
        g: GraphBuilder,
        parameter: ir.Value,
        gradient: ir.Value,
        slot: Slot,
        rate: ir.Value,
        step: ir.Value,
    ) -> Update:
        if not self.momentum:
            return Update(self._plain(g, parameter, gradient, rate), {})
        attributes = {
            "alpha": self.momentum,
            "beta": 1.0,
            "mode": "nesterov" if self.nesterov else "standard",
            "norm_coefficient": self.weight_decay,
        }
        new, velocity = g.ops(
            "Momentum",
            [rate, step, parameter, gradient, slot("momentum")],
            attributes,
            outputs=2,
            domain=TRAINING,
        )
        return Update(new, {"momentum": velocity})

    def _plain(
        self, g: GraphBuilder, parameter: ir.Value, gradient: ir.Value, rate: ir.Value
    ) -> ir.Value:
        if self.weight_decay:
            decay = g.constant(self.weight_decay, type_of(parameter).dtype)
            gradient = g.op("Add", [gradient, g.op("Mul", [parameter, decay])])
        return g.op("Sub", [parameter, g.op("Mul", [gradient, _like(g, rate, parameter)])])


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015) by ONNX's operator; ``weight_decay`` is added to the gradient.

    ONNX adds ``epsilon`` to the square root of the raw second moment, before bias correction.
    """

    learning_rate: float | Schedule = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def slots(self) -> tuple[str, ...]:
        return ("first_moment", "second_moment")

    def update(
        self,
        g: GraphBuilder,
        parameter: ir.Value,
        gradient: ir.Value,
        slot: Slot,
        rate: ir.Value,
        step: ir.Value,
    ) -> Update:
        attributes = {
            "alpha": self.beta1,
            "beta": self.beta2,
            "epsilon": self.epsilon,
            "norm_coefficient": self.weight_decay,
        }
        # ONNX corrects the bias with T itself and not at all for T = 0: the first update has T = 1.
        count = g.op("Add", [step, g.constant(1, "int64")])
        first, second = slot("first_moment"), slot("second_moment")
        new, m, v = g.ops(
            "Adam",
            [rate, count, parameter, gradient, first, second],
            attributes,
            outputs=3,
            domain=TRAINING,
        )
        return Update(new, {"first_moment": m, "second_moment": v})


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): p <- p (1 - rate * decay)."""

    weight_decay: float = 0.01

    def update(
        self,
        g: GraphBuilder,
        parameter: ir.Value,
        gradient: ir.Value,
        slot: Slot,
        rate: ir.Value,
        step: ir.Value,
    ) -> Update:
        shrink = g.op("Mul", [rate, g.constant(self.weight_decay, "float32")])
        keep = g.op("Sub", [g.constant(1.0, "float32"), shrink])
        decayed = g.op("Mul", [parameter, _like(g, keep, parameter)])
        plain = Adam(self.learning_rate, self.beta1, self.beta2, self.epsilon)
        return plain.update(g, decayed, gradient, slot, rate, step)


def _like(g: GraphBuilder, scalar: ir.Value, parameter: ir.Value) -> ir.Value:
    """A float32 scalar in the parameter's element type."""
    same = type_of(scalar).dtype == type_of(parameter).dtype
    return scalar if same else g.op("CastLike", [scalar, parameter])


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
"""Optimizers by their name on the command line."""

RATE_TYPE = TensorType((), np.dtype(np.float32))
