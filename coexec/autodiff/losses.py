"""Losses: each builds a scalar from a prediction and labels out of ONNX operators.

``labels_type`` says what the labels of a batch look like; ``check_labels`` refuses values that the
loss has no meaning for, before they reach a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from coexec.base.arguments import check_number
from coexec.base.errors import DataError, UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of

INT64 = np.dtype(np.int64)
LABELS = "labels"
"""Name of the input for labels, where the model has none of this name."""


@dataclass(frozen=True)
class Loss(ABC):
    """A differentiable objective, averaged over the batch.

    ``output`` names the model's output that it judges (the first one if empty).
    """

    output: str = field(default="", kw_only=True)

    @property
    def labelled(self) -> bool:
        """Whether a step takes labels beside the inputs of the model."""
        return True

    def prediction(self, outputs: Sequence[ir.Value]) -> ir.Value:
        """The output that the loss judges.

        Raises:
            UsageError: the model has none of that name.
        """
        chosen = [value for value in outputs if value.name == (self.output or outputs[0].name)]
        if not chosen:
            known = ", ".join(str(value.name) for value in outputs)
            raise UsageError(f"the loss is to judge output {self.output!r}; there are: {known}")
        return chosen[0]

    def append(self, g: GraphBuilder, prediction: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        """Append the loss, a scalar, and the input of its labels, if it takes some."""
        labels = g.input(LABELS, self.labels_type(type_of(prediction)))
        return self.build(g, prediction, labels), labels

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

    def weight(self, labels: Array) -> float:
        """What a batch with these labels weighs in a mean over batches."""
        return float(len(labels))

    def answers(self, prediction: Array, labels: Array) -> tuple[int, int]:
        """Right answers, and how many there are; none where the loss is not about classes."""
        return 0, 0

    def accuracy(self, prediction: Array, labels: Array) -> float | None:
        """Share of right answers, or ``None`` where there are none to be right."""
        right, count = self.answers(prediction, labels)
        return right / count if count else None


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
        _check_weights("class_weights", self.class_weights)
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
        total = _sum(g, g.op("Mul", [targets, log_probability]))
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
            return g.op("Mul", [_sum(g, losses), g.constant(-1.0 / count, kind.dtype)])
        counts = _over_classes(g, _weighted(g, one_hot, weights))
        if self.ignore_index is not None:
            ignored = g.op("Equal", [labels, g.constant(self.ignore_index, "int64")])
            zero = g.constant(0, kind.dtype)
            counts = g.op("Where", [ignored, zero, counts])
            losses = g.op("Where", [ignored, zero, losses])
        return g.op("Neg", [g.op("Div", [_sum(g, losses), _sum(g, counts)])])


@dataclass(frozen=True)
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
        _check_weights("pos_weight", each)

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
        return _sum(g, prediction), None

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


def _sum(g: GraphBuilder, value: ir.Value) -> ir.Value:
    return g.op("ReduceSum", [value], {"keepdims": 0})


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


def _check_weights(name: str, weights: tuple[float, ...]) -> None:
    """Refuse what are no weights: texts, negative ones, or all of them 0.

    Raises:
        UsageError: with the argument's name.
    """
    if not isinstance(weights, tuple):
        raise UsageError(f"{name} is {weights!r}; it has to be a tuple of numbers")
    for weight in weights:
        check_number(name, weight)
    if weights and not any(weights):
        raise UsageError(f"{name} are all 0: nothing would count")
