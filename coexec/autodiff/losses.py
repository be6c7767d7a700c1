"""All losses, by class and by name: of classes, of each element, and of the model's own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.autodiff.cross_entropy import SoftmaxCrossEntropy
from coexec.autodiff.loss import LABELS, Loss, check_weights, sum_of
from coexec.base.arguments import check_number
from coexec.base.errors import DataError, UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of

__all__ = [
    "L1",
    "LABELS",
    "LOSSES",
    "BinaryCrossEntropyWithLogits",
    "Huber",
    "Loss",
    "MeanSquaredError",
    "ModelLoss",
    "SoftmaxCrossEntropy",
]


@dataclass(frozen=True)
class _Elementwise(Loss):
    """Mean of a function of every element; labels are shaped like the prediction."""

    def labels_type(self, prediction: TensorType) -> TensorType:
        return prediction

    def build(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        kind = type_of(prediction)
        total = sum_of(g, self.element(g, prediction, labels))
        return g.op("Mul", [total, g.constant(1.0 / kind.size, kind.dtype)])

    @abstractmethod
    def element(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        """Loss of each element."""


@dataclass(frozen=True)
class MeanSquaredError(_Elementwise):
    """(prediction - label)^2."""

    def element(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        difference = g.op("Sub", [prediction, labels])
        return g.op("Mul", [difference, difference])


@dataclass(frozen=True)
class L1(_Elementwise):
    """|prediction - label|."""

    def element(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        return g.op("Abs", [g.op("Sub", [prediction, labels])])


@dataclass(frozen=True)
class Huber(_Elementwise):
    """Quadratic up to ``delta``, linear beyond (Huber, 1964)."""

    delta: float = 1.0

    def __post_init__(self) -> None:
        check_number("delta", self.delta)
        if not self.delta:
            raise UsageError("delta is 0: nothing would be learned")

    def element(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        dtype = type_of(prediction).dtype
        delta = g.constant(self.delta, dtype)
        half = g.constant(0.5, dtype)
        error = g.op("Abs", [g.op("Sub", [prediction, labels])])
        near = g.op("Mul", [half, g.op("Mul", [error, error])])
        offset = g.constant(0.5 * self.delta, dtype)
        far = g.op("Mul", [delta, g.op("Sub", [error, offset])])
        return g.op("Where", [g.op("LessOrEqual", [error, delta]), near, far])


@dataclass(frozen=True)
class BinaryCrossEntropyWithLogits(_Elementwise):
    """-w z log s(x) - (1 - z) log(1 - s(x)) for labels z in [0, 1].

    ``pos_weight`` is w, what a label of 1 costs: one number, or one for each class (axis 1).
    """

    pos_weight: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        each = self.pos_weight if isinstance(self.pos_weight, tuple) else (self.pos_weight,)
        check_weights("pos_weight", each)

    def element(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        """softplus(x) - x z, or (1 - z) x + (1 + (w - 1) z) softplus(-x) with weights."""
        if self.pos_weight == 1:
            softplus = g.op("Softplus", [prediction])
            return g.op("Sub", [softplus, g.op("Mul", [prediction, labels])])
        kind = type_of(prediction)
        one = g.constant(1, kind.dtype)
        more = g.op("Mul", [labels, g.constant(self._weights(kind) - 1, kind.dtype)])
        softplus = g.op("Softplus", [g.op("Neg", [prediction])])
        weighted = g.op("Mul", [g.op("Add", [one, more]), softplus])
        rest = g.op("Mul", [g.op("Sub", [one, labels]), prediction])
        return g.op("Add", [rest, weighted])

    def _weights(self, kind: TensorType) -> Array:
        """Weights as they are broadcast to a prediction."""
        weights = np.asarray(self.pos_weight, np.float64)
        if not weights.ndim:
            return weights
        classes = kind.shape[1] if kind.rank > 1 else 1
        if len(weights) != classes:
            raise DataError(
                f"pos_weight has {len(weights)} numbers, but axis 1 of the prediction {classes}"
            )
        return weights.reshape(-1, *[1] * (kind.rank - 2))

    def check_labels(self, labels: Array, prediction: TensorType) -> None:
        super().check_labels(labels, prediction)
        if labels.size and (labels.min() < 0 or labels.max() > 1):
            raise DataError(
                f"labels range from {labels.min()} to {labels.max()}; this loss wants [0, 1]"
            )


@dataclass(frozen=True)
class ModelLoss(Loss):
    """A loss that the model computes itself: its output ``output``, one number.

    Labels, if there are any, are inputs of the model. So a model may have any loss that its
    exporter can write: several outputs judged together, masks, distances, a prior.
    """

    @property
    def labelled(self) -> bool:
        return False

    def append(self, g: GraphBuilder, prediction: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        kind = type_of(prediction)
        if kind.size != 1 or kind.dtype.kind != "f":
            raise UsageError(
                f"output {prediction.name!r} is {kind}, not the loss, which is one number: name "
                "the output that is"
            )
        # No view: the copy of one would come after the backward pass, for which early updates wait.
        return sum_of(g, prediction), None

    def labels_type(self, prediction: TensorType) -> TensorType:
        raise UsageError("a loss of the model's own has no labels but the model's inputs")

    def build(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        raise UsageError("a loss of the model's own is part of the model")


LOSSES: dict[str, type[Loss]] = {
    "cross-entropy": SoftmaxCrossEntropy,
    "mse": MeanSquaredError,
    "l1": L1,
    "huber": Huber,
    "bce": BinaryCrossEntropyWithLogits,
    "model": ModelLoss,
}
"""Losses by their name on the command line."""
