"""Optimizers: each appends the update of one parameter, in ONNX's training operators.

Every optimizer reads two scalars that change from step to step and are therefore graph inputs:
``learning_rate`` (float32) and ``step`` (int64, 0 for the first update).

With ``state_bits=8`` the states of large parameters are kept in 8 bits (``ops/optim_8bit.py``): a
quarter of their bytes. Those of less than 4096 elements stay as they are, as in the paper.
"""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.autodiff.schedules import Constant, Schedule
from coexec.autodiff.state_bits import state_types
from coexec.base.arguments import check_number, check_texts
from coexec.base.errors import UsageError
from coexec.core.types import TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of
from coexec.ops.opdef import COEXEC, TRAINING
from coexec.ops.optim_8bit import BLOCK, CODE

Slot = Callable[[str], ir.Value]
"""``slot("momentum")`` is the graph input that holds this parameter's optimizer state."""


@dataclass(frozen=True)
class Update:
    """New value of a parameter and of its slots, by slot name."""

    parameter: ir.Value
    slots: dict[str, ir.Value]


@dataclass(frozen=True)
class Optimizer(ABC):
    """A rule that turns gradients into parameter updates. ``learning_rate`` may be a schedule.

    ``no_decay`` names parameters whose weights do not decay, ``rates`` factors on the learning rate
    of others, by shell patterns (the first that matches counts) or ``vectors``: what has one axis
    or none, as biases and norms.
    """

    learning_rate: float | Schedule
    no_decay: tuple[str, ...] = field(default=(), kw_only=True)
    rates: tuple[tuple[str, float], ...] = field(default=(), kw_only=True)

    @property
    def patterns(self) -> tuple[str, ...]:
        """What ``no_decay`` and ``rates`` are about."""
        return (*self.no_decay, *(pattern for pattern, _ in self.rates))

    def of(self, name: str, parameter: TensorType) -> Optimizer:
        """The optimizer of one parameter."""
        spared = any(matches(pattern, name, parameter) for pattern in self.no_decay)
        return self.without_decay() if spared else self

    def rate_factor(self, name: str, parameter: TensorType) -> float:
        """What the learning rate of one parameter is multiplied by."""
        found = (factor for what, factor in self.rates if matches(what, name, parameter))
        return next(found, 1.0)

    def without_decay(self) -> Optimizer:
        """This optimizer, but weights do not decay."""
        return self

    @property
    def schedule(self) -> Schedule:
        rate = self.learning_rate
        return rate if isinstance(rate, Schedule) else Constant(rate)

    @abstractmethod
    def slots(self, parameter: TensorType) -> Mapping[str, TensorType]:
        """The state tensors of a parameter of this type by name; all start as zeros."""

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


VECTORS = "vectors"
"""Stands for all parameters of one axis or none."""


def matches(pattern: str, name: str, parameter: TensorType) -> bool:
    """Whether a shell pattern, or ``vectors``, is about a parameter of this name and type."""
    return parameter.rank < 2 if pattern == VECTORS else fnmatch.fnmatchcase(name, pattern)


def _check(optimizer: SGD | Adam | RMSprop | Adagrad, *shares: str) -> None:
    """Refuse numbers that no optimizer computes with; ``shares`` are fields that stay below 1.

    Raises:
        UsageError: with the field's name.
    """
    if not isinstance(optimizer.learning_rate, Schedule):
        check_number("learning_rate", optimizer.learning_rate)
    check_number("weight_decay", optimizer.weight_decay)
    check_texts("no_decay", optimizer.no_decay, "('*.bias', 'vectors')")
    rates: Iterable[Any] = optimizer.rates
    for pair in rates:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise UsageError(
                f"rates is {optimizer.rates!r}; it has to be a tuple of pairs, such as "
                "(('backbone.*', 0.1),)"
            )
        check_number(f"the rate of {pair[0]!r}", pair[1])
    for name in shares:
        check_number(name, getattr(optimizer, name), below=1)
    if isinstance(optimizer, (SGD, Adam)) and optimizer.state_bits not in (8, 32):
        raise UsageError(f"state_bits must be 8 or 32, not {optimizer.state_bits}")


def _stepped(
    g: GraphBuilder,
    op_type: str,
    operands: Sequence[ir.Value],
    attributes: Mapping[str, float | str],
    slots: Mapping[str, ir.Value],
) -> Update:
    """The node of ONNX's operator on (R, T, X, G), or of its 8-bit form if states are codes."""
    first = next(iter(slots.values()))
    codes = type_of(first).dtype == CODE
    new, *states = g.ops(
        f"{op_type}8bit" if codes else op_type,
        [*operands, *slots.values()],
        {**attributes, "block_size": BLOCK} if codes else attributes,
        outputs=1 + len(slots),
        domain=COEXEC if codes else TRAINING,
    )
    return Update(new, dict(zip(slots, states, strict=True)))


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as in PyTorch (dampening 0).

    ``weight_decay`` adds ``weight_decay * parameter`` to the gradient.
    """

    learning_rate: float | Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    state_bits: int = 32

    def __post_init__(self) -> None:
        _check(self, "momentum")
        if self.nesterov and not self.momentum:
            raise UsageError("nesterov needs a momentum above 0")

    def without_decay(self) -> Optimizer:
        return replace(self, weight_decay=0.0)

    def slots(self, parameter: TensorType) -> Mapping[str, TensorType]:
        names = ("momentum",) if self.momentum else ()
        return state_types(names, parameter, self.state_bits)

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
        attributes: dict[str, float | str] = {
            "alpha": self.momentum,
            "beta": 1.0,
            "mode": "nesterov" if self.nesterov else "standard",
            "norm_coefficient": self.weight_decay,
        }
        slots = {name: slot(name) for name in self.slots(type_of(parameter))}
        return _stepped(g, "Momentum", [rate, step, parameter, gradient], attributes, slots)

    def _plain(
        self, g: GraphBuilder, parameter: ir.Value, gradient: ir.Value, rate: ir.Value
    ) -> ir.Value:
        gradient = _decaying(g, parameter, gradient, self.weight_decay)
        return _moved(g, parameter, gradient, rate)


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
    state_bits: int = 32

    def __post_init__(self) -> None:
        _check(self, "beta1", "beta2")
        check_number("epsilon", self.epsilon)

    def without_decay(self) -> Optimizer:
        return replace(self, weight_decay=0.0)

    def slots(self, parameter: TensorType) -> Mapping[str, TensorType]:
        return state_types(("first_moment", "second_moment"), parameter, self.state_bits)

    def update(
        self,
        g: GraphBuilder,
        parameter: ir.Value,
        gradient: ir.Value,
        slot: Slot,
        rate: ir.Value,
        step: ir.Value,
    ) -> Update:
        attributes: dict[str, float | str] = {
            "alpha": self.beta1,
            "beta": self.beta2,
            "epsilon": self.epsilon,
            "norm_coefficient": self.weight_decay,
        }
        # ONNX corrects the bias with T itself and not at all for T = 0: the first update has T = 1.
        count = g.op("Add", [step, g.constant(1, "int64")])
        slots = {name: slot(name) for name in self.slots(type_of(parameter))}
        return _stepped(g, "Adam", [rate, count, parameter, gradient], attributes, slots)


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
        plain = replace(self, weight_decay=0.0)
        return Adam.update(plain, g, decayed, gradient, slot, rate, step)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Gradients over the root of the moving mean of their squares (Tieleman and Hinton, 2012).

    As in PyTorch, not centred; ``weight_decay`` is added to the gradient.
    """

    learning_rate: float | Schedule = 0.01
    alpha: float = 0.99
    momentum: float = 0.0
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self, "alpha", "momentum")
        check_number("epsilon", self.epsilon)

    def without_decay(self) -> Optimizer:
        return replace(self, weight_decay=0.0)

    def slots(self, parameter: TensorType) -> Mapping[str, TensorType]:
        names = ("square_mean", *(("momentum",) if self.momentum else ()))
        return dict.fromkeys(names, parameter)

    def update(
        self,
        g: GraphBuilder,
        parameter: ir.Value,
        gradient: ir.Value,
        slot: Slot,
        rate: ir.Value,
        step: ir.Value,
    ) -> Update:
        dtype = type_of(parameter).dtype
        gradient = _decaying(g, parameter, gradient, self.weight_decay)
        square = g.op("Mul", [g.op("Mul", [gradient, gradient]), g.constant(1 - self.alpha, dtype)])
        mean = g.op("Mul", [slot("square_mean"), g.constant(self.alpha, dtype)])
        slots = {"square_mean": g.op("Add", [mean, square])}
        root = g.op("Add", [g.op("Sqrt", [slots["square_mean"]]), g.constant(self.epsilon, dtype)])
        change = g.op("Div", [gradient, root])
        if self.momentum:
            kept = g.op("Mul", [slot("momentum"), g.constant(self.momentum, dtype)])
            change = slots["momentum"] = g.op("Add", [kept, change])
        return Update(_moved(g, parameter, change, rate), slots)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Gradients over the root of the sum of their squares (Duchi, Hazan and Singer, 2011).

    By ONNX's operator, as in PyTorch; ``rate_decay`` d divides the rate by 1 + d * step,
    ``weight_decay`` is added to the gradient.
    """

    learning_rate: float | Schedule = 0.01
    rate_decay: float = 0.0
    epsilon: float = 1e-10
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self)
        check_number("rate_decay", self.rate_decay)
        check_number("epsilon", self.epsilon)

    def without_decay(self) -> Optimizer:
        return replace(self, weight_decay=0.0)

    def slots(self, parameter: TensorType) -> Mapping[str, TensorType]:
        return {"square_sum": parameter}

    def update(
        self,
        g: GraphBuilder,
        parameter: ir.Value,
        gradient: ir.Value,
        slot: Slot,
        rate: ir.Value,
        step: ir.Value,
    ) -> Update:
        attributes: dict[str, float | str] = {
            "decay_factor": self.rate_decay,
            "epsilon": self.epsilon,
            "norm_coefficient": self.weight_decay,
        }
        slots = {"square_sum": slot("square_sum")}
        return _stepped(g, "Adagrad", [rate, step, parameter, gradient], attributes, slots)


def _decaying(g: GraphBuilder, parameter: ir.Value, gradient: ir.Value, decay: float) -> ir.Value:
    """``gradient + decay * parameter``."""
    if not decay:
        return gradient
    share = g.op("Mul", [parameter, g.constant(decay, type_of(parameter).dtype)])
    return g.op("Add", [gradient, share])


def _moved(g: GraphBuilder, parameter: ir.Value, change: ir.Value, rate: ir.Value) -> ir.Value:
    """``parameter - rate * change``."""
    return g.op("Sub", [parameter, g.op("Mul", [change, _like(g, rate, parameter)])])


def _like(g: GraphBuilder, scalar: ir.Value, parameter: ir.Value) -> ir.Value:
    """A float32 scalar in the parameter's element type."""
    same = type_of(scalar).dtype == type_of(parameter).dtype
    return scalar if same else g.op("CastLike", [scalar, parameter])


OPTIMIZERS: dict[str, type[Any]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
}
"""Optimizers by their name on the command line."""

RATE_TYPE = TensorType((), np.dtype(np.float32))
