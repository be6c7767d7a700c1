"""Cross-entropy of classes: by index or as distributions, smoothed, ignored, weighted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.autodiff.loss import Loss, check_weights, sum_of
from coexec.base.arguments import check_number
from coexec.base.errors import DataError, UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of

INT64 = np.dtype(np.int64)


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of softmax(prediction) against class indices or distributions.

    ``class_axis`` is the axis of classes: 1 for logits ``(N, C)`` or ``(N, C, d1, ...)``, -1 for a
    language model's ``(N, T, C)``. Labels have the prediction's shape without that axis (int64),
    or with it if ``soft_targets`` (float). Labels equal to ``ignore_index`` do not count.
    ``label_smoothing`` in [0, 1) mixes the uniform distribution into the target (Szegedy et al.,
    "Rethinking the Inception Architecture", 2016, section 7). ``class_weights``, a number for each
    class, weigh what a label of that class costs; the mean is over the weights of the labels (with
    ``soft_targets`` over samples), as in PyTorch.
    """

    label_smoothing: float = 0.0
    ignore_index: int | None = None
    soft_targets: bool = False
    class_axis: int = 1
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_number("label_smoothing", self.label_smoothing, below=1)
        check_weights("class_weights", self.class_weights)
        if self.soft_targets and self.ignore_index is not None:
            raise UsageError("ignore_index has no meaning with soft_targets")

    def labels_type(self, prediction: TensorType) -> TensorType:
        if self.soft_targets:
            return prediction
        axis = self._axis(prediction)
        return TensorType(prediction.shape[:axis] + prediction.shape[axis + 1 :], INT64)

    def build(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        logits = self._classes_second(g, prediction)
        weights = self._weights(g, type_of(logits))
        if self.soft_targets:
            return self._soft(g, logits, self._classes_second(g, labels), weights)
        labels = _flat(g, labels) if self._axis(type_of(prediction)) != 1 else labels
        if self.label_smoothing:
            return self._smoothed(g, logits, labels, weights)
        attributes = {} if self.ignore_index is None else {"ignore_index": self.ignore_index}
        operands = [logits, labels, *([] if weights is None else [weights])]
        loss, _ = g.ops("SoftmaxCrossEntropyLoss", operands, attributes, outputs=2)
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

    def weight(self, labels: Array) -> float:
        if self.soft_targets:
            return float(len(labels))
        counted = labels[labels != self.ignore_index] if self.ignore_index is not None else labels
        if not self.class_weights:
            return float(counted.size)
        return float(np.asarray(self.class_weights)[counted].sum())

    def answers(self, prediction: Array, labels: Array) -> tuple[int, int]:
        axis = self.class_axis
        answers = prediction.argmax(axis)
        truth = labels.argmax(axis) if self.soft_targets else labels
        counted = np.ones(truth.shape, bool)
        if self.ignore_index is not None:
            counted = truth != self.ignore_index
        return int((answers == truth)[counted].sum()), int(counted.sum())

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

    def _weights(self, g: GraphBuilder, logits: TensorType) -> ir.Value | None:
        """Weights of the classes as a vector; none if all are 1."""
        if not self.class_weights:
            return None
        count, classes = len(self.class_weights), logits.shape[1]
        if count != classes:
            raise DataError(f"there are {count} class weights, but the model has {classes} classes")
        return g.constant(np.array(self.class_weights), logits.dtype)

    def _soft(
        self, g: GraphBuilder, logits: ir.Value, targets: ir.Value, weights: ir.Value | None
    ) -> ir.Value:
        """-sum(weights * targets * log softmax) over classes, averaged over the rest."""
        kind = type_of(logits)
        targets = _weighted(g, self._smooth(g, targets, kind.shape[1]), weights)
        log_probability = g.op("LogSoftmax", [logits], {"axis": 1})
        total = sum_of(g, g.op("Mul", [targets, log_probability]))
        count = kind.size // kind.shape[1]
        return g.op("Mul", [total, g.constant(-1.0 / count, kind.dtype)])

    def _smooth(self, g: GraphBuilder, targets: ir.Value, classes: int) -> ir.Value:
        if not self.label_smoothing:
            return targets
        dtype = type_of(targets).dtype
        kept = g.op("Mul", [targets, g.constant(1.0 - self.label_smoothing, dtype)])
        return g.op("Add", [kept, g.constant(self.label_smoothing / classes, dtype)])

    def _smoothed(
        self, g: GraphBuilder, logits: ir.Value, labels: ir.Value, weights: ir.Value | None
    ) -> ir.Value:
        """Smoothed one-hot targets; ignored labels weigh nothing."""
        kind = type_of(logits)
        depth = g.constant(kind.shape[1], "int64")
        values = g.constant(np.array([0, 1]), kind.dtype)
        one_hot = g.op("OneHot", [labels, depth, values], {"axis": 1})
        targets = _weighted(g, self._smooth(g, one_hot, kind.shape[1]), weights)
        log_probability = g.op("LogSoftmax", [logits], {"axis": 1})
        losses = _over_classes(g, g.op("Mul", [targets, log_probability]))
        if self.ignore_index is None and weights is None:
            count = kind.size // kind.shape[1]
            return g.op("Mul", [sum_of(g, losses), g.constant(-1.0 / count, kind.dtype)])
        counts = _over_classes(g, _weighted(g, one_hot, weights))
        if self.ignore_index is not None:
            ignored = g.op("Equal", [labels, g.constant(self.ignore_index, "int64")])
            zero = g.constant(0, kind.dtype)
            counts = g.op("Where", [ignored, zero, counts])
            losses = g.op("Where", [ignored, zero, losses])
        return g.op("Neg", [g.op("Div", [sum_of(g, losses), sum_of(g, counts)])])


def _flat(g: GraphBuilder, labels: ir.Value) -> ir.Value:
    return g.op("Reshape", [labels, g.constant(np.array([-1], np.int64), "int64")])


def _over_classes(g: GraphBuilder, value: ir.Value) -> ir.Value:
    """The sum over axis 1, which goes."""
    axes = g.constant(np.array([1], np.int64), "int64")
    return g.op("ReduceSum", [value, axes], {"keepdims": 0})


def _weighted(g: GraphBuilder, value: ir.Value, weights: ir.Value | None) -> ir.Value:
    """``value`` by a vector of weights along axis 1."""
    if weights is None:
        return value
    shape = np.array([-1, *[1] * (type_of(value).rank - 2)], np.int64)
    return g.op("Mul", [value, g.op("Reshape", [weights, g.constant(shape, "int64")])])
