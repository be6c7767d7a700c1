"""Losses: each builds a scalar from a prediction and labels out of ONNX operators.

``labels_type`` says what the labels of a batch look like; ``check_labels`` refuses values that the
loss has no meaning for, before they reach a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.base.arguments import check_number
from coexec.base.errors import DataError, UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of

INT64 = np.dtype(np.int64)


class Loss(ABC):
    """A differentiable objective, averaged over the batch."""

    @abstractmethod
    def labels_type(self, prediction: TensorType) -> TensorType:
        """Type of the labels that go with a prediction."""

    @abstractmethod
    def build(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        """Append the loss; returns a scalar value."""

    def check_labels(self, labels: Array, prediction: TensorType) -> None:
        """Raise :class:`DataError` for labels out of range."""
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise DataError("labels contain NaN or infinity")

    def accuracy(self, prediction: Array, labels: Array) -> float | None:
        """Share of right answers, or ``None`` where the loss is not about classes."""
        return None


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of softmax(prediction) against class indices or distributions.

    ``class_axis`` is the axis of classes: 1 for logits ``(N, C)`` or ``(N, C, d1, ...)``, -1 for a
    language model's ``(N, T, C)``. Labels have the prediction's shape without that axis (int64),
    or with it if ``soft_targets`` (float). Labels equal to ``ignore_index`` do not count.
    ``label_smoothing`` in [0, 1) mixes the uniform distribution into the target (Szegedy et al.,
    "Rethinking the Inception Architecture", 2016, section 7).
    """

    label_smoothing: float = 0.0
    ignore_index: int | None = None
    soft_targets: bool = False
    class_axis: int = 1

    def __post_init__(self) -> None:
        check_number("label_smoothing", self.label_smoothing, below=1)
        if self.soft_targets and self.ignore_index is not None:
            raise UsageError("ignore_index has no meaning with soft_targets")

    def labels_type(self, prediction: TensorType) -> TensorType:
        if self.soft_targets:
            return prediction
        axis = self._axis(prediction)
        return TensorType(prediction.shape[:axis] + prediction.shape[axis + 1 :], INT64)

    def build(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        logits = self._classes_second(g, prediction)
        if self.soft_targets:
            return self._soft(g, logits, self._classes_second(g, labels))
        labels = _flat(g, labels) if self._axis(type_of(prediction)) != 1 else labels
        if self.label_smoothing:
            return self._smoothed(g, logits, labels)
        attributes = {} if self.ignore_index is None else {"ignore_index": self.ignore_index}
        loss, _ = g.ops("SoftmaxCrossEntropyLoss", [logits, labels], attributes, outputs=2)
        return loss

    def check_labels(self, labels: Array, prediction: TensorType) -> None:
        super().check_labels(labels, prediction)
        if self.soft_targets:
            return
        classes = prediction.shape[self._axis(prediction)]
        counted = labels[labels != self.ignore_index] if self.ignore_index is not None else labels
        if counted.size and (counted.min() < 0 or counted.max() >= classes):
            raise DataError(
                f"labels range from {counted.min()} to {counted.max()}, but the model has "
                f"{classes} classes (0 to {classes - 1})"
            )

    def accuracy(self, prediction: Array, labels: Array) -> float | None:
        axis = self.class_axis
        answers = prediction.argmax(axis)
        truth = labels.argmax(axis) if self.soft_targets else labels
        counted = np.ones(truth.shape, bool)
        if self.ignore_index is not None:
            counted = truth != self.ignore_index
        return float((answers == truth)[counted].mean()) if counted.any() else None

    def _axis(self, prediction: TensorType) -> int:
        if not -prediction.rank <= self.class_axis < prediction.rank:
            raise DataError(f"class_axis {self.class_axis} does not exist in {prediction}")
        return self.class_axis % prediction.rank

    def _classes_second(self, g: GraphBuilder, value: ir.Value) -> ir.Value:
        """``(N, C, ...)`` as it is; with classes last, as ``(N*T, C)``."""
        kind = type_of(value)
        axis = self._axis(kind)
        if axis == 1:
            return value
        if axis != kind.rank - 1:
            raise DataError(f"class_axis must be 1 or the last axis of {kind}")
        shape = np.array([-1, kind.shape[-1]], np.int64)
        return g.op("Reshape", [value, g.constant(shape, "int64")])

    def _soft(self, g: GraphBuilder, logits: ir.Value, targets: ir.Value) -> ir.Value:
        """-sum(targets * log softmax) over classes, averaged over the rest."""
        kind = type_of(logits)
        targets = self._smooth(g, targets, kind.shape[1])
        log_probability = g.op("LogSoftmax", [logits], {"axis": 1})
        total = _sum(g, g.op("Mul", [targets, log_probability]))
        count = kind.size // kind.shape[1]
        return g.op("Mul", [total, g.constant(-1.0 / count, kind.dtype)])

    def _smooth(self, g: GraphBuilder, targets: ir.Value, classes: int) -> ir.Value:
        if not self.label_smoothing:
            return targets
        dtype = type_of(targets).dtype
        kept = g.op("Mul", [targets, g.constant(1.0 - self.label_smoothing, dtype)])
        return g.op("Add", [kept, g.constant(self.label_smoothing / classes, dtype)])

    def _smoothed(self, g: GraphBuilder, logits: ir.Value, labels: ir.Value) -> ir.Value:
        """Smoothed one-hot targets; ignored labels weigh nothing."""
        kind = type_of(logits)
        depth = g.constant(kind.shape[1], "int64")
        values = g.constant(np.array([0, 1]), kind.dtype)
        one_hot = g.op("OneHot", [labels, depth, values], {"axis": 1})
        targets = self._smooth(g, one_hot, kind.shape[1])
        log_probability = g.op("LogSoftmax", [logits], {"axis": 1})
        axes = g.constant(np.array([1], np.int64), "int64")
        losses = g.op("ReduceSum", [g.op("Mul", [targets, log_probability]), axes], {"keepdims": 0})
        if self.ignore_index is None:
            count = kind.size // kind.shape[1]
            return g.op("Mul", [_sum(g, losses), g.constant(-1.0 / count, kind.dtype)])
        ignored = g.op("Equal", [labels, g.constant(self.ignore_index, "int64")])
        zero, one = g.constant(0, kind.dtype), g.constant(1, kind.dtype)
        weights = g.op("Where", [ignored, zero, one])
        total = _sum(g, g.op("Mul", [losses, weights]))
        return g.op("Neg", [g.op("Div", [total, _sum(g, weights)])])


class _Elementwise(Loss):
    """Mean of a function of every element; labels are shaped like the prediction."""

    def labels_type(self, prediction: TensorType) -> TensorType:
        return prediction

    def build(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        kind = type_of(prediction)
        total = _sum(g, self.element(g, prediction, labels))
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
    """-z log s(x) - (1 - z) log(1 - s(x)) for labels z in [0, 1], as softplus(x) - x z."""

    def element(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        softplus = g.op("Softplus", [prediction])
        return g.op("Sub", [softplus, g.op("Mul", [prediction, labels])])

    def check_labels(self, labels: Array, prediction: TensorType) -> None:
        super().check_labels(labels, prediction)
        if labels.size and (labels.min() < 0 or labels.max() > 1):
            raise DataError(
                f"labels range from {labels.min()} to {labels.max()}; this loss wants [0, 1]"
            )


LOSSES = {
    "cross-entropy": SoftmaxCrossEntropy,
    "mse": MeanSquaredError,
    "l1": L1,
    "huber": Huber,
    "bce": BinaryCrossEntropyWithLogits,
}
"""Losses by their name on the command line."""


def _sum(g: GraphBuilder, value: ir.Value) -> ir.Value:
    return g.op("ReduceSum", [value], {"keepdims": 0})


def _flat(g: GraphBuilder, labels: ir.Value) -> ir.Value:
    return g.op("Reshape", [labels, g.constant(np.array([-1], np.int64), "int64")])
